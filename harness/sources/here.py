"""Whether files are on this machine already: nothing here uses the network."""

from __future__ import annotations

from typing import assert_never

from harness.errors import InputError
from harness.sources import cache, fetch
from harness.sources.fetch import HubSource, LocalSource, PackageSource, PartsSource, Source


def is_here(source: Source) -> bool:
    """Whether :func:`harness.sources.fetch.resolve` would find the files of ``source`` without a download."""
    match source:
        case PackageSource():
            return cache.is_whole(cache.root() / "packages" / source.key)
        case PartsSource():
            return cache.is_whole(cache.root() / "packages" / f"{source.join}-{source.sha256[:12]}")
        case HubSource():
            return _is_in_hub_cache(source)
        case LocalSource():
            return _exists(source)
        case _:
            assert_never(source)


def _exists(source: LocalSource) -> bool:
    try:
        fetch.resolve(source)
    except InputError:
        return False
    return True


def _is_in_hub_cache(source: HubSource) -> bool:
    from huggingface_hub import snapshot_download

    patterns = list(source.files) or None
    try:
        snapshot_download(
            source.hub,
            revision=source.revision,
            repo_type=source.repository,
            allow_patterns=patterns,
            local_files_only=True,
        )
    except (OSError, ValueError):
        return False
    return True

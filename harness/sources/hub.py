"""A repository of the Hugging Face hub, through the hub's own client and cache."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from functools import cache as once
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import InputError
from harness.sources import cache

if TYPE_CHECKING:
    from harness.sources.fetch import HubSource

#: Seconds in which the hub has to answer; its client would try again and again for half a minute.
_PATIENCE_S = 5.0


def snapshot(source: HubSource, *, verify: bool = False) -> Path:
    """The folder of the hub's cache with the files of ``source``; ``verify``: damaged files are fetched anew.

    Without a network it is answered at once, from the cache. Raises :class:`InputError` with what to do about it.
    """
    folder = _asked(source)
    if verify and (damaged := [*_damaged(folder)]):
        for path in damaged:
            path.resolve().unlink(missing_ok=True)
            path.unlink()
        folder = _asked(source)
    return folder


def _asked(source: HubSource) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    where = f"fetch: {source.hub}@{source.revision}"
    try:
        return Path(
            snapshot_download(
                source.hub,
                revision=source.revision,
                repo_type=source.repository,
                allow_patterns=list(source.files) or None,
                local_files_only=not _answers(),
            )
        )
    except GatedRepoError as error:
        raise InputError(f"{where}: access must be granted on the hub first, then 'hf auth login'") from error
    except RevisionNotFoundError as error:
        raise InputError(f"{where}: the hub has no such revision") from error
    except RepositoryNotFoundError as error:
        raise InputError(f"{where}: the hub has no such repository, or it is private ('hf auth login')") from error
    except LocalEntryNotFoundError as error:
        offline = " (HF_HUB_OFFLINE is set)" if os.environ.get("HF_HUB_OFFLINE") else ""
        raise InputError(
            f"{where}: the hub cannot be reached{offline} and the files are not in its cache; "
            "run 'tunebench fetch' where it can, or use a model or task from a package"
        ) from error
    except Exception as error:  # whatever the HTTP stack raises
        raise InputError(f"{where}: {str(error).splitlines()[0] if str(error) else type(error).__name__}") from error


@once
def _answers() -> bool:
    """Whether the hub answers, whatever it says."""
    from huggingface_hub import constants, get_session

    if constants.HF_HUB_OFFLINE:
        return False
    try:
        get_session().head(constants.ENDPOINT, timeout=_PATIENCE_S)
    except Exception:  # whatever the HTTP stack raises
        return False
    return True


def _damaged(folder: Path) -> Iterator[Path]:
    """The files of a snapshot whose content is not what the name of their blob says, a SHA-256 or Git's SHA-1."""
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() and path.is_file():
            blob = path.resolve()
            told = {64: cache.sha256, 40: _git_sha1}.get(len(blob.name))
            if told is not None and told(blob) != blob.name:
                yield path


def _git_sha1(path: Path) -> str:
    """Git's name for the content of a file."""
    digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as stream:
        for chunk in iter(partial(stream.read, 1 << 20), b""):
            digest.update(chunk)
    return digest.hexdigest()

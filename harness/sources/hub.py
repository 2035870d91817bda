"""The Hugging Face hub: which commit a revision is, and the files there, with one line for whatever is in the way.

The hub's library tries for half a minute when nothing answers. So one short question comes first, which is not
repeated. Where the hub cannot be reached, what its own cache holds counts.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import partial
from pathlib import Path

from harness.errors import InputError
from harness.files import sha256

#: A commit of the hub: a revision that cannot move.
COMMIT = re.compile(r"[0-9a-f]{40}")
#: How long the hub may take to answer the first question.
_ANSWER_S = 10


@dataclass(frozen=True)
class Listing:
    """What the hub says about a repository at one revision."""

    commit: str
    files: tuple[str, ...]

    def has(self, pattern: str) -> bool:
        """Whether a file matches ``pattern``."""
        return any(fnmatch(name, pattern) for name in self.files)


def look(repository: str, revision: str, kind: str = "model", where: str | None = None) -> Listing | None:
    """What the hub says of ``revision``; None if it cannot be reached.

    Raises :class:`InputError`, which begins with ``where``, if there is no such repository or revision for this user.
    """
    from huggingface_hub import HfApi

    with _one_line(where or f"fetch: {repository}@{revision}"):
        try:
            info = HfApi().repo_info(repository, revision=revision, repo_type=kind, timeout=_ANSWER_S)
        except Exception as error:
            if _answered(error):
                raise
            return None
    return Listing(str(info.sha), tuple(sibling.rfilename for sibling in getattr(info, "siblings", None) or ()))


def resolve(
    repository: str, revision: str, patterns: Collection[str] = (), kind: str = "model", *, verify: bool = False
) -> Path:
    """:func:`snapshot`; ``verify``: damaged files are fetched anew."""
    folder = snapshot(repository, revision, patterns, kind)
    if verify and (damaged := [*_damaged(folder)]):
        for path in damaged:
            path.resolve().unlink(missing_ok=True)
            path.unlink()
        folder = snapshot(repository, revision, patterns, kind, anew=True)
    return folder


def snapshot(
    repository: str,
    revision: str,
    patterns: Collection[str] = (),
    kind: str = "model",
    where: str | None = None,
    *,
    quiet: bool = False,
    anew: bool = False,
) -> Path:
    """The folder, named like its commit, with the files at ``revision`` that match ``patterns`` (none: all files).

    What is whole in the cache at a commit needs no network; ``anew`` does not trust that it is. Raises
    :class:`InputError`, which begins with ``where``: no such repository, revision or file, access not granted, or
    neither a network nor the files in the cache.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    where = where or f"fetch: {repository}@{revision}"
    get = partial(
        snapshot_download, repository, revision=revision, repo_type=kind, allow_patterns=list(patterns) or None
    )
    cached = None
    with _one_line(where), suppress(LocalEntryNotFoundError):
        cached = Path(get(local_files_only=True))
    if cached is not None and not anew and COMMIT.fullmatch(revision) and _is_whole(cached, patterns):
        return cached
    if look(repository, revision, kind, where) is None:
        if cached is None:
            raise InputError(f"{where}: {_unreachable()}")
        return cached
    with _one_line(where), _without_bars() if quiet else nullcontext():
        return Path(get())


@contextmanager
def _without_bars() -> Iterator[None]:
    """Show no progress, which is of no interest for a small file and would stand between a command's lines."""
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    shown = not are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            enable_progress_bars()


def _is_whole(folder: Path, patterns: Collection[str]) -> bool:
    """Whether a cached folder has the weights that ``patterns`` ask for; the library knows only what it listed."""
    if not any(pattern.endswith(".safetensors") for pattern in patterns):
        return True
    with suppress(OSError, ValueError, LookupError):
        index = json.loads((folder / "model.safetensors.index.json").read_text(encoding="utf-8"))
        return all((folder / name).is_file() for name in index["weight_map"].values())
    return any(folder.glob("*.safetensors"))


def _answered(error: Exception) -> bool:
    """Whether the hub answered with a refusal, rather than not at all or with a fault of its own."""
    response = getattr(error, "response", None)
    return response is not None and response.status_code < 500


def _unreachable() -> str:
    offline = " (HF_HUB_OFFLINE is set)" if os.environ.get("HF_HUB_OFFLINE") else ""
    return (
        f"the hub cannot be reached{offline} and the files are not in its cache; "
        "run 'tunebench fetch' where it can, or use a model or task from a package"
    )


@contextmanager
def _one_line(where: str) -> Iterator[None]:
    """Turn what the hub's library raises into one line."""
    from huggingface_hub.errors import (
        GatedRepoError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        yield
    except GatedRepoError as error:
        raise InputError(f"{where}: access must be granted on the hub first, then 'hf auth login'") from error
    except RevisionNotFoundError as error:
        raise InputError(f"{where}: the hub has no such revision") from error
    except RepositoryNotFoundError as error:
        raise InputError(f"{where}: the hub has no such repository, or it is private ('hf auth login')") from error
    except LocalEntryNotFoundError as error:
        raise InputError(f"{where}: {_unreachable()}") from error
    except Exception as error:  # whatever the HTTP stack raises
        raise InputError(f"{where}: {str(error).splitlines()[0] if str(error) else type(error).__name__}") from error


def _damaged(folder: Path) -> Iterator[Path]:
    """The files of a snapshot whose content is not what the name of their blob says, a SHA-256 or Git's SHA-1."""
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() and path.is_file():
            blob = path.resolve()
            told = {64: sha256, 40: _git_sha1}.get(len(blob.name))
            if told is not None and told(blob) != blob.name:
                yield path


def _git_sha1(path: Path) -> str:
    """Git's name for the content of a file."""
    digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as stream:
        for chunk in iter(partial(stream.read, 1 << 20), b""):
            digest.update(chunk)
    return digest.hexdigest()

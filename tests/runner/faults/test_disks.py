"""Disks that fill up or cannot be written: one clear line, nothing half-written, and the next run goes on."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from helpers import tiny_models as tiny

from harness.ledger.ledger import Ledger

pytestmark = pytest.mark.slow

Mount = Callable[[str], Path]

IMPORTS = "from pathlib import Path\nfrom harness.results.record import write_outcome\n"
FILL = """\
if act == 'nap':
    with Path(trial_dir, 'ballast').open('wb') as stream:
        while True:
            stream.write(bytes(65536))"""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk of its own: 120 MB, of which a run needs 100 to begin."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=120m", "tmpfs", place], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"this user cannot mount: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def run(folder: Path, out: Path, *options: str) -> tuple[int, str, str]:
    return tiny.done(tiny.tunebench(folder, "run", "tiny.yaml", "--out", str(out), *options))


@pytest.mark.long
def test_a_disk_that_fills_up_while_a_trial_runs(tmp_path: Path, disk: Path) -> None:
    tiny.bench(tmp_path, methods={"full": {"act": ["ok", "nap"]}}, seeds=[0, 1])
    tiny.notebook(tmp_path / "notebooks" / "methods" / "full.ipynb", cells=(IMPORTS + FILL, tiny.OUTCOME))
    out = disk / "out"
    code, _, err = run(tmp_path, out)
    assert code in (1, 2), err
    assert "Traceback" not in err, err
    # What has a record has a whole one, and what failed says that the disk was full.
    for record in Ledger.open(out).records():
        told = record.status == "ok" or "No space left on device" in str(record.reason)
        assert told, (record.status, record.reason)

    for ballast in out.glob("trials/*/ballast"):
        ballast.unlink()
    tiny.notebook(tmp_path / "notebooks" / "methods" / "full.ipynb", cells=(IMPORTS, tiny.OUTCOME))
    code, _, err = run(tmp_path, out, "--retry")
    assert (code, err) == (0, "")
    assert Ledger.open(out).status() == {"ok": 4}
    assert not list(out.rglob("*.part")), "nothing half-written is left"


def test_a_disk_without_room_for_a_run(tmp_path: Path, disk: Path) -> None:
    tiny.bench(tmp_path)
    with (disk / "ballast").open("wb") as stream:
        stream.write(bytes(30_000_000))
    code, _, err = run(tmp_path, disk / "out")
    assert code == 2
    assert re.fullmatch(rf"error: {disk}/out: only \d\d MB are free on this disk; make room or choose --out\n", err)
    assert not (disk / "out").exists() or not list((disk / "out").iterdir())


def test_a_folder_that_cannot_be_written(tmp_path: Path, disk: Path) -> None:
    tiny.bench(tmp_path)
    assert run(tmp_path, disk / "out")[0] == 0
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    code, _, err = run(tmp_path, disk / "new")
    assert (code, err) == (2, f"error: {disk / 'new'}: cannot be written: Read-only file system\n")
    # What is there can still be looked at.
    code, out, err = tiny.done(tiny.tunebench(tmp_path, "status", str(disk / "out")))
    assert (code, err) == (0, "") and "ok" in out

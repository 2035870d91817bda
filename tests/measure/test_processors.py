"""What tells a timing that had the machine to itself from one that had not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from harness.measure import processors as watch
from harness.measure.processors import disturbed, processors, undisturbed


def write(folder: Path, **threads: tuple[int, int]) -> None:
    for thread, (ran, waited) in threads.items():
        (folder / thread).mkdir(exist_ok=True)
        (folder / thread / "schedstat").write_text(f"{ran} {waited} 7\n")


@pytest.fixture(autouse=True)
def nobody_steals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "_stolen", lambda *_: 0.0)


def test_the_share_is_what_ran_of_what_was_ready(tmp_path: Path) -> None:
    write(tmp_path, a=(1000, 500), b=(100, 100))
    with processors(tmp_path) as got:
        assert got.share is None
        # a: ran 700 and waited 200; b: ran 100, waited 0; c began within the region.
        write(tmp_path, a=(1700, 700), b=(200, 100), c=(100, 100))
    assert got.share == pytest.approx(900 / 1200)


def test_what_was_stolen_is_no_part_of_the_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "_stolen", lambda *_: 0.25)
    write(tmp_path, a=(0, 0))
    with processors(tmp_path) as got:
        write(tmp_path, a=(800, 200))
    assert got.share == pytest.approx(0.8 * 0.75)


def test_a_system_that_counts_nothing_has_no_share(tmp_path: Path) -> None:
    with processors(tmp_path / "none") as got:
        pass
    assert got.share is None and disturbed(got.share) is None


def test_what_a_hypervisor_takes_is_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    before = psutil.cpu_times()
    after = before._replace(user=before.user + 6, system=before.system + 2, idle=before.idle + 90)
    assert watch._stolen(before, after) == 0
    if hasattr(after, "steal"):
        assert watch._stolen(before, after._replace(steal=before.steal + 2)) == pytest.approx(0.2)


def test_one_disturbed_region_disturbs_the_row() -> None:
    assert disturbed(1.0, 0.96, None) is False
    assert disturbed(1.0, 0.94) is True
    assert disturbed(None) is None and disturbed() is None


def test_what_was_disturbed_is_measured_again(monkeypatch: pytest.MonkeyPatch) -> None:
    shares = iter([0.5, 0.99, 1.0])
    monkeypatch.setattr(watch, "_share", lambda *_: next(shares))
    results = iter("abc")
    assert undisturbed(lambda: next(results)) == ("b", 0.99)


def test_the_least_disturbed_is_taken_when_none_was_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    shares = iter([0.5, 0.8, 0.7])
    monkeypatch.setattr(watch, "_share", lambda *_: next(shares))
    results = iter("abc")
    assert undisturbed(lambda: next(results)) == ("b", 0.8)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="only Linux counts how long a thread waits")
def test_others_on_the_same_processor_are_seen() -> None:
    here = next(iter(os.sched_getaffinity(0)))
    busy = f"import os; os.sched_setaffinity(0, {{{here}}}); print(flush=True)\nwhile True: pass"
    work = f"""if True:
        import os, time
        os.sched_setaffinity(0, {{{here}}})
        from harness.measure.processors import processors
        with processors() as got:
            end = time.perf_counter() + 0.4
            while time.perf_counter() < end: pass
        print(got.share)"""
    others = [subprocess.Popen([sys.executable, "-c", busy], stdout=subprocess.PIPE) for _ in range(2)]
    try:
        for other in others:
            assert other.stdout is not None and other.stdout.readline()
        done = subprocess.run([sys.executable, "-c", work], capture_output=True, text=True, check=True)
    finally:
        for other in others:
            other.kill()
            other.communicate()
    assert 0 < float(done.stdout) < 0.8

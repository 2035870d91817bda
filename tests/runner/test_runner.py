"""Trials on real kernels, with notebooks that end in every way, and drivers that are killed, stopped and doubled."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import nbformat
import psutil
import pytest
from helpers import tiny_models as tiny

from harness.errors import InputError
from harness.ledger.ledger import Ledger
from harness.results.record import Record
from harness.runner import endings
from harness.runner import trial as trials
from harness.runner.endings import Ending
from harness.runner.executors import process
from harness.sweeps import expand as matrix
from harness.sweeps import spec as sweep
from harness.sweeps.plan import Plan, Planned
from harness.trial import Trial

pytestmark = pytest.mark.slow

HANG = {"full": {"act": ["hang"]}}


def wait_for(condition: Callable[[], object], what: str, seconds: float = 300.0) -> None:
    """Poll until ``condition`` holds; fail when it does not come true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"never happened: {what}"
        time.sleep(0.05)


def records(folder: Path) -> dict[str, Record]:
    """Records of the tiny sweep that ran, by the act of their notebook."""
    found = Ledger.open(folder / "results" / "tiny").records()
    return {str(r.trial.method_args["act"]): r for r in found if r.status != "skipped"}


def kernels(folder: Path) -> list[int]:
    """Processes of the kernels that hang."""
    return [int(path.read_text()) for path in folder.glob("results/tiny/trials/*/pid") if path.read_text()]


def start_and_hang(folder: Path, *options: str) -> tuple[subprocess.Popen[str], int]:
    """A driver whose trial hangs, and the process of that trial's kernel."""
    driver = tiny.tunebench(folder, "run", "tiny.yaml", *options)
    wait_for(lambda: kernels(folder) or driver.poll() is not None, "a kernel that hangs")
    assert driver.poll() is None, driver.communicate()
    (kernel,) = kernels(folder)
    return driver, kernel


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


@pytest.mark.slow
def test_every_ending_is_a_row(tmp_path: Path) -> None:
    acts = ["ok", "raise", "oom", "diverged", "die", "silent", "lie"]
    tiny.bench(tmp_path, methods={"full": {"act": acts}}, objectives=["classification", "sft"])
    code, out, err = tiny.done(tiny.tunebench(tmp_path, "run", "tiny.yaml", "--jobs", "2"))
    assert code == 1, err
    found = records(tmp_path)
    assert {act: (r.status, r.reason, r.failed_cell) for act, r in found.items()} == {
        "ok": ("ok", None, None),
        "raise": ("failed", "ValueError: first line", 2),
        "oom": ("oom", "MemoryError: no room", 2),
        "diverged": ("diverged", "Diverged: loss is nan at step 3", 2),
        "die": ("failed", "the kernel died with SIGKILL", 2),
        "silent": ("failed", "the notebook ended without writing outcome.json (write_outcome)", None),
        "lie": (
            "failed",
            "outcome.json does not fit into the tables: table 'trials', column 'valid_score', "
            f"row trial_id={found['lie'].trial_id}: 'half' is str, must be float",
            None,
        ),
    }
    statuses = [r.status for r in Ledger.open(tmp_path / "results" / "tiny").records()]
    assert statuses.count("skipped") == 1, "sft on a classification task"
    assert all(
        r.environment["torch_version"] and r.duration_s and r.attempt == 1 for r in found.values() if r.duration_s
    )
    assert "ValueError: first line" in out
    assert " 1 skipped, 7 to run\n" in out
    assert f"{found['ok'].trial_id} ok after" in out and ": accuracy 0.5 on validation\n" in out
    assert "results in results/tiny\nnext:\n  tunebench report results/tiny " in out

    failed = tmp_path / "results" / "tiny" / "trials" / found["raise"].trial_id
    assert "acting raise" in (failed / "log.txt").read_text()
    cells = json.loads((failed / "notebook.ipynb").read_text())["cells"]
    assert any("injected-parameters" in cell["metadata"].get("tags", []) for cell in cells)
    assert not (failed / "notebook.part.ipynb").exists()
    assert (tmp_path / "results" / "tiny" / "tables" / "trials.parquet").exists()

    code, out, err = tiny.done(tiny.tunebench(tmp_path, "run", "tiny.yaml"))
    assert (code, out) == (1, "nothing to do: 8 trials done in results/tiny\n"), err


@pytest.mark.slow
@pytest.mark.long
def test_the_time_limit_is_that_of_the_whole_trial(tmp_path: Path) -> None:
    tiny.bench(tmp_path, methods=HANG, limits={"time_s": 3})
    code, _, err = tiny.done(tiny.tunebench(tmp_path, "run", "tiny.yaml"))
    assert code == 1, err
    record = records(tmp_path)["hang"]
    assert (record.status, record.reason) == ("timeout", "the time limit of 3 s was reached")
    assert all(gone(pid) for pid in kernels(tmp_path))


@pytest.mark.slow
@pytest.mark.long
def test_a_kernel_that_takes_more_memory_than_it_may_is_out_of_memory(tmp_path: Path) -> None:
    tiny.bench(tmp_path, methods={"full": {"act": ["hog", "ok"]}}, limits={"memory_gb": 0.6})
    code, _, err = tiny.done(tiny.tunebench(tmp_path, "run", "tiny.yaml"))
    assert code == 1, err
    found = records(tmp_path)
    assert (found["hog"].status, found["hog"].failed_cell, found["ok"].status) == ("oom", 2, "ok")
    assert found["hog"].reason is not None
    assert re.fullmatch(r"the memory limit of 0\.6 GB was reached \(\d\.\d\d GB\)", found["hog"].reason)


@pytest.mark.slow
@pytest.mark.long
def test_the_notebook_of_a_killed_kernel_says_so(tmp_path: Path) -> None:
    tiny.bench(tmp_path, methods={"full": {"act": ["die", "raise", "ok"]}})
    tiny.done(tiny.tunebench(tmp_path, "run", "tiny.yaml"))
    places = {act: tmp_path / "results" / "tiny" / "trials" / r.trial_id for act, r in records(tmp_path).items()}
    books = {act: nbformat.read(place / "notebook.ipynb", as_version=4) for act, place in places.items()}
    for act, reason in (("die", "the kernel died with SIGKILL"), ("raise", "ValueError: first line")):
        book = books[act]
        assert book.metadata.papermill.exception is True
        assert book.metadata.tunebench == {"status": "failed", "reason": reason}
        (cell,) = [cell for cell in book.cells if cell.metadata.get("papermill", {}).get("status") == "failed"]
        assert "acting" in cell.source
        told = "".join(output.get("text", "") for output in cell.outputs)
        assert ("failed: the kernel died with SIGKILL" in told) == (act == "die"), "an exception tells itself"
    assert "tunebench" not in books["ok"].metadata


@pytest.mark.slow
def test_a_killed_driver_leaves_nobody_behind_and_the_next_one_goes_on(tmp_path: Path) -> None:
    tiny.bench(tmp_path, methods={"full": {"act": ["ok", "hang"]}})
    driver, kernel = start_and_hang(tmp_path)
    driver.kill()
    tiny.done(driver)
    wait_for(lambda: gone(kernel), "the end of the kernel")
    assert set(records(tmp_path)) == {"ok"}

    # The same trial again, and this time its notebook ends.
    cells = ("from harness.results.record import write_outcome", tiny.OUTCOME)
    tiny.notebook(tmp_path / "notebooks" / "methods" / "full.ipynb", cells=cells)
    code, _, err = tiny.done(tiny.tunebench(tmp_path, "run", "tiny.yaml"))
    assert code == 0, err
    assert {act: (r.status, r.attempt) for act, r in records(tmp_path).items()} == {"ok": ("ok", 1), "hang": ("ok", 2)}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_stops_the_trial_and_keeps_what_is_done(tmp_path: Path, number: signal.Signals) -> None:
    tiny.bench(tmp_path, methods=HANG)
    driver, kernel = start_and_hang(tmp_path)
    driver.send_signal(number)
    code, _, err = tiny.done(driver)
    assert (code, err) == (130, "interrupted: finished trials are kept; run the same command again to continue\n")
    assert gone(kernel)
    assert Ledger.open(tmp_path / "results" / "tiny").status() == {"pending": 1}


def test_a_lost_trial_process_is_a_failed_row(tmp_path: Path) -> None:
    tiny.bench(tmp_path, methods=HANG)
    driver, kernel = start_and_hang(tmp_path, "--log-json")
    (trial,) = [child for child in psutil.Process(driver.pid).children() if "trial" in child.cmdline()]
    time.sleep(0.5)  # long enough for the driver to see the progress once
    trial.send_signal(signal.SIGKILL)
    code, out, _ = tiny.done(driver)
    events = [json.loads(line) for line in out.splitlines()]
    assert code == 1
    assert [event["event"] for event in events] == ["started", "progress", "ended", "done"]
    assert events[1]["step"] == 3
    assert events[2]["reason"] == "the trial's process ended with SIGKILL; see log.txt"
    wait_for(lambda: gone(kernel), "the end of the kernel")


@pytest.mark.slow
@pytest.mark.long
def test_a_trial_that_is_terminated_from_outside_again_and_again_is_a_failed_row(tmp_path: Path) -> None:
    tiny.bench(tmp_path, methods=HANG)
    driver, _ = start_and_hang(tmp_path)
    seen: set[int] = set()
    for _ in range(3):
        wait_for(lambda: set(kernels(tmp_path)) - seen, "a new kernel")
        seen.update(kernels(tmp_path))
        (trial,) = [child for child in psutil.Process(driver.pid).children() if "trial" in child.cmdline()]
        trial.terminate()
    code, _, err = tiny.done(driver)
    assert code == 1, err
    record = records(tmp_path)["hang"]
    assert (record.status, record.attempt) == ("failed", 3)
    assert record.reason == (
        "the trial ended 3 times without a record (at last, the trial's process ended with exit code 130); see log.txt"
    )
    assert all(map(gone, seen))


def test_a_process_that_left_a_record_is_not_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another driver may set the record aside before the first one sees the end of the process."""
    settings = sweep.load(tiny.bench(tmp_path, methods={"full": {"act": "raise"}}))
    monkeypatch.setenv("TUNEBENCH_NOTEBOOKS", str(tmp_path / "notebooks"))
    ledger = Ledger.create(tmp_path / "out", matrix.plan(settings), settings.to_yaml())
    (row,) = ledger.plan.rows
    folder = ledger.trial_dir(row.trial_id)
    ending = endings.of_process(process.start(folder).wait())
    assert ledger.set_aside(row.trial_id), "it is recorded"
    assert ending == endings.OK, "which is all that a driver asks"
    code, out, _ = tiny.done(tiny.tunebench(tmp_path, "trial", str(folder)))
    assert (code, out) == (1, f"{row.trial_id}: failed: ValueError: first line\n"), "a user is told"


@pytest.mark.slow
def test_two_drivers_share_one_ledger(tmp_path: Path) -> None:
    tiny.bench(tmp_path, methods={"full": {"act": "nap"}}, seeds=list(range(6)))
    drivers = [tiny.tunebench(tmp_path, "run", "tiny.yaml", "--log-json") for _ in range(2)]
    outputs = [tiny.done(driver) for driver in drivers]
    assert [code for code, _, _ in outputs] == [0, 0], outputs
    found = list(Ledger.open(tmp_path / "results" / "tiny").records())
    assert [(r.status, r.attempt) for r in found] == [("ok", 1)] * 6


@pytest.mark.slow
@pytest.mark.long
def test_a_kernel_that_does_not_start_is_started_again(tmp_path: Path) -> None:
    tiny.bench(tmp_path)
    # A sitecustomize that lets the first two kernels die before they answer.
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys\n"
        "if 'harness.runner.kernel' in ' '.join(sys.orig_argv):\n"
        "    count = os.environ['COUNT']\n"
        "    open(count, 'a').write('x')\n"
        "    if os.path.getsize(count) < 3: os._exit(1)\n"
    )
    path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
    run = tiny.tunebench(tmp_path, "run", "tiny.yaml", PYTHONPATH=path, COUNT=str(tmp_path / "count"))
    code, _, err = tiny.done(run)
    assert code == 0, err
    assert (tmp_path / "count").read_text() == "xxx"
    (log,) = tmp_path.glob("results/tiny/trials/*/log.txt")
    assert "the kernel did not start (attempt 2 of 3)" in log.read_text()


def test_a_notebook_gets_what_it_declares_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEBENCH_NOTEBOOKS", str(tmp_path / "notebooks"))
    common = tiny.PARAMETERS.split("act =")[0]
    tiny.notebook(tmp_path / "notebooks" / "plain.ipynb", common + "r = 4\ntrial_dir = None\nartifact_dir = None")
    tiny.notebook(
        tmp_path / "notebooks" / "own.ipynb", common + "method = ''\nmethod_args = {}\nbeta = 1\nparent_dirs = {}"
    )
    axes = {"method": "lora", "method_args": {"r": 8}, "model": "m", "task": "t", "learning_rate": 0.1}
    parent = Trial(notebook="plain", objective="sft", **axes)
    child = Trial(notebook="own", objective="dpo", objective_args={"beta": 2}, parents={"sft": parent.trial_id}, **axes)
    ledger = Ledger.create(tmp_path / "out", Plan("s", (Planned(parent), Planned(child))), "name: s\n")
    needed = [Ledger.of_trial(ledger.trial_dir(t.trial_id))[1] for t in (parent, child)]
    assert needed == [True, False], "kept, because the other trial needs it"
    first = trials._parameters(ledger, Planned(parent), keep=True)
    artifact = str(tmp_path / "out" / "artifacts" / parent.trial_id)
    assert (first["r"], first["artifact_dir"]) == (8, artifact)
    with pytest.raises(
        InputError, match=rf"trial {child.trial_id}: no trial that could be its parent \(sft\) has ended"
    ):
        trials._parameters(ledger, Planned(child), keep=False)
    ledger.finish(endings.record_of(ledger, Planned(parent), endings.OK, 1))
    second = trials._parameters(ledger, Planned(child), keep=False)
    assert second["method_args"] == {"r": 8}
    assert (second["method"], second["beta"], second["parent_dirs"]) == ("lora", 2, {"sft": artifact})
    assert second.keys() & {"r", "trial_dir", "artifact_dir"} == set()


@pytest.mark.parametrize(
    ("name", "message", "status"),
    [
        ("OutOfMemoryError", "CUDA out of memory. Tried to allocate 2.00 GiB", "oom"),
        ("MemoryError", "", "oom"),
        ("RuntimeError", "[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory", "oom"),
        ("OSError", "[Errno 12] Cannot allocate memory", "oom"),
        ("Diverged", "loss is nan", "diverged"),
        ("ValueError", "loss is not finite", "diverged"),
        ("RuntimeError", "info about the loss function", "failed"),
        ("KeyError", "'loss'", "failed"),
        ("ValueError", "nan in the loss", "diverged"),
        ("ValueError", "a gradient is not finite, the loss is 0.5", "failed"),
        ("ValueError", "the loss\nis nan", "failed"),
    ],
)
def test_an_exception_has_a_status(name: str, message: str, status: str) -> None:
    assert endings.of_exception(name, message, 3).status == status


def test_a_long_message_is_judged_in_no_time() -> None:
    """A search that tries every pair of places in it takes minutes, and holds up the limits and the heartbeat."""
    began = time.process_time()
    assert endings.of_exception("ValueError", "loss " * 40_000, 3).status == "failed"
    assert endings.of_exception("ValueError", "loss " * 40_000 + "nan", 3).status == "diverged"
    assert time.process_time() - began < 5


def test_only_the_first_line_is_the_reason_and_without_colours() -> None:
    ending = endings.of_exception("ValueError", "\x1b[31mno\x1b[0m\nmore", 3)
    assert ending == Ending("failed", "ValueError: no", 3)


def test_a_killed_kernel_is_out_of_memory_only_with_evidence() -> None:
    assert endings.of_death(-9, 3, memory_killer_struck=True).status == "oom"
    assert endings.of_death(-9, 3, memory_killer_struck=False).status == "failed"
    assert endings.of_death(-11, 3, memory_killer_struck=True) == Ending("failed", "the kernel died with SIGSEGV", 3)
    assert endings.of_death(7, 3, memory_killer_struck=False).reason == "the kernel died with exit code 7"

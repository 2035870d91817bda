"""Nobody outlives a command: a second after its death, by whatever signal, no process and no temporary file is left."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest
from helpers import deaths
from helpers import tiny_models as tiny
from helpers.deaths import Command
from helpers.fake_records import make_sweep
from helpers.lengths import long_after

from harness.ledger.ledger import Ledger
from harness.ledger.records import read_records
from harness.results import tables

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux alone knows who belongs to whom")

GO_ON = "time.sleep(600)"
#: A notebook's call, in two processes.
TOGETHER = """\
from harness import methods
from harness.experiment.parallel import launch
from harness.models.load import load
from harness.training.trainer import Settings
from harness.trial import Budget

budget = Budget(train_examples=64, batch_size=4, max_length=48, eval_examples=4, epochs=100)
tuned = methods.apply("lora", load("tiny-llama", device="cpu"))
launch.fit("sft", tuned, "factual_summary", Settings(budget, 1e-3, on_step=lambda *_: print("step", flush=True)), {}, 2)
"""
END = f"from harness.results.record import write_outcome\n{tiny.OUTCOME}"
#: Signals upon which a command ends in an orderly way.
ORDERLY = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2]
OTHERS = [
    pytest.param(number, marks=pytest.mark.long)
    for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGSEGV, signal.SIGALRM)
]


def spawned(folder: Path) -> bool:
    return any(folder.glob("results/tiny/trials/*/spawned"))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.long), *OTHERS])
def test_nobody_outlives_the_driver(tmp_path: Path, number: signal.Signals) -> None:
    deaths.bench(tmp_path, GO_ON)
    driver = Command(tmp_path, "run", "tiny.yaml", "--cold")
    driver.when(lambda: spawned(tmp_path))
    driver.when(lambda: len(driver.alive()) == 10)  # driver, trial, guard, kernel and six children
    code = driver.die(number)
    assert (driver.alive(), driver.left()) == ([], [])
    assert code == (130 if number in ORDERLY else -number)
    assert Ledger.open(tmp_path / "results" / "tiny").status() == {"pending": 1}


@pytest.mark.slow
@pytest.mark.parametrize("number", long_after(1, [signal.SIGKILL, signal.SIGTERM]))
def test_nobody_outlives_a_warm_driver(tmp_path: Path, number: signal.Signals) -> None:
    deaths.bench(tmp_path, GO_ON)
    driver = Command(tmp_path, "run", "tiny.yaml")
    driver.when(lambda: spawned(tmp_path))
    driver.die(number)
    assert (driver.alive(), driver.left()) == ([], [])


@pytest.mark.slow
@pytest.mark.parametrize("number", long_after(1, [signal.SIGKILL, signal.SIGTERM]))
def test_nobody_outlives_a_trial_that_runs_alone(tmp_path: Path, number: signal.Signals) -> None:
    deaths.bench(tmp_path, GO_ON)
    driver = Command(tmp_path, "run", "tiny.yaml", "--cold")
    driver.when(lambda: spawned(tmp_path))
    driver.die(signal.SIGKILL)
    (mark,) = tmp_path.glob("results/tiny/trials/*/spawned")
    mark.unlink()
    trial = Command(tmp_path, "trial", str(mark.parent))
    trial.when(mark.exists)
    trial.die(number)
    assert (trial.alive(), trial.left()) == ([], [])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("last", "limits", "status"),
    [
        (END, {}, "ok"),
        ("os.kill(os.getpid(), 9)", {}, "failed"),
        pytest.param(GO_ON, {"time_s": 4}, "timeout", marks=pytest.mark.long),
        pytest.param("hoard = b'x' * 10**9; time.sleep(600)", {"memory_gb": 0.5}, "oom", marks=pytest.mark.long),
    ],
    ids=["an end", "the kernel's death", "the time limit", "the memory limit"],
)
def test_nobody_outlives_a_trial(tmp_path: Path, last: str, limits: dict[str, float], status: str) -> None:
    """However it ends, what it started ends before it is recorded, and the next trial begins."""
    deaths.bench(tmp_path, last, limits=limits)
    driver = Command(tmp_path, "run", "tiny.yaml", "--cold")
    assert driver.process.wait(120) == (status != "ok"), driver.text()
    assert spawned(tmp_path)
    assert (driver.alive(), driver.left()) == ([], [])
    assert Ledger.open(tmp_path / "results" / "tiny").status() == {status: 1}


@pytest.mark.slow
@pytest.mark.parametrize("number", long_after(1, [signal.SIGKILL, signal.SIGTERM]))
def test_a_trial_that_just_starts_ends_with_its_driver(tmp_path: Path, number: signal.Signals) -> None:
    deaths.bench(tmp_path, GO_ON)
    driver = Command(tmp_path, "run", "tiny.yaml", "--cold")
    driver.when(lambda: len(driver.alive()) > 1)
    driver.die(number)
    assert (driver.alive(), driver.left()) == ([], [])


@pytest.mark.slow
@pytest.mark.parametrize("number", long_after(1, [signal.SIGINT, signal.SIGQUIT, signal.SIGKILL]))
@pytest.mark.parametrize("command", ["plan", "run"])
def test_estimates_end_with_the_command(tmp_path: Path, command: str, number: signal.Signals) -> None:
    deaths.bench(tmp_path, methods={"lora": {"r": [2, 4, 8, 16, 32, 64, 128, 256]}})
    planner = Command(tmp_path, command, "tiny.yaml", TUNEBENCH_CACHE=str(tmp_path / "cache"))
    planner.when(lambda: len(planner.alive()) > 1)
    code = planner.die(number)
    assert (planner.alive(), planner.left()) == ([], [])
    lines = planner.text().splitlines()
    if number in ORDERLY:
        assert code == 130
        assert lines == ["estimating the memory of 8 settings, once", lines[-1]]
        assert lines[-1].startswith("interrupted")


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("moment", ["start", "step"])
def test_processes_that_train_together_end_with_their_notebook(tmp_path: Path, moment: str) -> None:
    """Also before they have imported anything."""
    notebook = Command(tmp_path, program=("-c", TOGETHER))
    notebook.when(lambda: len(notebook.alive()) >= 3 and (moment == "start" or "step" in notebook.text()))
    notebook.die(signal.SIGKILL)
    assert notebook.alive() == []


@pytest.mark.slow
def test_an_estimate_is_interrupted_in_one_line(tmp_path: Path) -> None:
    asked = Command(tmp_path, "estimate", "llama-7b", "--method", "all")
    asked.when(lambda: Path(f"/proc/{asked.process.pid}/maps").read_text().count("libtorch") > 0)
    assert asked.die(signal.SIGTERM) == 130
    assert asked.text() == "interrupted\n"
    assert (asked.alive(), asked.left()) == ([], [])


@pytest.mark.slow
@pytest.mark.parametrize("number", long_after(1, [signal.SIGKILL, signal.SIGTERM]))
def test_the_kernel_of_a_report_ends_with_it(tmp_path: Path, number: signal.Signals) -> None:
    make_sweep(tmp_path / "s")
    tables.write(read_records(tmp_path / "s"), tmp_path / "s")
    notebooks = Path(__file__).parents[2] / "notebooks"
    report = Command(tmp_path, "report", "s", "--out", "page", TUNEBENCH_NOTEBOOKS=str(notebooks))
    report.when(lambda: any("ipykernel_launcher" in line for line in report.alive()))
    report.die(number)
    assert (report.alive(), report.left()) == ([], [])

"""GPUs as exclusive slots of one machine. No GPU is needed: a slot is a name in the environment of a trial."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from helpers import tiny_models as tiny
from test_runner import records

from harness.errors import InputError
from harness.processes import threads
from harness.runner import gpus
from harness.runner.executors import local
from harness.runner.executors.local import LocalExecutor
from harness.sweeps.spec import Resources

pytestmark = pytest.mark.slow


class Process:
    """A trial that ends when it is told to."""

    def __init__(self, _trial_dir: Path, environment: Mapping[str, str]) -> None:
        self.environment = environment
        self.returncode: int | None = None

    def poll(self) -> int | None:
        return self.returncode

    def send_signal(self, number: int) -> None:
        self.returncode = -number

    def wait(self, _seconds: float) -> int:
        assert self.returncode is not None
        return self.returncode


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Process]:
    """The trials that an executor started, on a machine with four GPUs."""
    found: list[Process] = []

    def start(trial_dir: Path, environment: Mapping[str, str]) -> Process:
        found.append(Process(trial_dir, environment))
        return found[-1]

    monkeypatch.setattr(local, "start", start)
    monkeypatch.setenv(gpus.VARIABLE, "0,1,2,3")
    monkeypatch.setenv(threads.VARIABLE, "1")
    return found


def executor(gpus_each: int | None, jobs: int = 8) -> LocalExecutor:
    return LocalExecutor(Resources(gpus=gpus_each), jobs, cold=True)


def test_no_gpu_is_given_twice_and_none_is_lost(started: list[Process]) -> None:
    made = executor(2)
    assert made.room() == 2
    made.submit([Path("a"), Path("b")])
    assert [process.environment for process in started] == [{gpus.VARIABLE: "0,1"}, {gpus.VARIABLE: "2,3"}]
    assert made.room() == 0
    started[1].returncode = -9
    assert made.room() == 1
    made.submit([Path("c")])
    assert started[2].environment == {gpus.VARIABLE: "2,3"}
    made.close()
    assert all(process.returncode is not None for process in started)


@pytest.mark.parametrize(
    ("resources", "jobs", "each"),
    [
        ({}, 1, None),
        ({}, 4, "4"),
        ({"gpus": 1}, 8, "4"),
        ({"gpus": 2}, 8, "4"),
        ({"gpus": 4}, 8, None),
        ({"processes": 2}, 4, "2"),
    ],
)
def test_processors_are_shared_by_as_many_as_compute_at_once(
    started: list[Process], monkeypatch: pytest.MonkeyPatch, resources: dict[str, Any], jobs: int, each: str | None
) -> None:
    """Sixteen processors and four GPUs; two GPUs for a trial are two processes that train it together."""
    monkeypatch.delenv(threads.VARIABLE)
    monkeypatch.setattr(threads, "processor_count", lambda: 16)
    LocalExecutor(Resources(**resources), jobs, cold=True).submit([Path("a")])
    assert started[0].environment.get(threads.VARIABLE) == each


def test_jobs_limit_the_slots_too(started: list[Process]) -> None:
    assert executor(1, jobs=3).room() == 3


def test_a_trial_that_asks_for_nothing_sees_what_the_driver_sees(started: list[Process]) -> None:
    made = executor(None)
    made.submit([Path("a")])
    assert started[0].environment == {}
    assert made.room() == 7


def test_a_trial_that_asks_for_none_sees_none(started: list[Process]) -> None:
    made = executor(0)
    made.submit([Path("a")])
    assert started[0].environment == {gpus.VARIABLE: ""}
    assert made.room() == 7


def test_more_than_there_are_is_told(started: list[Process]) -> None:
    with pytest.raises(InputError, match=r"^resources\.gpus: 5 for each trial, and this machine has 4$"):
        executor(5)


def test_without_a_name_the_driver_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(gpus.VARIABLE, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpus.visible() == []
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho GPU-1\necho GPU-2\n")
    program.chmod(0o755)
    assert gpus.visible() == ["GPU-1", "GPU-2"]
    monkeypatch.setenv(gpus.VARIABLE, "")
    assert gpus.visible() == [], "all are hidden from this process"


@pytest.mark.parametrize("cold", [True, pytest.param(False, marks=[pytest.mark.slow, pytest.mark.long])])
def test_the_notebook_sees_its_own_gpus(tmp_path: Path, cold: bool) -> None:
    tiny.bench(tmp_path, methods={"full": {"act": ["ok"]}}, resources={"gpus": 1})
    asks = "import os\nassert os.environ['CUDA_VISIBLE_DEVICES'] == '6'"
    cells = (asks, "from harness.results.record import write_outcome", tiny.OUTCOME)
    tiny.notebook(tmp_path / "notebooks" / "methods" / "full.ipynb", cells=cells)
    code, _, err = tiny.done(tiny.tunebench(tmp_path, "run", "tiny.yaml", cold=cold, **{gpus.VARIABLE: "6,7"}))
    assert code == 0, err
    assert err == "", "no reason to start cold"
    assert records(tmp_path)["ok"].status == "ok"

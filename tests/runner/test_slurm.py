"""A real Slurm of one node: the same tables as on this machine alone, and a right row for every way a job can end."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from helpers import slurm_cluster
from helpers import tiny_models as tiny
from test_runner import gone, kernels, records, wait_for

from harness.ledger.ledger import Ledger

pytestmark = pytest.mark.slurm

RESOURCES = {"time_min": 5, "memory_gb": 1, "cpus": 1}


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment in which Slurm's commands find the cluster."""
    pytest.importorskip("submitit", reason="the extra 'slurm' is not installed")
    if (reason := slurm_cluster.missing()) is not None:
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("slurm")
    try:
        with slurm_cluster.running(folder) as environment:
            yield dict(environment)
    except slurm_cluster.NotStarted as error:
        pytest.skip(f"Slurm does not start here: {error}")


class Bench:
    """A sweep on Slurm, as a user runs it."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder = folder
        self.environment = environment

    def start(self, act: str, **changes: Any) -> subprocess.Popen[str]:
        """A sweep of one trial that ends as ``act`` says."""
        tiny.bench(self.folder, methods={"full": {"act": [act]}}, resources=RESOURCES | changes)
        return self.run()

    def run(self, *options: str) -> subprocess.Popen[str]:
        return tiny.tunebench(self.folder, "run", "tiny.yaml", "--executor", "slurm", *options, **self.environment)

    def kernel(self, other_than: int = 0) -> int:
        """The process of the kernel, once it hangs."""
        wait_for(lambda: set(kernels(self.folder)) - {other_than}, "a kernel that hangs")
        return kernels(self.folder)[0]

    def slurm(self, *command: str) -> str:
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def job(self) -> str:
        return self.slurm("squeue", "--noheader", "--format=%i")

    def signal_the_end_of_time(self) -> None:
        """What Slurm does some time before a job's wall time is over."""
        self.slurm("scancel", "--signal=USR2", self.job())

    def begin_again(self) -> None:
        """Bring a job forward that Slurm has put back into the queue: it would wait for two minutes.

        Not to this second: a job that starts in the second in which it was killed is refused as killed already.
        """
        wait_for(lambda: self.slurm("squeue", "--noheader", "--format=%T") == "PENDING", "a job in the queue")
        self.slurm("scontrol", "update", f"JobId={self.job()}", "StartTime=now+2")


@pytest.fixture
def bench(tmp_path: Path, slurm: dict[str, str]) -> Iterator[Bench]:
    made = Bench(tmp_path, slurm)
    yield made
    assert made.job() == "", "nothing is left in the queue"


def test_the_tables_are_those_of_a_local_run(tmp_path: Path, bench: Bench) -> None:
    acts = {"full": {"act": ["ok", "raise", "oom", "diverged", "die"]}, "lora": {"r": [4, 8]}, "bitdelta": {}}
    for name in ("local", "slurm"):
        (tmp_path / name).mkdir()
        tiny.bench(tmp_path / name, methods=acts, resources=RESOURCES)
    bench.folder = tmp_path / "slurm"
    here = tiny.done(tiny.tunebench(tmp_path / "local", "run", "tiny.yaml", "--jobs", "2"))
    there = tiny.done(bench.run("--jobs", "2"))
    assert (here[0], there[0]) == (1, 1), there[2]
    local, slurm = tiny.tables(tmp_path / "local"), tiny.tables(tmp_path / "slurm")
    assert slurm == local
    assert {row["status"] for row in local["trials"]} == {"ok", "failed", "oom", "diverged"}
    # The first wave is one array; what needed a parent came later.
    first = min((tmp_path / "slurm/results/tiny/slurm").glob("*_submission.sh")).read_text()
    assert "#SBATCH --array=0-6%2\n" in first


@pytest.mark.long
def test_a_cancelled_job_is_a_failed_row(bench: Bench) -> None:
    driver = bench.start("hang")
    kernel = bench.kernel()
    job = bench.job()
    bench.slurm("scancel", job)
    code, _, err = tiny.done(driver)
    assert code == 1, err
    record = records(bench.folder)["hang"]
    assert (record.status, record.reason) == ("failed", f"the Slurm job was cancelled (job {job})")
    assert record.duration_s is not None and record.attempt == 1
    assert gone(kernel)


def test_a_job_out_of_memory_is_an_oom_row(bench: Bench) -> None:
    code, _, err = tiny.done(bench.start("hoard"))
    assert code == 1, err
    record = records(bench.folder)["hoard"]
    assert record.status == "oom"
    assert record.reason is not None and record.reason.startswith("Slurm ended the job for want of memory")


@pytest.mark.long
def test_a_killed_trial_process_is_told_by_its_signal(bench: Bench) -> None:
    driver = bench.start("hang")
    _guard, trial, *_ = psutil.Process(bench.kernel()).parents()
    trial.kill()
    assert tiny.done(driver)[0] == 1
    record = records(bench.folder)["hang"]
    assert record.reason == "the trial's process ended with SIGKILL; see log.txt"


@pytest.mark.long
def test_at_the_end_of_its_time_a_trial_gives_way_and_runs_again(bench: Bench) -> None:
    driver = bench.start("once")
    kernel = bench.kernel()
    bench.signal_the_end_of_time()
    bench.begin_again()
    code, _, err = tiny.done(driver)
    assert code == 0, err
    record = records(bench.folder)["once"]
    assert (record.status, record.attempt) == ("ok", 2)
    assert gone(kernel)


@pytest.mark.long
def test_a_trial_that_never_has_time_enough_is_a_timeout_row(bench: Bench) -> None:
    driver = bench.start("hang")
    first = bench.kernel()
    bench.signal_the_end_of_time()
    bench.begin_again()
    bench.kernel(other_than=first)
    bench.signal_the_end_of_time()
    code, _, err = tiny.done(driver)
    assert code == 1, err
    record = records(bench.folder)["hang"]
    assert (record.status, record.attempt) == ("timeout", 2)
    assert record.reason == "Slurm's time limit was reached twice; see resources.time_min"


@pytest.mark.long
def test_a_preempted_job_runs_again(bench: Bench) -> None:
    driver = bench.start("once")
    bench.kernel()
    bench.slurm("scontrol", "requeue", bench.job())
    bench.begin_again()
    code, _, err = tiny.done(driver)
    assert code == 0, err
    assert records(bench.folder)["once"].attempt == 2


@pytest.mark.long
def test_an_interrupt_takes_the_jobs_out_of_the_queue(bench: Bench) -> None:
    tiny.bench(bench.folder, methods={"full": {"act": ["hang"]}}, seeds=[0, 1, 2], resources=RESOURCES)
    driver = bench.run("--jobs", "1")
    kernel = bench.kernel()
    assert len(bench.slurm("squeue", "--noheader", "--array", "--format=%i").splitlines()) == 3, "one runs, two wait"
    driver.send_signal(signal.SIGINT)
    assert tiny.done(driver)[0] == 130
    assert gone(kernel)
    assert Ledger.open(bench.folder / "results" / "tiny").status() == {"pending": 3}


def test_what_slurm_refuses_is_one_line(bench: Bench) -> None:
    code, _, err = tiny.done(bench.start("ok", partition="nowhere"))
    assert code == 2
    assert err.splitlines()[-1].startswith("error: --executor slurm: sbatch refuses: sbatch: error:")
    assert "invalid partition" in err
    tiny.bench(bench.folder)
    code, _, err = tiny.done(bench.run())
    assert (code, err.startswith("error: resources.time_min: Slurm asks for the wall minutes")) == (2, True)
    assert os.linesep not in err.rstrip()

"""A real Ray on this machine: the same tables as without it, and a right row when a worker is killed."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from helpers import tiny_models as tiny
from test_runner import gone, kernels, records, wait_for

from harness.ledger.ledger import Ledger

pytestmark = pytest.mark.ray

pytest.importorskip("ray", reason="the extra 'ray' is not installed")


def below(process: int) -> list[psutil.Process]:
    return psutil.Process(process).children(recursive=True)


def hang(folder: Path, **environment: str) -> tuple[subprocess.Popen[str], int]:
    """A driver whose trial hangs on Ray, and the process of that trial's kernel."""
    tiny.bench(folder, methods={"full": {"act": ["hang"]}})
    driver = tiny.tunebench(folder, "run", "tiny.yaml", "--executor", "ray", **environment)
    try:
        wait_for(lambda: kernels(folder) or driver.poll() is not None, "a kernel that hangs", 240)
        assert driver.poll() is None, driver.communicate()
    except AssertionError:
        driver.kill()
        raise
    return driver, kernels(folder)[0]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A cluster that runs already: the environment that leads to it."""
    port = tiny.free_port()
    environment = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    environment |= {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_worker_niceness": "0"}  # loopback, full priority
    command = ["start", "--head", "--block", "--disable-usage-stats", "--include-dashboard=false", "--num-cpus=2"]
    command += [f"--port={port}", "--node-ip-address=127.0.0.1", f"--object-store-memory={80 * 10**6}"]
    log = tmp_path_factory.mktemp("ray") / "log.txt"
    with log.open("w") as stream:
        head = subprocess.Popen(
            [sys.executable, "-m", "ray.scripts.scripts", *command],
            stdout=stream,
            stderr=stream,
            env={**os.environ, **environment},
        )
    try:
        wait_for(lambda: "Ray runtime started" in log.read_text() or head.poll() is not None, "a Ray cluster", 240)
        if head.poll() is not None:
            pytest.skip(f"Ray does not start here: {log.read_text()[-600:]}")
        yield {**environment, "RAY_ADDRESS": f"127.0.0.1:{port}"}
    finally:
        # Nothing is in it that is worth the half minute of an orderly end.
        if head.poll() is None:
            for process in (*below(head.pid), psutil.Process(head.pid)):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
        head.wait()


@pytest.mark.long
def test_the_tables_are_those_of_a_local_run(tmp_path: Path, cluster: dict[str, str]) -> None:
    acts = {"full": {"act": ["ok", "raise", "oom", "diverged", "die"]}, "lora": {"r": [4, 8]}, "bitdelta": {}}
    for name in ("local", "ray"):
        (tmp_path / name).mkdir()
        tiny.bench(tmp_path / name, methods=acts)
    here = tiny.done(tiny.tunebench(tmp_path / "local", "run", "tiny.yaml", "--jobs", "2"))
    on_ray = ("run", "tiny.yaml", "--executor", "ray", "--jobs", "2")
    there = tiny.done(tiny.tunebench(tmp_path / "ray", *on_ray, **cluster), 400)
    assert (here[0], there[0]) == (1, 1), there[2]
    assert there[2] == "", "Ray keeps quiet"
    local, ray = tiny.tables(tmp_path / "local"), tiny.tables(tmp_path / "ray")
    assert ray == local
    assert {row["status"] for row in local["trials"]} == {"ok", "failed", "oom", "diverged"}


@pytest.mark.long
def test_a_cluster_of_this_machine_stays_on_it_and_ends_with_the_driver(tmp_path: Path) -> None:
    driver, kernel = hang(tmp_path)
    listening = {
        connection.laddr.ip.removeprefix("::ffff:")
        for process in below(driver.pid)
        if process.is_running()
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert listening == {"127.0.0.1"}
    trial, worker, raylet, *_ = psutil.Process(kernel).parents()
    driver.kill()
    tiny.done(driver)
    left = (kernel, trial.pid, worker.pid, raylet.pid)
    wait_for(lambda: all(gone(process) for process in left), "the end of what ran")


def test_a_killed_worker_is_a_failed_row(tmp_path: Path, cluster: dict[str, str]) -> None:
    driver, kernel = hang(tmp_path, **cluster)
    _guard, trial, worker, *_ = psutil.Process(kernel).parents()
    assert "trial" in trial.cmdline()
    worker.kill()
    code, _, err = tiny.done(driver)
    assert code == 1, err
    record = records(tmp_path)["hang"]
    assert (record.status, record.reason) == ("failed", "the Ray worker of the trial died (WorkerCrashedError)")
    wait_for(lambda: gone(trial.pid) and gone(kernel), "the end of the trial")


@pytest.mark.long
def test_an_interrupt_leaves_the_cluster_and_no_trial(tmp_path: Path, cluster: dict[str, str]) -> None:
    driver, kernel = hang(tmp_path, **cluster)
    driver.send_signal(signal.SIGINT)
    assert tiny.done(driver)[0] == 130
    assert gone(kernel)
    assert Ledger.open(tmp_path / "results" / "tiny").status() == {"pending": 1}


def test_what_this_machine_lacks_is_one_line(tmp_path: Path) -> None:
    tiny.bench(tmp_path)
    run = ("run", "tiny.yaml", "--executor", "ray", "--set")
    nobody = f"127.0.0.1:{tiny.free_port()}"
    code, _, err = tiny.done(tiny.tunebench(tmp_path, *run, f"resources.address={nobody}"))
    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith(f"error: resources.address: no Ray cluster answers at '{nobody}': ")
    code, _, err = tiny.done(tiny.tunebench(tmp_path, *run, "resources.cpus=4096"))
    assert code == 2
    assert err.startswith("error: resources.cpus: 4096 for each trial, and this machine has ")

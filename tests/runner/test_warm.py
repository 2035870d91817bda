"""Warm starts: trials forked from a process that has imported the libraries; when it is unsafe, and when it dies."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from helpers import tiny_models as tiny
from helpers.lengths import long_after
from test_runner import kernels as hanging
from test_runner import wait_for

from harness.ledger.ledger import Ledger
from harness.processes.threads import VARIABLE, processor_count
from harness.results.record import Record
from harness.runner import forkserver as warm_parent

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="warm starts need Linux")

#: Says in its outcome how the kernel came to be, and draws; a cold kernel has imported nothing heavy here.
LOOK = """\
import gc, os, sys
from harness.results.record import write_outcome
assert gc.isenabled()
warm = 'torch' in sys.modules
import matplotlib.pyplot as plt
plt.plot([0, 1])
assert 'debugpy' not in sys.modules, 'it takes longer than all else of a start';"""
TELL = """\
write_outcome(trial_dir, {'valid_score': float(warm), 'primary_metric': 'accuracy', 'higher_is_better': True}, {})"""
ACTS = (LOOK, tiny.ACT, TELL)


def bench(folder: Path, **changes: object) -> None:
    tiny.bench(folder, **changes)
    tiny.notebook(folder / "notebooks" / "methods" / "full.ipynb", cells=ACTS)


def records(folder: Path) -> list[Record]:
    return list(Ledger.open(folder / "results" / "tiny").records())


def told(record: Record) -> object:
    """What the notebook told: 1.0 from a warm kernel, 0.0 from a cold one."""
    return record.outcome.columns["valid_score"] if record.outcome else None


def alone(pids: set[int]) -> bool:
    """Whether none of these processes is left (a zombie is: nobody has taken its ending)."""
    return not any(psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE for pid in pids)


def family(driver: subprocess.Popen[str]) -> set[int]:
    """What runs below a driver."""
    return {child.pid for child in psutil.Process(driver.pid).children(recursive=True)}


def start_and_hang(folder: Path) -> subprocess.Popen[str]:
    driver = tiny.tunebench(folder, "run", "tiny.yaml", cold=False)
    wait_for(lambda: hanging(folder) or driver.poll() is not None, "a kernel that hangs")
    assert driver.poll() is None, driver.communicate()
    return driver


def forkserver(driver: subprocess.Popen[str]) -> psutil.Process:
    found = psutil.Process(driver.pid).children()
    return next(child for child in found if "harness.runner.forkserver" in child.cmdline())


@pytest.mark.slow
def test_kernels_are_warm_and_end_in_every_way(tmp_path: Path) -> None:
    bench(tmp_path, methods={"full": {"act": ["ok", "raise", "oom", "diverged", "die"]}})
    code, _, err = tiny.done(tiny.tunebench(tmp_path, "run", "tiny.yaml", "--jobs", "2", cold=False))
    # A slow machine is told that the plan is being estimated.
    assert (code, [line for line in err.splitlines() if not line.startswith("estimat")]) == (1, [])
    found = {str(record.trial.method_args["act"]): record for record in records(tmp_path)}
    assert {act: (record.status, record.reason) for act, record in found.items()} == {
        "ok": ("ok", None),
        "raise": ("failed", "ValueError: first line"),
        "oom": ("oom", "MemoryError: no room"),
        "diverged": ("diverged", "Diverged: loss is nan at step 3"),
        "die": ("failed", "the kernel died with SIGKILL"),
    }
    assert told(found["ok"]) == 1.0, "torch was there before the notebook imported it"
    place = tmp_path / "results" / "tiny" / "trials" / found["ok"].trial_id
    assert "acting ok" in (place / "log.txt").read_text()
    outputs = [
        output
        for cell in json.loads((place / "notebook.ipynb").read_text())["cells"][3:]
        for output in cell.get("outputs", [])
    ]
    assert any("image/png" in output.get("data", {}) for output in outputs), "figures show as they do in JupyterLab"


#: Says in its outcome how many threads torch computes with.
THREADS = """\
import torch
from harness.results.record import write_outcome
threads = {'valid_score': float(torch.get_num_threads()), 'primary_metric': 'mse', 'higher_is_better': False}
write_outcome(trial_dir, threads, {})"""


@pytest.mark.slow
@pytest.mark.skipif(processor_count() < 2, reason="one processor cannot be shared")
@pytest.mark.parametrize("cold", long_after(1, [False, True]), ids=["warm", "cold"])
def test_trials_that_run_together_share_the_processors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cold: bool
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    bench(tmp_path)
    tiny.notebook(tmp_path / "notebooks" / "methods" / "full.ipynb", cells=(THREADS,))
    driver = tiny.tunebench(tmp_path, "run", "tiny.yaml", "--jobs", str(processor_count()), cold=cold)
    assert tiny.done(driver)[0] == 0
    assert {told(record) for record in records(tmp_path)} == {1.0}


@pytest.mark.slow
@pytest.mark.parametrize(
    "number", [signal.SIGKILL, *(pytest.param(s, marks=pytest.mark.long) for s in (signal.SIGINT, signal.SIGTERM))]
)
@pytest.mark.long
def test_nobody_outlives_the_driver(tmp_path: Path, number: signal.Signals) -> None:
    bench(tmp_path, methods={"full": {"act": ["hang"]}})
    driver = start_and_hang(tmp_path)
    below = family(driver)
    assert len(below) == 4, "the warm parent, the trial, its guard and its kernel"
    driver.send_signal(number)
    code, _, _ = tiny.done(driver)
    assert code == (-number if number == signal.SIGKILL else 130)
    wait_for(lambda: alone(below), "the end of all processes", 5.0)
    assert Ledger.open(tmp_path / "results" / "tiny").status() == {"pending": 1}


@pytest.mark.slow
@pytest.mark.long
def test_trials_go_on_cold_when_the_warm_parent_dies(tmp_path: Path) -> None:
    bench(tmp_path, methods={"full": {"act": ["nap"]}}, seeds=[0, 1, 2])
    tiny.notebook(tmp_path / "notebooks" / "methods" / "full.ipynb", cells=(LOOK, tiny.ACT.replace("0.3", "2"), TELL))
    driver = tiny.tunebench(tmp_path, "run", "tiny.yaml", cold=False)
    wait_for(lambda: list((tmp_path / "results" / "tiny").glob("trials/*/notebook.part.ipynb")), "a trial that runs")
    below = family(driver)
    forkserver(driver).kill()
    code, _, err = tiny.done(driver)
    assert code == 0, err
    assert err == "trials start cold: the process with the imported libraries ended with SIGKILL\n"
    assert [(record.status, told(record)) for record in records(tmp_path)] == [("ok", 0.0)] * 3
    assert alone(below)


@pytest.mark.slow
@pytest.mark.long
def test_a_reason_against_forking_is_told_once_and_trials_start_cold(tmp_path: Path) -> None:
    bench(tmp_path, seeds=[0, 1])
    # A sitecustomize through which the warm parent has a second thread.
    (tmp_path / "sitecustomize.py").write_text(
        "import sys, threading, time\n"
        "if 'harness.runner.forkserver' in ' '.join(sys.orig_argv):\n"
        "    threading.Thread(target=time.sleep, args=(600,), daemon=True).start()\n"
    )
    path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
    code, _, err = tiny.done(tiny.tunebench(tmp_path, "run", "tiny.yaml", cold=False, PYTHONPATH=path))
    assert (code, err) == (0, "trials start cold: importing the libraries has started 1 threads\n")
    assert [(record.status, told(record)) for record in records(tmp_path)] == [("ok", 0.0)] * 2


def test_every_source_and_every_registry_of_the_package_is_watched() -> None:
    seen = warm_parent.stamps()
    for name in ("errors.py", "experiment/experiment.py", "models/registry.yaml"):
        assert seen[str(ROOT / "harness" / name)] == (ROOT / "harness" / name).stat().st_mtime_ns


CHANGE = """\
import harness
from pathlib import Path
path = Path(harness.__file__).with_name('errors.py')
path.write_text(path.read_text() + '\\n');"""


@pytest.mark.slow
def test_a_trial_starts_cold_when_the_package_has_changed(tmp_path: Path) -> None:
    bench(tmp_path, seeds=[0, 1])
    tiny.notebook(tmp_path / "notebooks" / "methods" / "full.ipynb", cells=(*ACTS, CHANGE))
    for name in ("harness", "notebooks", "sweeps", "claims"):
        shutil.copytree(ROOT / name, tmp_path / "package" / name, ignore=shutil.ignore_patterns("__pycache__"))
    package = str(tmp_path / "package")
    code, _, err = tiny.done(tiny.tunebench(tmp_path, "run", "tiny.yaml", cold=False, PYTHONPATH=package))
    assert (code, err) == (0, "")
    assert [(record.status, told(record)) for record in records(tmp_path)] == [("ok", 1.0), ("ok", 0.0)]
    logs = [path.read_text() for path in sorted((tmp_path / "results" / "tiny" / "trials").glob("*/log.txt"))]
    assert sum("files of TuneBench have changed since this run began: a cold start" in log for log in logs) == 1


GUARDS = {
    "nothing is wrong": ("", None),
    "it hangs": ("time.sleep(60)", "a forked process could not compute: no result within 0.5 s"),
    "it computes wrongly": ("raise ArithmeticError", "a forked process could not compute: exit code 1"),
    "it dies": ("os.kill(os.getpid(), 11)", "a forked process could not compute: exit code -11"),
}


@pytest.mark.parametrize("case", GUARDS)
def test_the_canary(case: str) -> None:
    act, reason = GUARDS[case]
    program = f"import os, time\nfrom harness.runner import forkserver as f\ndef act():\n    {act or 'pass'}\n"
    program += "f._compute = act\nprint(repr(f.why_not(0.5)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == repr(reason)


def test_an_open_gpu_is_a_reason(tmp_path: Path) -> None:
    program = (
        "import sys, types\nfrom harness.runner import forkserver as f\n"
        "cuda = types.SimpleNamespace(is_initialized=lambda: True)\n"
        "sys.modules['torch'] = types.SimpleNamespace(cuda=cuda)\nprint(f.why_not(5))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "importing the libraries has initialised CUDA"


ASKS = "import torch\ntold = torch.cuda.is_available(), torch.cuda.device_count(), "
ASKS += "torch.cuda.get_device_capability(torch.cuda.device(0))"


@pytest.mark.parametrize(
    ("prints", "told"),
    [("echo 9.0; echo 8.6", (True, 2, (8, 6))), ("echo '[N/A]'", None), ("exit 9", None)],
)
def test_what_libraries_ask_about_gpus_is_answered_without_cuda(
    prints: str, told: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    def refuse(_device: object = None) -> None:
        raise ImportError("CUDA")

    (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{prints}\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    (tmp_path / "asks.py").write_text(ASKS)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "asks", raising=False)
    monkeypatch.setattr(torch.cuda, "get_device_capability", refuse)  # as if it initialised CUDA
    monkeypatch.setattr(warm_parent, "PRELOAD", ())
    monkeypatch.setattr(warm_parent, "OWN", ("asks",))
    warm_parent.preload()
    asks = sys.modules.get("asks")
    assert (asks.told if asks else None) == told
    assert torch.cuda.get_device_capability is refuse


def test_what_libraries_do_once_is_done_before_the_forks(monkeypatch: pytest.MonkeyPatch) -> None:
    from nbformat import validator
    from pydantic.plugin import _loader

    monkeypatch.setattr(warm_parent, "PRELOAD", ())
    monkeypatch.setattr(warm_parent, "OWN", ())
    monkeypatch.setattr(validator, "validators", {})
    monkeypatch.setattr(_loader, "_plugins", None)
    warm_parent.preload()
    (name,) = validator.validators
    assert name[1:3] == (4, 5), "the form of every notebook here"
    assert _loader._plugins is not None


def test_a_fork_does_not_tidy_up_what_its_parent_has_imported() -> None:
    program = (
        "import sys, weakref\nfrom harness.runner import forkserver as f\n"
        "class Library: pass\nlibrary = Library()\nfinalizer = weakref.finalize(library, print, 'tidied')\n"
        "f.PRELOAD = f.OWN = ()\nf._serve = lambda wire, sources: sys.exit(3 + finalizer.atexit)\nf.main()"
    )
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        command = [sys.executable, "-c", program]
        done = subprocess.run(command, stdin=theirs.fileno(), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (3, "", "")


def test_the_canary_tries_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    real, asked = torch.ones, []

    def ones(*shape: int, device: str = "cpu") -> torch.Tensor:
        asked.append(device)
        return real(*shape) * (2 if device == "cuda" else 1)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "ones", ones)
    with pytest.raises(ArithmeticError, match="on the GPU"):
        warm_parent._compute()
    assert asked == ["cpu", "cuda"]


@pytest.mark.long
def test_weights_are_bit_identical_warm_and_cold(tmp_path: Path) -> None:
    """Twelve seeded steps of the real notebook on a real encoder."""
    (tmp_path / "twelve.yaml").write_text(
        "name: twelve\nmodels: [minilm-l6-22m]\ntasks: [trec]\nmethods: {lora: {learning_rate: 1e-3}}\n"
        "keep_artifacts: true\n"
        "budget: {train_examples: 96, batch_size: 8, epochs: 1, max_length: 32, eval_examples: 16}\n"
    )
    weights = []
    for name, start in {"warm": [], "cold": ["--cold"]}.items():
        command = [sys.executable, "-m", "harness.cli", "run", "twelve.yaml", "--out", name, *start]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        (record,) = Ledger.open(tmp_path / name).records()
        assert record.outcome is not None and record.outcome.columns["train_steps"] == 12
        (file,) = (tmp_path / name / "artifacts" / record.trial_id).rglob("*.safetensors")
        weights.append(file.read_bytes())
    assert weights[0] == weights[1]

"""What the harness adds to a trial: trials without work, on warm kernels and on papermill alone.

    python benchmarks/trial_overhead.py [--trials 20] [--cold 5]

The notebook imports what every real one imports, and ends. On warm kernels it runs under ``tunebench run``, with claim,
record and log; the seconds are those from the first start to the last end, divided by the trials. Cold it runs under
papermill's own command line, with a record from nobody. Both in turns on the same machine; the ratio is what counts.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import nbformat
import typer
import yaml

PARAMETERS = """\
model = "minilm-l6-22m"
task = "trec"
objective = "classification"
seed = 0
learning_rate = 1e-3
budget = {}
dtype = "float32"
device = "cpu"
trial_dir = None"""
IMPORTS = "import peft, torch, transformers.trainer\nfrom harness.experiment.experiment import Experiment"
NO_WORK = """\
from harness.results.record import write_outcome
write_outcome(trial_dir, {"valid_score": 0.0, "primary_metric": "accuracy", "higher_is_better": True}, {});"""


def main(trials: int = 20, cold: int = 5) -> None:
    """Print seconds a trial, warm and cold, and their ratio."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        notebook = folder / "notebooks" / "methods" / "full.ipynb"
        _write(notebook)
        cold_s = [_papermill(notebook, folder) for _ in range(-(-cold // 2))]
        warm_s, ready_s = _warm(folder, trials)
        cold_s += [_papermill(notebook, folder) for _ in range(cold // 2)]
    print(f"imports of the warm parent, once a run: {ready_s:.2f} s")
    print(f"warm, {trials} trials: {warm_s:.3f} s each")
    print(f"papermill alone, {cold} notebooks: {median(cold_s):.3f} s each")
    print(f"ratio: {median(cold_s) / warm_s:.1f}")


def _write(path: Path) -> None:
    cells = [nbformat.v4.new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]})]
    cells += [nbformat.v4.new_code_cell(source) for source in (IMPORTS, NO_WORK)]
    kernel = {"kernelspec": {"name": "python3", "language": "python", "display_name": "Python 3"}}
    path.parent.mkdir(parents=True)
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), path)


def _warm(folder: Path, trials: int) -> tuple[float, float]:
    """Seconds a trial, and seconds until the first one started."""
    sweep = {
        "name": "idle",
        "models": ["minilm-l6-22m"],
        "tasks": ["trec"],
        "methods": {"full": {"learning_rate": 1e-3}},
    }
    (folder / "idle.yaml").write_text(yaml.safe_dump({**sweep, "seeds": list(range(trials))}))
    began = time.time()
    done = subprocess.run(
        [sys.executable, "-m", "harness.cli", "run", "idle.yaml", "--log-json"],
        cwd=folder,
        env={**os.environ, "TUNEBENCH_NOTEBOOKS": str(folder / "notebooks")},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    events = [json.loads(line) for line in done.stdout.splitlines()]
    ok = [event for event in events if event["event"] == "ended" and event["status"] == "ok"]
    if len(ok) != trials:
        raise SystemExit(f"{trials - len(ok)} of {trials} trials did not end well")
    first, last = (datetime.fromisoformat(event["time"]).timestamp() for event in (events[0], ok[-1]))
    return (last - first) / trials, first - began


def _papermill(notebook: Path, folder: Path) -> float:
    began = time.perf_counter()
    command = [sys.executable, "-m", "papermill", str(notebook), str(folder / "out.ipynb"), "--no-progress-bar"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return time.perf_counter() - began


if __name__ == "__main__":
    typer.run(main)

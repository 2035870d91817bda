"""A test helper: notebooks without torch that end in every way a notebook can, and a sweep over them.

The names of methods, models and tasks are real ones, so that planning is the real thing; only the notebooks are
replaced, by way of ``$TUNEBENCH_NOTEBOOKS``.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import yaml

PARAMETERS = """\
model = 'minilm-l6-22m'
task = 'trec'
objective = 'classification'
seed = 0
learning_rate = 1e-3
budget = {'train_examples': 8, 'batch_size': 8, 'epochs': 1, 'max_length': 32, 'eval_examples': 4}
dtype = 'float32'
device = 'auto'
act = 'ok'
r = 8
scale = 1.0
layers = ['q', 'v']
note = None
trial_dir = None"""

#: Ends as the parameter ``act`` says.
ACT = """\
import os, signal, sys, time
from pathlib import Path

from harness.files import write_atomically
from harness.results.record import write_outcome

class Diverged(Exception):
    pass

print('acting', act)
match act:
    case 'raise':
        raise ValueError('first line\\nsecond line')
    case 'oom':
        raise MemoryError('no room')
    case 'diverged':
        raise Diverged('loss is nan at step 3')
    case 'die':
        os.kill(os.getpid(), signal.SIGKILL)
    case 'hang':
        (Path(trial_dir) / 'pid').write_text(str(os.getpid()))
        write_atomically(Path(trial_dir) / 'progress.json', '{"step": 3, "steps": 10, "loss": 0.5, "phase": "train"}')
        time.sleep(600)
    case 'hog':
        kept = [bytearray(os.urandom(1) * 50_000_000) for _ in range(40)]
        time.sleep(600)
    case 'nap':
        time.sleep(0.3)
    case 'once' if not (Path(trial_dir) / 'pid').exists():
        (Path(trial_dir) / 'pid').write_text(str(os.getpid()))
        time.sleep(600)
    case 'hoard':
        hoard = [b'x' * 2**20 * n for n in [2000]]
        time.sleep(600)"""

OUTCOME = """\
score = 'half' if act == 'lie' else 0.5
if act != 'silent':
    write_outcome(trial_dir, {'valid_score': score, 'primary_metric': 'accuracy', 'higher_is_better': True}, {})"""


def notebook(path: Path, parameters: str = PARAMETERS, cells: tuple[str, ...] = (ACT, OUTCOME)) -> None:
    """Write a notebook: a title, the parameters, and ``cells``."""
    book = nbformat.v4.new_notebook(
        cells=[
            nbformat.v4.new_markdown_cell("# A title", id="title"),
            nbformat.v4.new_code_cell(parameters, id="parameters", metadata={"tags": ["parameters"]}),
            *(nbformat.v4.new_code_cell(source, id=f"cell-{n}") for n, source in enumerate(cells)),
        ]
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(book, path)


def bench(folder: Path, **changes: Any) -> Path:
    """A sweep file whose notebooks stand beside it under ``notebooks/``."""
    for method in ("full", "lora"):
        notebook(folder / "notebooks" / "methods" / f"{method}.ipynb")
    notebook(folder / "notebooks" / "methods" / "bitdelta.ipynb", PARAMETERS + "\nparent_dirs = {}")
    untrained = PARAMETERS.replace("learning_rate = 1e-3\n", "")
    notebook(folder / "notebooks" / "methods" / "baseline.ipynb", untrained)
    usual = {"name": "tiny", "models": ["minilm-l6-22m"], "tasks": ["trec"], "methods": {"full": {}}}
    rates = {"defaults": {"learning_rate": 1e-3}} if {*changes.get("methods", ["full"])} - {"baseline"} else {}
    document = {**usual, **rates, **changes}
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return path


def tunebench(folder: Path, *arguments: str, cold: bool = True, **environment: str) -> subprocess.Popen[str]:
    """Start the command line in ``folder``, with the notebooks there.

    A run's trials start cold unless told otherwise: importing the libraries takes longer than notebooks without them.
    """
    start = ["--cold"] if cold and arguments[0] == "run" else []
    return subprocess.Popen(
        [sys.executable, "-m", "harness.cli", *arguments, *start],
        cwd=folder,
        env={**os.environ, "TUNEBENCH_NOTEBOOKS": str(folder / "notebooks"), "COLUMNS": "200", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def done(process: subprocess.Popen[str], seconds: float = 600) -> tuple[int, str, str]:
    """Exit code, stdout and stderr."""
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return process.returncode, out, err


#: Columns that differ from run to run.
_PASSING = {"started_at", "duration_s", "concurrent_trials", "disturbed", "control_ratio"}


def tables(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """What the tables of a run say that another run of the same sweep must say too."""
    import pyarrow.parquet as pq

    found = {}
    for path in sorted((folder / "results" / "tiny" / "tables").glob("*.parquet")):
        rows = pq.read_table(path).to_pylist()
        found[path.stem] = [{name: value for name, value in row.items() if name not in _PASSING} for row in rows]
    return found


def free_port() -> int:
    """A port of the loopback interface that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])

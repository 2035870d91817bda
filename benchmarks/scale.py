"""How TuneBench copes with ten thousand trials: time and memory of what people wait for, and how busy the slots are.

    python benchmarks/scale.py [--trials 1000 3000 10000] [--slots 64] [--trial-s 1] [--like results/quick]

A sweep of N cells is planned, and every trial gets a record made from a real one by small changes. Then each command
runs in a process of its own; memory is the peak of what it and its children hold together. The aims at 10,000: plan
10 s, resume scan 5 s, tables 30 s, report 90 s, all below 1 GB. The exponent says how time grows with N: 1 is linear.
The first plan also estimates the memory of every distinct setting, which takes as long for any number of trials.

The slots are simulated: trials that only wait, all of them planned in one ledger. Ideal is ceil(N / slots) times the
seconds of one trial; the aim is at least 90 % of it.
"""

from __future__ import annotations

import argparse
import lzma
import math
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import yaml
from rich.console import Console
from rich.table import Table

from harness.files import RECORD_FILE
from harness.ledger.ledger import Ledger
from harness.results.record import Outcome, Record
from harness.runner import display
from harness.runner.driver import drive
from harness.runner.endings import OK, Ending, record_of
from harness.sweeps import expand as matrix
from harness.sweeps import spec as sweeps
from harness.sweeps.plan import Plan, Planned

#: Records of one run of ``sweeps/quick.yaml``, one a line; their texts are replaced by others of the same length.
RECORDS = Path(__file__).with_name("scale_records.jsonl.xz")

PANELS = {"trec": ["minilm-l6-22m", "bert-base", "roberta-base"], "factual_summary": ["smollm2-135m", "pythia-160m"]}
METHODS = ("full", "head", "bitfit", "adapter", "prompt", "prefix", "lora", "qlora")
RATES = [1e-5, 1e-4, 1e-3, 1e-2, 1e-1]
#: Trials of one seed, beside the untrained models.
PER_SEED = sum(map(len, PANELS.values())) * len(METHODS) * len(RATES)

#: One in this many ends otherwise.
BAD = 40

TUNEBENCH = (sys.executable, "-m", "harness.cli")
_IMPORTS = """import sys
from pathlib import Path
from harness.sweeps import expand as matrix, spec as sweep
from harness.ledger.ledger import Ledger
"""
NEW = f"{_IMPORTS}Ledger.create(Path(sys.argv[2]), matrix.plan(sweep.load(sys.argv[1])), '')"
RESUME = f"{_IMPORTS}assert not Ledger.open(Path(sys.argv[1])).pending()"


def sweep_document(trials: int) -> dict[str, Any]:
    """A sweep of about ``trials`` cells: panels x methods x learning rates x seeds."""
    models = [model for some in PANELS.values() for model in some]
    return {
        "name": "scale",
        "models": models,
        "tasks": list(PANELS),
        "seeds": list(range(max(1, round(trials / PER_SEED)))),
        "methods": {"baseline": {}, **{method: {"learning_rate": RATES} for method in METHODS}},
        "exclude": [{"task": task, "model": model} for task in PANELS for model in models if model not in PANELS[task]],
    }


def real_records(folder: Path | None) -> list[Record]:
    """The records to clone: those of a sweep's folder, or the ones that come along."""
    if folder is not None:
        return [record for record in Ledger.open(folder).records() if record.outcome is not None]
    with lzma.open(RECORDS) as lines:
        return [Record.model_validate_json(line) for line in lines]


class Cloner:
    """Makes the record of a planned trial from the real one that is most like it."""

    def __init__(self, real: Sequence[Record], seed: int = 0) -> None:
        self._real = {(record.task_kind, record.trial.method): record for record in real}
        self._noise = random.Random(seed)  # noqa: S311

    def __call__(self, row: Planned, place: int) -> Record:
        key = (row.task_kind, row.trial.method)
        real = self._real.get(key) or next(r for (kind, _), r in self._real.items() if kind == row.task_kind)
        changes: dict[str, Any] = {
            "trial_id": row.trial_id,
            "sweep": "scale",
            "trial": row.trial,
            "started_at": real.started_at + timedelta(seconds=30 * place),
            "model_family": row.model_family,
        }
        if row.trial.method != "baseline" and place % BAD == 0:
            step = self._noise.randrange(10_000)
            reason = f"Diverged: the loss is not finite at step {step}"
            return real.model_copy(update=changes | {"status": "diverged", "reason": reason, "outcome": None})
        return real.model_copy(update=changes | {"outcome": self._outcome(real.outcome or Outcome())})

    def _outcome(self, real: Outcome) -> Outcome:
        def near(value: Any) -> Any:
            return value * self._noise.uniform(0.97, 1.03) if isinstance(value, float) else value

        answers = [row["output"] for row in real.tables["generations"]]
        shift = self._noise.randrange(len(answers))
        tables = {name: [dict(row) for row in rows] for name, rows in real.tables.items()}
        for row in tables["curves"]:
            row["value"] = near(row["value"])
        for row, answer in zip(tables["generations"], answers[shift:] + answers[:shift], strict=True):
            row["output"] = answer
        columns = {name: near(value) for name, value in real.columns.items()}
        for name in ("trainable_share", "mfu"):
            if columns.get(name) is not None:
                columns[name] = min(1.0, float(columns[name] or 0))
        return Outcome.model_construct(columns=columns, tables=tables)


def make(folder: Path, trials: int, real: Sequence[Record]) -> Plan:
    """Write ``sweep.yaml`` and a ledger in which every trial has a record."""
    folder.mkdir(parents=True)
    file = folder / "scale.yaml"
    file.write_text(yaml.safe_dump(sweep_document(trials)), encoding="utf-8")
    sweep = sweeps.load(file)
    plan = matrix.plan(sweep)
    ledger = Ledger.create(folder / "ledger", plan, sweep.to_yaml())
    clone = Cloner(real)
    for place, row in enumerate(plan.rows):
        payload = clone(row, place).model_dump_json()
        (ledger.trial_dir(row.trial_id) / RECORD_FILE).write_text(payload, encoding="utf-8")
    return plan


@dataclass(frozen=True)
class Cost:
    """What one command took."""

    seconds: float
    peak_bytes: int
    """The most that it and its children held together; a page that several share counts once."""


def cost(*command: str, cwd: Path) -> Cost:
    """Run ``command`` in a fresh process and measure it. Raises CalledProcessError when it fails.

    Exit code 1 is no failure: it says that some trial did not end well.
    """
    with (cwd / "errors.txt").open("wb") as errors:
        begin = time.perf_counter()
        environment = {**os.environ, "TUNEBENCH_CACHE": str(cwd / "cache")}
        process = psutil.Popen(command, cwd=cwd, stdout=subprocess.DEVNULL, stderr=errors, env=environment)
        peak = 0
        while process.poll() is None:
            peak = max(peak, _held(process))
            time.sleep(0.05)
        seconds = time.perf_counter() - begin
    if process.returncode not in (0, 1):
        raise subprocess.CalledProcessError(
            process.returncode, command, stderr=(cwd / "errors.txt").read_text(encoding="utf-8")
        )
    return Cost(seconds, peak)


def _held(process: psutil.Process) -> int:
    total = 0
    try:
        for one in (process, *process.children(recursive=True)):
            memory = one.memory_full_info()
            total += getattr(memory, "pss", memory.rss)
    except psutil.NoSuchProcess:
        pass
    return total


def commands(folder: Path) -> Iterator[tuple[str, tuple[str, ...]]]:
    """What is measured: name -> command line."""
    ledger = "ledger"
    yield "plan, nothing estimated yet", (*TUNEBENCH, "plan", "scale.yaml")
    yield "plan", (*TUNEBENCH, "plan", "scale.yaml")
    yield "plan, new ledger", (sys.executable, "-c", NEW, "scale.yaml", "new")
    yield "resume scan", (sys.executable, "-c", RESUME, ledger)
    yield "status", (*TUNEBENCH, "status", ledger)
    yield "tables", (*TUNEBENCH, "tables", ledger)
    yield "run, nothing to do", (*TUNEBENCH, "run", "scale.yaml", "--out", ledger)
    yield "report", (*TUNEBENCH, "report", ledger, "--out", "page")


class Simulated:
    """An executor without processes: a trial does nothing for some seconds, then has a record."""

    class Job:
        """One trial; its record is written when somebody looks whether it has ended."""

        def __init__(self, path: Path, record: str, seconds: float) -> None:
            self._path = path
            self._record = record
            self._end = time.monotonic() + seconds
            self.is_over = False

        def waits(self) -> bool:
            return False

        def ended(self) -> Ending | None:
            if not self.is_over and time.monotonic() >= self._end:
                self._path.write_text(self._record, encoding="utf-8")
                self.is_over = True
            return OK if self.is_over else None

    def __init__(self, ledger: Ledger, slots: int, seconds: float) -> None:
        self._records = {
            row.trial_id: record_of(ledger, row, OK, 1, duration_s=seconds).model_dump_json()
            for row in ledger.plan.rows
        }
        self._slots = slots
        self._seconds = seconds
        self._jobs: list[Simulated.Job] = []

    def room(self) -> int:
        self._jobs = [job for job in self._jobs if not job.is_over]
        return self._slots - len(self._jobs)

    def submit(self, trial_dirs: Sequence[Path]) -> Sequence[Job]:
        made = [self.Job(path / RECORD_FILE, self._records[path.name], self._seconds) for path in trial_dirs]
        self._jobs += made
        return made

    def close(self) -> None:
        return


def efficiency(folder: Path, plan: Plan, slots: int, seconds: float) -> tuple[float, float]:
    """Drive the whole plan on ``slots`` simulated slots: ideal and actual seconds."""
    ledger = Ledger.create(folder, plan, "name: scale\n")
    pending = [row.trial_id for row in ledger.pending()]
    executor = Simulated(ledger, slots, seconds)
    with (folder / "events.jsonl").open("w", encoding="utf-8") as stream:
        begin = time.perf_counter()
        drive(ledger, pending, executor, slots, display.JsonLines(stream))
    return math.ceil(len(pending) / slots) * seconds, time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, nargs="+", default=[1000, 3000, 10_000])
    parser.add_argument("--slots", type=int, default=64)
    parser.add_argument("--trial-s", type=float, default=1.0, help="seconds of a simulated trial")
    parser.add_argument("--like", type=Path, help="folder of a sweep whose records are cloned")
    parser.add_argument("--only", nargs="+", help="of the commands, these; 'slots' is the simulation")
    given = parser.parse_args()
    real = real_records(given.like)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    console = Console()
    found: dict[str, dict[int, Cost]] = {}
    with tempfile.TemporaryDirectory(prefix="tunebench-scale-") as temporary:
        plan = Plan("scale", ())
        sizes = []
        for trials in given.trials:
            folder = Path(temporary) / str(trials)
            plan = make(folder, trials, real)
            sizes.append(len(plan.rows))
            for name, command in commands(folder):
                if given.only is None or name in given.only:
                    found.setdefault(name, {})[sizes[-1]] = one = cost(*command, cwd=folder)
                    console.print(f"{sizes[-1]:6d} {name}: {one.seconds:.1f} s, {one.peak_bytes / 1e6:.0f} MB")
        console.print(_table(found, sizes))
        if given.only is None or "slots" in given.only:
            ideal, actual = efficiency(Path(temporary) / "slots", plan, given.slots, given.trial_s)
            console.print(
                f"{given.slots} slots, {len(plan.rows)} trials of {given.trial_s} s: {actual:.1f} s, "
                f"ideal {ideal:.1f} s: {ideal / actual:.1%} (aim: at least 90 %)"
            )


def _table(found: dict[str, dict[int, Cost]], sizes: Sequence[int]) -> Table:
    table = Table("", *(f"{size} trials" for size in sizes), "grows as")
    for name, costs in found.items():
        cells = [f"{one.seconds:.1f} s, {one.peak_bytes / 1e6:.0f} MB" for one in costs.values()]
        table.add_row(name, *cells, _exponent(costs))
    return table


def _exponent(costs: dict[int, Cost]) -> str:
    """The slope of log(seconds) over log(trials) between the smallest and the largest size."""
    low, high = min(costs), max(costs)
    if low == high:
        return ""
    return f"N^{math.log(costs[high].seconds / costs[low].seconds) / math.log(high / low):.2f}"


if __name__ == "__main__":
    main()

"""What a run shows while it works: a live table on a terminal, plain lines elsewhere, or one JSON object a line."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import IO, Any, Protocol, Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from harness import plain
from harness.results.record import Record
from harness.results.schema import Status
from harness.runner.driver import Board, Watcher
from harness.sweeps.plan import Planned

#: Characters of a line, and of what a notebook tells of its progress.
_LINE, _PROGRESS = 8000, 120
_COLOURS = {"ok": "green", "skipped": "dim", "failed": "red", "oom": "red", "timeout": "yellow", "diverged": "yellow"}


class Display(Watcher, Protocol):
    """A watcher that is opened for the length of a run."""

    def begins(self, ended: Mapping[Status, int], waiting: int) -> None:
        """Before the first trial: how those that have ended did (status -> trials), and how many are to run."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def make(log_json: bool, durations: Iterable[float] = ()) -> Display:
    """The display for this output. ``durations`` are the seconds of trials that ended earlier, for the time left."""
    if log_json:
        return JsonLines(sys.stdout)
    console = Console()
    return LiveBoard(console, durations) if console.is_terminal else Lines(sys.stdout)


def label(row: Planned) -> str:
    """A trial in a few words."""
    trial = row.trial
    rate = "" if trial.learning_rate is None else f" lr {trial.learning_rate:g}"
    return f"{trial.method} × {trial.objective}, {trial.model}, {trial.task}, seed {trial.seed}{rate}"


def clock(seconds: float) -> str:
    """Seconds as a person reads them: 42 s, 3 min 5 s, 2 h 10 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def begins(ended: Mapping[Status, int], waiting: int) -> str:
    """What a run has before it, in words: '12 of 40 trials done, 3 skipped, 25 to run'."""
    done = sum(count for status, count in ended.items() if status != "skipped")
    skipped = ended.get("skipped", 0)
    to_run = [f"{done} of {done + skipped + waiting} trials done"] if done else []
    to_run += [f"{skipped} skipped"] if skipped else []
    return ", ".join([*to_run, f"{waiting} to run"])


def score(record: Record) -> str:
    """What a trial scored: 'accuracy 0.8125 on validation, 0.798 on test'; empty where it was not scored."""
    columns = record.outcome.columns if record.outcome is not None else {}
    values = {"validation": columns.get("valid_score"), "test": columns.get("test_score")}
    told = ", ".join(f"{value:.4g} on {split}" for split, value in values.items() if isinstance(value, int | float))
    return f"{columns.get('primary_metric')} {told}" if told else ""


def time_left(durations: list[float], elapsed: Iterable[float], waiting: int, jobs: int) -> float | None:
    """Seconds until all is done, if trials go on taking what they took so far; None while none has ended.

    ``elapsed`` are the seconds that each running trial has run, ``waiting`` is the number of those not begun.
    """
    if not durations:
        return None
    mean = sum(durations) / len(durations)
    running = [max(mean - seconds, 0.0) for seconds in elapsed]
    return max((sum(running) + waiting * mean) / jobs, max(running, default=0.0))


class _Quiet:
    """A display that needs nothing opened."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return


class Lines(_Quiet):
    """One line when a trial starts and one when it ends."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def begins(self, ended: Mapping[Status, int], waiting: int) -> None:
        self._say(begins(ended, waiting))

    def started(self, row: Planned) -> None:
        self._say(f"{row.trial_id} started  {label(row)}")

    def ended(self, record: Record) -> None:
        took = "" if record.duration_s is None else f" after {clock(record.duration_s)}"
        why = record.reason or score(record)
        self._say(f"{record.trial_id} {record.status}{took}{': ' if why else ''}{why}")

    def tick(self, board: Board) -> None:
        return

    def _say(self, text: str) -> None:
        print(f"{datetime.now():%H:%M:%S} {plain.line(text, _LINE)}", file=self._stream, flush=True)


class JsonLines(_Quiet):
    """One JSON object a line: the events started, progress and ended, with UTC times."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._last: dict[str, object] = {}

    def begins(self, ended: Mapping[Status, int], waiting: int) -> None:
        return

    def started(self, row: Planned) -> None:
        self._say("started", row.facts())

    def ended(self, record: Record) -> None:
        columns = record.outcome.columns if record.outcome is not None else {}
        self._say(
            "ended",
            {
                "trial_id": record.trial_id,
                "status": record.status,
                "reason": record.reason,
                "attempt": record.attempt,
                "duration_s": record.duration_s,
                **{name: columns.get(name) for name in ("primary_metric", "valid_score", "test_score")},
            },
        )

    def tick(self, board: Board) -> None:
        for trial_id, running in board.running.items():
            if running.progress and running.progress != self._last.get(trial_id):
                self._last[trial_id] = running.progress
                trial = {"trial_id": trial_id}
                self._say("progress", {**trial, **running.progress, **trial})

    def _say(self, event: str, fields: dict[str, Any]) -> None:
        ours = {"event": event, "time": datetime.now(UTC).isoformat(timespec="milliseconds")}
        line = {**ours, **fields, **ours}  # a notebook's progress does not pass for an event
        print(plain.lines(json.dumps(line, ensure_ascii=False)), file=self._stream, flush=True)


class LiveBoard:
    """Counts, the running trials and the time left, redrawn in place; a line stays for each trial that ended."""

    def __init__(self, console: Console, durations: Iterable[float]) -> None:
        self._console = console
        self._durations = list(durations)
        self._live = Live(console=console, refresh_per_second=4, transient=True)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def begins(self, ended: Mapping[Status, int], waiting: int) -> None:
        self._live.console.print(begins(ended, waiting), highlight=False)

    def started(self, row: Planned) -> None:
        return

    def ended(self, record: Record) -> None:
        if record.status == "skipped":
            return
        if record.duration_s is not None:
            self._durations.append(record.duration_s)
        row = Planned(record.trial)
        line = Text.assemble((f"{record.status:<8} ", _COLOURS[record.status]), plain.line(label(row)))
        if record.duration_s is not None:
            line.append(f"  {clock(record.duration_s)}", style="dim")
        if scored := score(record):
            line.append(f"  {scored}")
        if record.reason is not None:
            line.append(f"\n         {plain.line(record.reason)}", style="dim")
        self._live.console.print(line)

    def tick(self, board: Board) -> None:
        self._live.update(self._draw(board))

    def _draw(self, board: Board) -> Group:
        now = time.monotonic()
        counts = Text()
        for status, count in board.ended.items():
            counts.append(f"{count} {status}  ", style=_COLOURS[status])
        counts.append(f"{len(board.running)} running  {len(board.waiting) - len(board.running)} waiting")
        elapsed = [now - running.since for running in board.running.values()]
        left = time_left(self._durations, elapsed, len(board.waiting) - len(board.running), board.jobs)
        if left is not None:
            counts.append(f"  about {clock(left)} left", style="dim")
        table = Table.grid(padding=(0, 2))
        for running, seconds in zip(board.running.values(), elapsed, strict=True):
            told = (label(running.row), progress_text(running.progress), clock(seconds))
            table.add_row(*(Text(plain.line(text)) for text in told))  # a string would be read as markup
        return Group(table, counts)


def progress_text(progress: Any) -> str:
    """Step, loss and phase as far as the notebook has told them."""
    parts = [str(progress["phase"])] if progress.get("phase") else []
    if progress.get("step") is not None:
        steps = f"/{progress['steps']}" if progress.get("steps") is not None else ""
        parts.append(f"step {progress['step']}{steps}")
    if isinstance(progress.get("loss"), float):
        parts.append(f"loss {progress['loss']:.3f}")
    return plain.bounded("  ".join(parts), _PROGRESS)

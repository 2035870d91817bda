"""What notebooks and names tell is shown as text: no markup of the terminal library, no escape sequence."""

from __future__ import annotations

import io
import json
import re
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import pytest
from rich.console import Console

from harness.cli import output
from harness.results.record import Record
from harness.runner import display
from harness.runner.driver import Board, Running
from harness.sweeps.plan import Planned
from harness.trial import Trial

EVIL = "[bold red]x[/] \x1b]0;title\x07\x1b[2J\x9b2J\u202e"
SHOWN = r"[bold red]x[/] \u001b]0;title\u0007\u001b[2J\u009b2J\u202e"


class Job:
    """A job that never ends."""

    def waits(self) -> bool:
        return False


@pytest.fixture
def row() -> Planned:
    trial = Trial(notebook="n", method="full", objective="sft", model=EVIL, task="[/]", learning_rate=1e-3)
    return Planned(trial)


def record_of(row: Planned) -> Record:
    return Record(
        trial_id=row.trial_id,
        sweep="s",
        trial=row.trial,
        status="failed",
        reason=f"{EVIL}\nb",
        started_at=datetime.now(UTC),
    )


def board(row: Planned, **progress: Any) -> Board:
    return Board(1, Counter(), {row.trial_id: Running(row, Job(), progress=progress)}, [row])  # type: ignore[arg-type]


def without_cursor(shown: str) -> str:
    """What rich printed without its own movements of the cursor, and with its lines joined."""
    return re.sub(r"\x1b\[(\?25[lh]|2K|1?A|\d*m)|\r|\n *", "", shown)


def test_the_live_board_shows_text(row: Planned) -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=300, color_system=None)
    with display.LiveBoard(console, []) as live:
        live.tick(board(row, phase=EVIL, step="[/]", steps=EVIL, loss=10**400))
        live.ended(record_of(row))
    shown = without_cursor(stream.getvalue())
    assert f"full × sft, {SHOWN}, [/], seed 0 lr 0.001" in shown
    assert f"{SHOWN}  step [/]/{SHOWN}" in shown
    assert rf"{SHOWN}\u000ab" in shown
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x9b\u202e]", shown)


def test_progress_is_bounded(row: Planned) -> None:
    assert len(display.progress_text({"phase": "x" * 10_000_000})) <= 120


def test_lines_show_text(row: Planned) -> None:
    stream = io.StringIO()
    lines = display.Lines(stream)
    lines.started(row)
    lines.ended(record_of(row))
    started, ended = stream.getvalue().splitlines()
    assert started.endswith(f"started  full × sft, {SHOWN}, [/], seed 0 lr 0.001")
    assert ended.endswith(rf"failed: {SHOWN}\u000ab")


def test_events_hold_no_control_characters_and_cannot_be_forged(row: Planned) -> None:
    stream = io.StringIO()
    lines = display.JsonLines(stream)
    lines.tick(board(row, phase=EVIL, event="ended", trial_id="another", time="never"))
    (line,) = stream.getvalue().splitlines()
    assert line.isprintable()
    event = json.loads(line)
    assert (event["event"], event["trial_id"], event["phase"]) == ("progress", row.trial_id, EVIL)
    assert event["time"] != "never"


@pytest.mark.parametrize("terminal", [False, True])
def test_tables_and_lines_of_commands_show_text(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], terminal: bool
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setattr("sys.stdout.isatty", lambda: terminal)
    output.print_table(("name", "why"), [(EVIL, f"one\ntwo{EVIL}"), ("[/]", None)])
    output.say(f"{EVIL}\n")
    output.print_json({"name": EVIL})
    shown = re.sub(r"\x1b\[[\d;]*m", "", capsys.readouterr().out)  # the library's own bold and plain
    assert rf"one\u000atwo{SHOWN}" in shown
    assert "[/]" in shown
    assert f"{SHOWN}\\u000a\n" in shown
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x9b\u202e]", shown)
    assert json.loads(shown[shown.index("{") :])["name"] == EVIL

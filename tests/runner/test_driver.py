"""The driver without kernels: order, parents, lost jobs, what is shown."""

from __future__ import annotations

import io
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from harness.errors import InputError
from harness.ledger.claims import LEASE_S
from harness.ledger.ledger import Ledger
from harness.results.record import Outcome, Record
from harness.results.schema import Status
from harness.runner import display, driver, endings, executors
from harness.runner.driver import Board, Running, drive
from harness.runner.endings import OK, Ending
from harness.sweeps.plan import Plan, Planned
from harness.trial import Trial


def trial(seed: int, **changes: object) -> Trial:
    axes = {"notebook": "methods/full", "method": "full", "objective": "sft", "model": "m", "task": "t", "seed": seed}
    return Trial.model_validate({**axes, "learning_rate": 1e-3, **changes})


class Instant:
    """An executor whose trials end when they are submitted, as ``end`` decides."""

    def __init__(self, ledger: Ledger, end: Callable[[int], str], jobs: int) -> None:
        self.ledger = ledger
        self.jobs = jobs
        self.end = end
        self.order: list[int] = []
        self.together = 0
        self.open: list[Instant.Job] = []
        self.closed = False

    class Job:
        def __init__(self) -> None:
            self.looks = 0
            self.ending = OK

        def waits(self) -> bool:
            return False

        def ended(self) -> Ending | None:
            self.looks += 1
            return self.ending if self.looks > 1 else None

    def room(self) -> int:
        return self.jobs - sum(job.looks < 2 for job in self.open)

    def submit(self, trial_dirs: Sequence[Path]) -> Sequence[Instant.Job]:
        return [self.one(trial_dir) for trial_dir in trial_dirs]

    def one(self, trial_dir: Path) -> Instant.Job:
        row = self.ledger.row(trial_dir.name)
        self.order.append(row.trial.seed)
        job = self.Job()
        self.open.append(job)
        self.together = max(self.together, sum(job.looks < 2 for job in self.open))
        match self.end(row.trial.seed):
            case "lost":
                claim = self.ledger.claim(row.trial_id)
                assert claim is not None
                claim.release()  # what the death of its owner comes to
                job.ending = endings.of_process(-9)
            case "hangs":
                raise KeyboardInterrupt
            case status:
                self.ledger.finish(
                    Record.model_validate(
                        {
                            "trial_id": row.trial_id,
                            "sweep": "s",
                            "trial": row.trial,
                            "status": status,
                            "started_at": datetime.now(UTC),
                            "duration_s": 2.0,
                            "reason": None if status == "ok" else "because",
                        }
                    )
                )
        return job

    def close(self) -> None:
        self.closed = True


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "_POLL_S", 0.0)


def run(
    folder: Path, rows: list[Planned], end: Callable[[int], str], jobs: int = 1, keep_artifacts: bool = True
) -> tuple[Instant, dict[int, Record], str]:
    ledger = Ledger.create(folder, Plan("s", tuple(rows)), "name: s\n")
    executor = Instant(ledger, end, jobs)
    stream = io.StringIO()
    drive(ledger, [row.trial_id for row in rows], executor, jobs, display.Lines(stream), keep_artifacts)
    return executor, {record.trial.seed: record for record in ledger.records()}, stream.getvalue()


def test_trials_run_in_the_order_of_the_plan(tmp_path: Path) -> None:
    executor, records, _ = run(tmp_path, [Planned(trial(n)) for n in (2, 0, 1)], lambda _: "ok")
    assert executor.order == [2, 0, 1]
    assert executor.together == 1
    assert not executor.closed, "the next stage of a search goes on with it"
    assert {record.status for record in records.values()} == {"ok"}


def test_the_watcher_hears_what_was_measured(tmp_path: Path) -> None:
    row = Planned(trial(0))

    class Scores(Instant):
        def one(self, trial_dir: Path) -> Instant.Job:
            self.ledger.finish(scored(valid_score=0.5))
            return super().one(trial_dir)

    ledger = Ledger.create(tmp_path, Plan("s", (row,)), "name: s\n")
    stream = io.StringIO()
    drive(ledger, [row.trial_id], Scores(ledger, lambda _: "ok", 1), 1, display.Lines(stream))
    assert stream.getvalue().endswith(f"{row.trial_id} ok after 1 min 23 s: accuracy 0.5 on validation\n")


def test_jobs_run_together(tmp_path: Path) -> None:
    executor, records, _ = run(tmp_path, [Planned(trial(n)) for n in range(5)], lambda _: "ok", jobs=3)
    assert executor.together == 3
    assert len(records) == 5


def test_a_lost_job_is_a_failed_record(tmp_path: Path) -> None:
    _, records, shown = run(tmp_path, [Planned(trial(0)), Planned(trial(1))], lambda n: "lost" if n == 0 else "ok")
    assert (records[0].status, records[1].status) == ("failed", "ok")
    assert records[0].reason == "the trial's process ended with SIGKILL; see log.txt"
    assert "failed after 0 s: the trial's process ended with SIGKILL" in shown


def test_a_death_on_another_host_is_recorded_when_its_heartbeat_stays_away(tmp_path: Path) -> None:
    ledger = Ledger.create(tmp_path, Plan("s", (Planned(trial(0)),)), "name: s\n")
    trial_id = trial(0).trial_id

    class Remote(Instant):
        """A job that is killed after it has claimed the trial on another host."""

        def one(self, trial_dir: Path) -> Instant.Job:
            elsewhere(ledger, trial_id)
            job = self.Job()
            job.ending = Ending("oom", "killed")
            self.open.append(job)
            return job

    class Clock(display.Lines):
        """After some ticks the lease is over."""

        ticks = 0

        def tick(self, board: Board) -> None:
            self.ticks += 1
            if self.ticks == 5:
                assert not ledger.is_done(trial_id), "its claim still looks alive"
                expire(ledger, trial_id)

    executor = Remote(ledger, lambda _: "ok", 1)
    drive(ledger, [trial_id], executor, 1, Clock(io.StringIO()))
    record = ledger.record(trial_id)
    assert record is not None
    assert (record.status, record.reason, record.attempt, len(executor.open)) == ("oom", "killed", 1, 1)


def test_the_trial_of_a_lost_node_is_taken_over(tmp_path: Path) -> None:
    ledger = Ledger.create(tmp_path, Plan("s", (Planned(trial(0)),)), "name: s\n")
    trial_id = trial(0).trial_id
    elsewhere(ledger, trial_id)

    class Clock(display.Lines):
        ticks = 0

        def tick(self, board: Board) -> None:
            self.ticks += 1
            if self.ticks == 5:
                assert executor.order == [], "another host works on it"
                expire(ledger, trial_id)

    executor = Instant(ledger, lambda _: "ok", 1)
    drive(ledger, [trial_id], executor, 1, Clock(io.StringIO()))
    assert executor.order == [0]
    assert ledger.claim(trial_id) is None, "it is done"


def test_what_waits_in_a_queue_has_not_started(tmp_path: Path) -> None:
    rows = [Planned(trial(n)) for n in range(3)]
    ledger = Ledger.create(tmp_path, Plan("s", tuple(rows)), "name: s\n")
    seen: list[tuple[int, int]] = []

    class Queued(Instant.Job):
        waited = 0

        def waits(self) -> bool:
            self.waited += 1
            return self.waited < 4

    class Queue(Instant):
        """Takes everything at once, and begins it later."""

        Job = Queued

        def room(self) -> int:
            return 1000

    class Watch(display.Lines):
        def tick(self, board: Board) -> None:
            seen.append((len(board.waiting), len(board.running)))

    # The records are there before the jobs begin: a look at the queue comes late.
    drive(ledger, [row.trial_id for row in rows], Queue(ledger, lambda _: "ok", 1), 1, Watch(io.StringIO()))
    assert seen[:4] == [(3, 0), (3, 0), (3, 0), (3, 3)]


def elsewhere(ledger: Ledger, trial_id: str) -> None:
    """Claim a trial as another host would."""
    claim = ledger.claim(trial_id)
    assert claim is not None
    claim.path.write_text(json.dumps({**json.loads(claim.path.read_text()), "host": "elsewhere"}))


def expire(ledger: Ledger, trial_id: str) -> None:
    """Let the last heartbeat be long ago."""
    (claim,) = ledger.trial_dir(trial_id).glob("claim.*.json")
    os.utime(claim, (0, time.time() - LEASE_S - 1))


@pytest.mark.parametrize("ending", ["ok", "oom"])
def test_a_child_waits_for_its_parent_and_shares_its_fate(tmp_path: Path, ending: str) -> None:
    parent = trial(0)
    child = trial(1, parents={"full": parent.trial_id})
    grandchild = trial(2, parents={"child": child.trial_id})
    executor, records, _ = run(
        tmp_path, [Planned(t) for t in (parent, child, grandchild)], lambda n: ending if n == 0 else "ok", jobs=3
    )
    if ending == "ok":
        assert executor.order == [0, 1, 2]
    else:
        assert executor.order == [0]
        assert records[1].reason == f"its parent (full, trial {parent.trial_id}) ended as oom"
        assert records[2].reason == f"its parent (child, trial {child.trial_id}) ended as skipped"


@pytest.mark.parametrize(
    ("endings", "status", "reason"),
    [
        ({0: "oom"}, "ok", None),
        ({1: "failed"}, "ok", None),
        (
            {0: "oom", 1: "failed"},
            "skipped",
            "none of the trials that could be its parent (full) ended well: {} as oom, {} as failed",
        ),
    ],
)
@pytest.mark.parametrize("jobs", [1, 3])
def test_a_child_of_several_candidates_waits_for_all_and_needs_one(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    endings: dict[int, str],
    status: str,
    reason: str | None,
    jobs: int,
) -> None:
    monkeypatch.setattr(driver, "_SELDOM", 1)  # at every step it is looked at what cannot start yet
    ids = trial(0).trial_id, trial(1).trial_id
    rows = [Planned(of) for of in (trial(0), trial(1), trial(2, parents={"full": ids}))]
    executor, records, _ = run(tmp_path, rows, lambda n: endings.get(n, "ok"), jobs=jobs)
    assert records[2].status == status
    assert records[2].reason == (reason and reason.format(*ids))
    assert executor.order == ([0, 1, 2] if status == "ok" else [0, 1]), "each once"
    best = next((trial_id for n, trial_id in enumerate(ids) if n not in endings), None)
    assert executor.ledger.chosen_parents(rows[2].trial).get("full") == best


def test_what_ran_out_of_memory_takes_larger_ones_with_it(tmp_path: Path) -> None:
    sizes = {0: 5, 1: 9, 2: 5, 3: 4, 4: None, 5: 9, 6: 9}
    others = {5: {"method": "lora"}, 6: {"model": "n"}}
    rows = [Planned(trial(n, **others.get(n, {})), estimated_bytes=size and size * 10**9) for n, size in sizes.items()]
    executor, records, _ = run(tmp_path, rows, lambda n: "oom" if n == 0 else "ok")
    assert [records[n].status for n in sizes] == ["oom", "skipped", "ok", "ok", "ok", "ok", "ok"]
    assert 1 not in executor.order
    assert records[1].reason == (
        f"trial {rows[0].trial_id} of the same method and model ran out of memory, "
        "and was estimated to need less (5 of 9 GB)"
    )
    # A later run knows it from the ledger.
    executor, records, _ = run(tmp_path, rows, lambda _: "ok")
    assert (executor.order, records[1].status) == ([], "skipped")


@pytest.mark.parametrize(
    ("ending", "kept", "stays"), [("ok", False, False), ("ok", True, True), ("failed", False, True)]
)
def test_artefacts_go_with_the_last_trial_that_needs_them(tmp_path: Path, ending: str, kept: bool, stays: bool) -> None:
    parent, other = trial(0), trial(9)
    children = [trial(n, parents={"full": parent.trial_id}) for n in (1, 2)]
    artifacts = [tmp_path / "artifacts" / of.trial_id for of in (parent, other)]
    for artifact in artifacts:
        artifact.mkdir(parents=True)
    seen = []

    def end(seed: int) -> str:
        seen.append(artifacts[0].exists())
        return ending if seed == 2 else "ok"

    run(tmp_path, [Planned(t) for t in (parent, other, *children)], end, keep_artifacts=kept)
    assert seen == [True] * 4, "it is there as long as a child may start"
    assert [artifact.exists() for artifact in artifacts] == [stays, True]


def test_a_child_of_a_mended_parent_runs_after_all(tmp_path: Path) -> None:
    parent = trial(0)
    rows = [Planned(parent), Planned(trial(1, parents={"full": parent.trial_id}))]
    run(tmp_path, rows, lambda _: "failed")
    Ledger.open(tmp_path).set_aside(parent.trial_id)
    _, records, _ = run(tmp_path, rows, lambda _: "ok")
    assert {record.status for record in records.values()} == {"ok"}


def test_an_interrupt_leaves_what_runs_to_whoever_closes_the_executor(tmp_path: Path) -> None:
    rows = [Planned(trial(0)), Planned(trial(1))]
    ledger = Ledger.create(tmp_path, Plan("s", tuple(rows)), "name: s\n")
    executor = Instant(ledger, lambda n: "lost" if n == 0 else "hangs", 2)
    with pytest.raises(KeyboardInterrupt):
        drive(ledger, [row.trial_id for row in rows], executor, 2, display.Lines(io.StringIO()))
    assert not executor.closed, "its owner closes it, which ends what it has begun"
    assert len(ledger.pending()) == 2


@pytest.mark.parametrize(("name", "package"), [("ray", "ray"), ("slurm", "submitit")])
def test_a_missing_package_is_told(name: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=rf"'{package}' is missing; pip install 'tunebench\[{name}\]'"):
        executors.factory(name)


def test_an_unknown_executor_is_told() -> None:
    with pytest.raises(InputError, match="--executor: unknown name 'locale'; did you mean 'local'"):
        executors.factory("locale")


def test_json_lines_tell_each_progress_once() -> None:
    stream = io.StringIO()
    lines = display.JsonLines(stream)
    row = Planned(trial(0))
    running = Running(row, Instant.Job(), progress={"step": 1, "steps": 4, "loss": 2.5})
    board = Board(1, Counter(), {row.trial_id: running}, [row])
    lines.started(row)
    lines.tick(board)
    lines.tick(board)
    running.progress = {"step": 2, "steps": 4, "loss": 2.0}
    lines.tick(board)
    events = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [(event["event"], event.get("step")) for event in events] == [
        ("started", None),
        ("progress", 1),
        ("progress", 2),
    ]


def test_the_live_board_shows_counts_progress_and_time_left() -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=120, color_system=None)
    rows = [Planned(trial(n)) for n in range(3)]
    running = Running(
        rows[0], Instant.Job(), time.monotonic() - 5, {"phase": "train", "step": 3, "steps": 16, "loss": 1.5}
    )
    with display.LiveBoard(console, [10.0]) as live:
        live.tick(Board(1, Counter(ok=2, oom=1), {rows[0].trial_id: running}, rows))
    shown = stream.getvalue()
    assert "full × sft, m, t, seed 0 lr 0.001  train  step 3/16  loss 1.500  5 s" in shown
    assert "2 ok  1 oom  1 running  2 waiting  about 25 s left" in shown


def scored(status: Status = "ok", **columns: float) -> Record:
    """The record of a trial that took 83 seconds and measured ``columns``."""
    row = trial(0)
    return Record(
        trial_id=row.trial_id,
        sweep="s",
        trial=row,
        status=status,
        reason=None if status == "ok" else "why",
        started_at=datetime.now(UTC),
        duration_s=83.2,
        outcome=Outcome(columns={"primary_metric": "accuracy", **columns}) if columns else None,
    )


@pytest.mark.parametrize(
    ("record", "told"),
    [
        (
            scored(valid_score=0.8125, test_score=2 / 3),
            "ok after 1 min 23 s: accuracy 0.8125 on validation, 0.6667 on test",
        ),
        (scored(valid_score=0.5), "ok after 1 min 23 s: accuracy 0.5 on validation"),
        (scored(test_score=0.0), "ok after 1 min 23 s: accuracy 0 on test"),
        (scored(), "ok after 1 min 23 s"),
        (scored("failed"), "failed after 1 min 23 s: why"),
    ],
)
def test_the_line_of_an_ended_trial_has_its_score(record: Record, told: str) -> None:
    stream = io.StringIO()
    display.Lines(stream).ended(record)
    assert stream.getvalue().split(" ", 1)[1] == f"{record.trial_id} {told}\n"


def test_the_live_board_and_the_json_lines_tell_the_score() -> None:
    record = scored(valid_score=0.8125, test_score=0.75)
    stream = io.StringIO()
    display.LiveBoard(Console(file=stream, width=120, color_system=None), []).ended(record)
    assert "seed 0 lr 0.001  1 min 23 s  accuracy 0.8125 on validation, 0.75 on test" in stream.getvalue()
    stream = io.StringIO()
    display.JsonLines(stream).ended(record)
    event = json.loads(stream.getvalue())
    assert [event[name] for name in ("primary_metric", "valid_score", "test_score")] == ["accuracy", 0.8125, 0.75]


@pytest.mark.parametrize(
    ("ended", "waiting", "told"),
    [
        ({}, 4, "4 to run"),
        ({"ok": 2, "failed": 1}, 4, "3 of 7 trials done, 4 to run"),
        ({"ok": 12, "skipped": 3}, 25, "12 of 40 trials done, 3 skipped, 25 to run"),
        ({"skipped": 1}, 1, "1 skipped, 1 to run"),
    ],
)
def test_a_run_says_first_what_is_done_and_what_is_left(ended: Counter[Status], waiting: int, told: str) -> None:
    streams = io.StringIO(), io.StringIO(), io.StringIO()
    display.Lines(streams[0]).begins(ended, waiting)
    display.LiveBoard(Console(file=streams[1], width=120), []).begins(ended, waiting)
    display.JsonLines(streams[2]).begins(ended, waiting)
    assert streams[0].getvalue().split(" ", 1)[1] == streams[1].getvalue() == f"{told}\n"
    assert streams[2].getvalue() == ""


@given(
    st.lists(st.floats(0.1, 1e4), min_size=1, max_size=5),
    st.lists(st.floats(0, 1e4), max_size=3),
    st.integers(0, 50),
    st.integers(1, 4),
)
def test_the_time_left_is_bounded_by_the_work_left(
    durations: list[float], elapsed: list[float], waiting: int, jobs: int
) -> None:
    left = display.time_left(durations, elapsed, waiting, jobs)
    assert left is not None
    mean = sum(durations) / len(durations)
    assert waiting * mean / jobs <= left * (1 + 1e-9)
    assert left <= (waiting + len(elapsed)) * mean * (1 + 1e-9)


def test_without_an_ended_trial_the_time_left_is_not_known() -> None:
    assert display.time_left([], [3.0], 4, 1) is None


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59.6, "1 min 0 s"), (185, "3 min 5 s"), (7800, "2 h 10 min")]
)
def test_seconds_as_a_person_reads_them(seconds: float, text: str) -> None:
    assert display.clock(seconds) == text

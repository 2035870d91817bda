"""What holds for ten thousand trials, held on a few: how often the disk is asked, and what lies in memory."""

from __future__ import annotations

import gc
import io
import json
import os
import weakref
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
from helpers.fake_records import make_sweep, records
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import plain, report
from harness.cli import console_tables
from harness.errors import InputError
from harness.files import PLAN_FILE, RECORD_FILE, TRIAL_FILE
from harness.ledger import records as ledger_records
from harness.ledger.ledger import Ledger
from harness.ledger.records import read_records
from harness.ledger.scan import read_head, side_by_side
from harness.report import sections
from harness.results import builder, tables
from harness.results.files import where
from harness.results.record import Outcome, Record
from harness.results.schema import LONG_TABLES, TABLES
from harness.runner import display, driver
from harness.runner.driver import Board, drive
from harness.runner.endings import OK, Ending
from harness.runner.schedule import Schedule
from harness.sweeps.plan import Plan, Planned
from harness.trial import Trial

pytestmark = pytest.mark.slow


def trial(seed: int, **parents: str) -> Trial:
    return Trial(
        notebook="methods/full", method="full", objective="sft", model="m", task="t", seed=seed, parents=parents
    )


def ended(row: Planned, outcome: Outcome | None = None) -> Record:
    return Record(
        trial_id=row.trial_id, sweep="s", trial=row.trial, status="ok", started_at=datetime.now(UTC), outcome=outcome
    )


# The driver


class Counted(Ledger):
    """A ledger that counts how often it looks at a trial on disk."""

    looks = 0

    def trial_dir(self, trial_id: str) -> Path:
        self.looks += 1
        return super().trial_dir(trial_id)


class Slots:
    """An executor whose trials end when they are told to."""

    class Job:
        ending: Ending | None = None

        def waits(self) -> bool:
            return False

        def ended(self) -> Ending | None:
            return self.ending

    def __init__(self, ledger: Ledger, slots: int) -> None:
        self.ledger = ledger
        self.slots = slots
        self.running: dict[str, Slots.Job] = {}

    def room(self) -> int:
        return self.slots - len(self.running)

    def submit(self, trial_dirs: Sequence[Path]) -> Sequence[Slots.Job]:
        made = {path.name: self.Job() for path in trial_dirs}
        self.running |= made
        return list(made.values())

    def finish(self) -> None:
        """End what runs."""
        uncounted = Ledger(self.ledger.folder, self.ledger.plan)
        for trial_id, job in self.running.items():
            uncounted.finish(ended(self.ledger.row(trial_id)))
            job.ending = OK
        self.running.clear()

    def close(self) -> None:
        return


def looks_of(folder: Path, trials: int, monkeypatch: pytest.MonkeyPatch) -> tuple[list[int], int]:
    """How often a driver of four slots looks at trials: in each of forty steps in which nothing ends, and in all."""
    monkeypatch.setattr(driver, "_POLL_S", 0.0)
    ledger = Counted.create(folder, Plan("s", tuple(Planned(trial(n)) for n in range(trials))), "name: s\n")
    assert isinstance(ledger, Counted)
    slots = Slots(ledger, 4)
    ledger.looks = 0
    seen = [0]

    class Watch(display.Lines):
        def tick(self, _board: Board) -> None:
            seen.append(ledger.looks)
            if len(seen) > 41:
                slots.finish()

    drive(ledger, [row.trial_id for row in ledger.plan.rows], slots, 4, Watch(io.StringIO()))
    return [later - earlier for earlier, later in pairwise(seen[:41])], ledger.looks


def test_a_step_of_the_driver_does_not_look_at_what_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few, _ = looks_of(tmp_path / "few", 10, monkeypatch)
    many, _ = looks_of(tmp_path / "many", 200, monkeypatch)
    assert few[1:] == many[1:], "the first step is after a look at everything"
    assert set(many[1:]) == {0, 4}, "what the four that run say of their progress, now and then"


def test_a_whole_run_looks_at_each_trial_a_few_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, few = looks_of(tmp_path / "few", 40, monkeypatch)
    _, many = looks_of(tmp_path / "many", 400, monkeypatch)
    assert many <= 10 * few
    assert many <= 10 * 400


def test_children_of_one_parent_are_looked_at_a_few_times_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "_POLL_S", 0.0)
    parent = Planned(trial(0))
    rows = (parent, *(Planned(trial(n, full=parent.trial_id)) for n in range(1, 201)))
    ledger = Counted.create(tmp_path, Plan("s", rows), "name: s\n")
    assert isinstance(ledger, Counted)
    ledger.artifact_dir(parent.trial_id).mkdir(parents=True)
    slots = Slots(ledger, 4)
    ledger.looks = 0

    class Watch(display.Lines):
        def tick(self, board: Board) -> None:
            assert not board.waiting or ledger.artifact_dir(parent.trial_id).exists()
            slots.finish()

    drive(ledger, [row.trial_id for row in rows], slots, 4, Watch(io.StringIO()), keep_artifacts=False)
    assert ledger.looks <= 15 * len(rows)
    assert not ledger.artifact_dir(parent.trial_id).exists(), "it went with its last child"


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_the_schedule_is_the_first_row_whose_parents_have_ended(data: st.DataObject) -> None:
    rows: list[Planned] = []
    for seed in range(data.draw(st.integers(1, 12))):
        parents = data.draw(st.sets(st.integers(0, seed - 1), max_size=3)) if rows else set()
        rows.append(Planned(trial(seed, **{f"role{place}": rows[place].trial_id for place in parents})))
    schedule, over, running = Schedule(rows), set[str](), list[Planned]()
    while len(over) < len(rows):
        free = (row for row in rows if row not in running and row.trial_id not in over)
        simple = (row for row in free if _parents(row) <= over)
        taken = schedule.take()
        assert taken == next(simple, None)
        if taken is not None:
            running.append(taken)
        if running and (taken is None or data.draw(st.booleans())):
            row = running.pop(data.draw(st.integers(0, len(running) - 1)))
            if data.draw(st.booleans()):
                schedule.give_back(row)
            else:
                over.add(row.trial_id)
                assert {child.trial_id for child in schedule.ended(row.trial_id)} == {
                    other.trial_id for other in rows if row.trial_id in _parents(other)
                }


def _parents(row: Planned) -> set[str]:
    return set(row.trial.parent_ids)


# The ledger


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A record of some hundred kilobytes."""
    real = next(r for r in records(n_methods=2, curve_steps=1000) if r.trial.method == "full")
    path = tmp_path_factory.mktemp("large") / RECORD_FILE
    path.write_text(real.model_dump_json(), encoding="utf-8")
    return path


def test_the_head_of_a_record_is_the_record_without_what_was_measured(large: Path) -> None:
    assert read_head(large) == Record.model_validate_json(large.read_bytes()).model_copy(update={"outcome": None})


def test_the_head_of_a_record_is_read_without_the_rest(large: Path, tmp_path: Path) -> None:
    content = large.read_bytes()
    path = tmp_path / RECORD_FILE
    path.write_bytes(content[:5000] + b"#" * (len(content) - 6000) + content[-1000:])
    assert read_head(path) == read_head(large)


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_a_record_that_was_cut_short_has_no_head(large: Path, data: st.DataObject) -> None:
    content = large.read_bytes()
    keep = data.draw(st.integers(0, len(content) - 1))
    path = large.with_name("cut.json")
    path.write_bytes(content[:keep])
    with pytest.raises(ValueError, match="validation error"):
        read_head(path)


def test_a_long_reason_is_read_whole(tmp_path: Path) -> None:
    record = ended(Planned(trial(0))).model_copy(update={"status": "failed", "reason": "x" * 10_000})
    path = tmp_path / RECORD_FILE
    path.write_text(record.model_dump_json(), encoding="utf-8")
    assert read_head(path) == record.model_copy(update={"reason": plain.bounded("x" * 10_000)})


def test_looking_side_by_side_keeps_the_order_and_raises() -> None:
    assert side_by_side(lambda n: n * n, range(1000)) == [n * n for n in range(1000)]
    with pytest.raises(ZeroDivisionError):
        side_by_side(lambda n: 1 // (n - 700), range(1000))


def test_planning_again_touches_only_what_is_new(tmp_path: Path) -> None:
    def stamps() -> dict[str, int]:
        return {path.parent.name: path.stat().st_mtime_ns for path in tmp_path.glob(f"trials/*/{TRIAL_FILE}")}

    first = [Planned(trial(n)) for n in range(100)]
    Ledger.create(tmp_path, Plan("s", tuple(first)), "name: s\n")
    for path in tmp_path.glob(f"trials/*/{TRIAL_FILE}"):
        os.utime(path, (1, 1))
    before = stamps()
    os.utime(tmp_path / PLAN_FILE, (1, 1))
    Ledger.create(tmp_path, Plan("s", tuple(first)), "name: s\n")
    assert stamps() == before
    assert (tmp_path / PLAN_FILE).stat().st_mtime == 1
    child = Planned(trial(100, full=first[7].trial_id))
    Ledger.create(tmp_path, Plan("s", (*first, child)), "name: s\n")
    changed = {trial_id for trial_id, stamp in stamps().items() if before.get(trial_id) != stamp}
    assert changed == {first[7].trial_id, child.trial_id}, "that which is a parent now, and the new one"


def test_a_trial_knows_its_row_without_the_plan(tmp_path: Path) -> None:
    parent = Planned(trial(0), None, "generation", "llama")
    child = Planned(trial(1, full=parent.trial_id))
    ledger = Ledger.create(tmp_path, Plan("s", (parent, child)), "name: s\n")
    (tmp_path / PLAN_FILE).rename(tmp_path / "aside")
    for row, is_parent in ((parent, True), (child, False)):
        mine, needed = Ledger.of_trial(ledger.trial_dir(row.trial_id))
        assert (mine.plan, mine.folder, needed) == (Plan("s", (row,)), tmp_path, is_parent)
    (tmp_path / "aside").rename(tmp_path / PLAN_FILE)
    (ledger.trial_dir(parent.trial_id) / TRIAL_FILE).write_text("")
    mine, needed = Ledger.of_trial(ledger.trial_dir(parent.trial_id))
    assert (mine.plan.rows, needed) == ((parent,), True), "a trial.json that was lost is in the plan"
    with pytest.raises(InputError, match=r"trial 'stray' is not in plan\.json"):
        Ledger.of_trial(tmp_path / "trials" / "stray")


# Tables


@pytest.fixture(scope="module")
def hundreds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep of 305 records; some did not end well, and those have no tables."""
    folder = tmp_path_factory.mktemp("hundreds")
    make_sweep(folder, **HUNDREDS)
    return folder


HUNDREDS = {"n_methods": 7, "seeds": 5, "rates": 5, "curve_steps": 3, "generations": 2, "endings": {"bitfit": "oom"}}
HUNDREDS |= {"models": ("smollm2-135m", "gemma3-270m")}


def test_tables_in_many_batches_are_those_of_the_simple_definition(
    hundreds: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(builder.TableBuilder.__init__, "__defaults__", (50,))
    everything = list(records(**HUNDREDS))  # type: ignore[arg-type]
    assert len(everything) > 300
    built = tables.build(read_records(hundreds))
    for name, table in LONG_TABLES.items():
        names = [column.name for column in table.columns]
        simple = [
            {**dict.fromkeys(names), **row, "trial_id": record.trial_id}
            for record in everything
            if record.outcome is not None
            for row in record.outcome.tables.get(name, ())
        ]
        # Only a study has rows of serving.
        assert len(simple) > 300 or name in ("serving", "merge_fidelity", "ways")
        assert built[name].to_pylist() == simple
    for row, record in zip(built["trials"].to_pylist(), everything, strict=True):
        measured = record.outcome.columns if record.outcome is not None else {}
        assert (row["trial_id"], row["status"]) == (record.trial_id, record.status)
        assert {name: row[name] for name in measured} == measured
    assert tables.write(read_records(hundreds), hundreds) == {name: data.num_rows for name, data in built.items()}
    for name, data in built.items():
        assert pa.parquet.read_table(hundreds / "tables" / f"{name}.parquet").equals(data, check_metadata=True)
    assert pa.parquet.ParquetFile(hundreds / "tables" / "curves.parquet").num_row_groups > 10


def test_a_wrong_row_far_down_is_named_by_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builder.TableBuilder.__init__, "__defaults__", (10,))
    *_, last = make_sweep(tmp_path, n_methods=3, curve_steps=2)
    path = tmp_path / "trials" / last / RECORD_FILE
    content = json.loads(path.read_text())
    content["outcome"]["tables"]["scores"][1]["stderr"] = -1.0
    path.write_text(json.dumps(content))
    count = 2 * len(list((tmp_path / "trials").iterdir()))
    with pytest.raises(InputError, match=rf"column 'stderr', row {count - 1} .*trial_id={last}"):
        tables.write(read_records(tmp_path), tmp_path)
    assert not list((tmp_path / "tables").iterdir())


@pytest.mark.long
def test_writing_tables_holds_one_record_at_a_time(hundreds: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alive: list[weakref.ref[Outcome]] = []
    most = 0
    original = ledger_records.read_record

    def watched(path: Path) -> Record | None:
        nonlocal most
        record = original(path)
        if record is not None and record.outcome is not None:
            alive.append(weakref.ref(record.outcome))
        if len(alive) % 50 == 0:
            gc.collect()
        most = max(most, sum(ref() is not None for ref in alive))
        return record

    monkeypatch.setattr(ledger_records, "read_record", watched)
    tables.write(read_records(hundreds), hundreds)
    assert len(alive) > 200
    assert most <= 2, "the one that is read, and the one before it"


def test_stored_tables_give_the_rows_that_are_wanted(hundreds: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builder.TableBuilder.__init__, "__defaults__", (50,))
    tables.write(read_records(hundreds), hundreds)
    whole = dict(tables.read(hundreds))
    ids = whole["trials"].trial_id.iloc[::7].tolist()
    for name, equal in (
        ("curves", {"metric": "loss", "split": "train"}),
        ("latency", {"batch_size": 1}),
        ("scores", {}),
    ):
        stored = where(tables.read(hundreds), name, ids, **equal)
        pd.testing.assert_frame_equal(stored, where(whole, name, ids, **equal))
        assert 0 < len(stored) < len(whole[name])
        assert set(stored.trial_id) <= set(ids)
    assert where(tables.read(hundreds), "scores", []).columns.tolist() == whole["scores"].columns.tolist()


def test_a_report_does_not_read_every_curve_and_answer(hundreds: Path, tmp_path: Path) -> None:
    tables.write(read_records(hundreds), hundreds)
    stored = tables.read(hundreds)
    for section in (sections.brief, sections.comparison, sections.endings, sections.generations):
        section(stored)
    for name in ("training_curves", "decode_latency", "score_by_method"):
        sections.figure(name, stored, tmp_path)
    assert set(stored._frames) == {"trials"}


# What people read


def test_reasons_without_number_are_counted_not_listed() -> None:
    rows = [
        {"method": "full", "task": "t", "model": "m", "status": "failed", "reason": f"step {n // 2 if n < 40 else n}"}
        for n in range(400)
    ]
    trials = pd.DataFrame(rows).assign(note=None)
    text = sections.endings({"trials": trials}).text
    assert text.count("<tr>") == 51
    assert "400 trials: 400 failed" in text
    assert "step 19<" in text, "what happened twice comes first"
    assert "330 more trials, of 330 other kinds" in text


def test_tables_that_are_too_large_stay_behind(hundreds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tables.write(read_records(hundreds), hundreds)
    (tmp_path / "tables").mkdir()
    report._copy(hundreds / "tables", tmp_path / "tables")
    assert {path.stem for path in (tmp_path / "tables").iterdir()} == set(TABLES)
    assert "too large" not in sections.downloads(tmp_path).text
    monkeypatch.setattr(report, "_LARGE_BYTES", (hundreds / "tables" / "curves.csv").stat().st_size - 1)
    report._copy(hundreds / "tables", tmp_path / "tables")
    assert not (tmp_path / "tables" / "curves.csv").exists()
    assert (hundreds / "tables" / "curves.csv").exists()
    assert "because empty or too large: curves.csv, " in sections.downloads(tmp_path).text
    report._copy(hundreds / "tables", hundreds / "tables")
    assert (hundreds / "tables" / "curves.csv").exists(), "a report beside its tables takes none away"


def many() -> Iterator[Planned]:
    for record in records(n_methods=4, seeds=20, rates=5, curve_steps=1):
        yield Planned(record.trial, "cannot" if record.trial.method == "qlora" else None)


def test_a_large_plan_is_told_by_cell() -> None:
    rows = tuple(many())
    assert len(rows) > console_tables.MANY
    lines = console_tables.plan(Plan("s", rows))
    found = [dict(zip(lines.header, row, strict=True)) for row in lines.rows]
    assert {row["method"]: (row["trials"], row["seeds"], row[""]) for row in found} == {
        "baseline": (20, 20, ""),
        "full": (100, 20, ""),
        "lora": (100, 20, ""),
        "qlora": (100, 20, "skipped: cannot"),
    }
    assert len(list(console_tables.plan(Plan("s", rows[:50])).rows)) == 50


def test_a_large_run_is_told_by_cell(tmp_path: Path) -> None:
    some = list(records(n_methods=3, seeds=30, rates=5, curve_steps=1, endings={"lora": "oom"}))
    lines = console_tables.outcome(tmp_path, some)
    assert [dict(zip(lines.header, row, strict=True)) for row in lines.rows] == [
        {**_CELL, "method": method, "trials": trials, "ok": ok, "oom": oom}
        for method, trials, ok, oom in (("baseline", 30, 30, ""), ("full", 150, 150, ""), ("lora", 150, "", 150))
    ]
    said = list(console_tables.reasons(some))
    assert len(said) == 21
    assert said[-1] == "and 130 more; tables/trials.csv has every reason"


_CELL = {"objective": "sft", "model": "smollm2-135m", "task": "factual_summary"}


def test_a_small_run_is_told_by_trial(tmp_path: Path) -> None:
    make_sweep(tmp_path, n_methods=2, seeds=1, curve_steps=1)
    tables.write(read_records(tmp_path), tmp_path)
    some = list(records(n_methods=2, seeds=1, curve_steps=1))
    rows = [
        dict(zip(lines.header, row, strict=True))
        for lines in [console_tables.outcome(tmp_path, some)]
        for row in lines.rows
    ]
    assert Counter(row["method"] for row in rows) == {"baseline": 1, "full": 2}
    for row, record in zip(rows, some, strict=True):
        assert record.outcome is not None
        assert row["test"] == console_tables.number(record.outcome.columns["test_score"])

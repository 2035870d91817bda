"""Records to tables: nothing lost, nothing invented, and every fault named."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pytest
from helpers.fake_records import make_sweep, records
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import InputError
from harness.files import RECORD_FILE
from harness.ledger.records import read_records
from harness.results import files, tables
from harness.results.builder import TableBuilder
from harness.results.parents import fill_parent_settings
from harness.results.record import Record
from harness.results.schema import CURVES, LATENCY, SCHEMA_VERSION, SCORES, TABLES, TRIALS, Table
from harness.trial import Budget, Trial


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    make_sweep(tmp_path / "s", n_methods=3, seeds=2, curve_steps=4, endings={"lora": "oom"})
    return tmp_path / "s"


def edit(sweep: Path, trial_id: str, change) -> Path:
    path = sweep / "trials" / trial_id / RECORD_FILE
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    return path


def test_every_column_of_the_schema_is_there_with_its_type(sweep: Path) -> None:
    for name, data in tables.build(read_records(sweep)).items():
        assert data.schema.equals(TABLES[name].arrow, check_metadata=True)


def test_values_are_those_of_the_records_and_failures_are_rows(sweep: Path) -> None:
    built = tables.build(read_records(sweep))
    wanted = list(records(n_methods=3, seeds=2, curve_steps=4, endings={"lora": "oom"}))
    rows = built["trials"].to_pylist()
    assert [row["trial_id"] for row in rows] == [record.trial_id for record in wanted]
    for row, record in zip(rows, wanted, strict=True):
        assert row["status"] == record.status
        assert row["torch_version"] == "2.13.0"
        if record.outcome is None:
            assert row["test_score"] is None
            assert row["reason"].startswith("out of memory")
            assert row["train_steps"] == 4, "the budget's, where the trial did not end well"
        else:
            assert {k: row[k] for k in record.outcome.columns} == record.outcome.columns
    full = next(record for record in wanted if record.trial.method == "full")
    assert full.outcome is not None
    curves = [row for row in built["curves"].to_pylist() if row.pop("trial_id") == full.trial_id]
    assert curves == full.outcome.tables["curves"]


def test_rows_follow_the_plan_and_unplanned_records_come_last(sweep: Path) -> None:
    plan = json.loads((sweep / "plan.json").read_text())["trials"]
    wanted = [cell["trial_id"] for cell in plan[1:]][::-1]
    (sweep / "plan.json").write_text(json.dumps({"trials": [{"trial_id": i} for i in ["not-run-yet", *wanted]]}))
    built = tables.build(read_records(sweep))
    assert built["trials"]["trial_id"].to_pylist() == [*wanted, plan[0]["trial_id"]]
    order = list(dict.fromkeys(built["curves"]["trial_id"].to_pylist()))
    assert order == [i for i in wanted if i in order]


def test_base_score_is_the_zero_shot_score_of_the_same_seed(tmp_path: Path) -> None:
    make_sweep(tmp_path, n_methods=2, seeds=2, models=["smollm2-135m", "gemma3-270m"])
    frame = tables.build(read_records(tmp_path))["trials"].to_pandas()
    base = frame[frame.method == "baseline"].set_index(["model", "seed"]).test_score
    full = frame[frame.method == "full"]
    assert len(full) == 8
    for row in full.itertuples():
        assert row.base_score == base[row.model, row.seed]


@pytest.mark.parametrize(
    ("change", "base"),
    [
        (lambda r: r["trial"]["method_args"].update(shots=4), None),
        (lambda r: r["trial"]["method_args"].update(shots=0), 0.25),
        (lambda r: r["trial"]["budget"].update(eval_examples=10), None),
        (lambda r: r["trial"]["budget"].update(max_new_tokens=4), None),
        (lambda r: r["trial"].update(task_version="2"), None),
        (lambda r: r["trial"].update(model_revision="other"), None),
        (lambda r: r["outcome"]["columns"].update(primary_metric="bleu"), None),
        (lambda r: r.update(status="failed", reason="late"), None),
        (lambda r: r["trial"].update(dtype="bfloat16"), 0.25),
    ],
    ids=[
        "few-shot",
        "no shots",
        "other test examples",
        "shorter answers",
        "other task version",
        "other weights",
        "other metric",
        "failed",
        "only another dtype",
    ],
)
def test_base_score_needs_a_comparable_baseline(tmp_path: Path, change, base: float | None) -> None:
    ids = make_sweep(tmp_path, n_methods=2, seeds=1, rates=1)
    edit(tmp_path, ids[0], lambda r: r["outcome"]["columns"].update(test_score=0.25))
    edit(tmp_path, ids[0], change)
    assert tables.build(read_records(tmp_path))["trials"]["base_score"].to_pylist()[1] == base


def test_of_two_baselines_the_one_with_the_number_format_comes_before_the_one_with_the_seed(tmp_path: Path) -> None:
    ids = make_sweep(tmp_path, n_methods=2, seeds=2, rates=1)
    edit(tmp_path, ids[0], lambda r: r["outcome"]["columns"].update(test_score=0.25))
    edit(tmp_path, ids[1], lambda r: r["outcome"]["columns"].update(test_score=0.75))
    edit(tmp_path, ids[1], lambda r: r["trial"].update(dtype="bfloat16"))
    rows = tables.build(read_records(tmp_path))["trials"].to_pylist()
    found = {row["seed"]: row["base_score"] for row in rows if row["method"] == "full"}
    assert found == {0: 0.25, 1: 0.25}, "the only one with the row's seed has another format"


def test_a_base_score_measured_by_the_trial_itself_is_kept(tmp_path: Path) -> None:
    ids = make_sweep(tmp_path, n_methods=2, seeds=1, rates=1)
    edit(tmp_path, ids[1], lambda r: r["outcome"]["columns"].update(base_score=0.125))
    assert tables.build(read_records(tmp_path))["trials"]["base_score"].to_pylist()[1] == 0.125


def test_everything_that_the_id_holds_is_a_column(tmp_path: Path) -> None:
    ids = make_sweep(tmp_path, n_methods=1, seeds=1)
    spec = {
        "objective_args": {"loss": "ipo", "beta": 0.1},
        "parents": {"sft": ["abc", "bcd"], "reward": "def"},
        "model_revision": "0123456789ab",
        "task_version": "1+abc",
        "device": "auto",
    }
    edit(tmp_path, ids[0], lambda r: r["trial"].update(spec))
    edit(tmp_path, ids[0], lambda r: r.update(parents={"sft": "bcd"}))
    asked = {"epochs": 2, "eval_examples": 50, "max_new_tokens": 7, "probes": ["retention"], "latency_batches": [4]}
    edit(tmp_path, ids[0], lambda r: r["trial"]["budget"].update(asked))
    edit(tmp_path, ids[0], lambda r: r["outcome"]["columns"].update(device="cuda:0"))
    row = tables.build(read_records(tmp_path))["trials"].to_pylist()[0]
    wanted = {
        "objective_args": '{"beta": 0.1, "loss": "ipo"}',
        "parents": '{"reward": "def", "sft": "bcd"}',
        "parent_candidates": '{"reward": ["def"], "sft": ["abc", "bcd"]}',
        "parent_settings": '{"reward": "def", "sft": ["abc", "bcd"]}',
        "model_revision": "0123456789ab",
        "task_version": "1+abc",
        "requested_device": "auto",
        "device": "cuda:0",
        "epochs": 2,
        "eval_examples": 50,
        "max_new_tokens": 7,
        "probes": "retention",
        "latency_batches": "1, 4",
    }
    assert {name: row[name] for name in wanted} == wanted


@given(
    st.builds(
        Budget,
        eval_examples=st.none() | st.integers(1, 9),
        max_new_tokens=st.none() | st.integers(1, 9),
        probes=st.sampled_from([(), ("retention",), ("retention", "safety")]),
        latency_batches=st.lists(st.integers(1, 64), max_size=3),
    )
)
def test_a_budget_is_read_from_its_columns(budget: Budget) -> None:
    columns = budget.columns()
    assert all(value is None or isinstance(value, int | str) for value in columns.values())
    assert Budget.from_columns(columns) == budget
    assert columns["probes"] != "", "no probes are an empty cell"


def test_parents_are_the_same_setting_on_every_seed_and_another_with_other_arguments() -> None:
    def trial(seed: int, **fields: object) -> Trial:
        return Trial(notebook="n", method="full", objective="sft", model="m", task="t", seed=seed, **fields)

    parents = [trial(seed, learning_rate=rate) for rate in (1e-3, 1e-4) for seed in (0, 1)]
    children = [trial(parent.seed, parents={"full": parent.trial_id}) for parent in parents]
    grandchildren = [trial(child.seed, parents={"sft": child.trial_id}) for child in children]
    everything = [*parents, *children, *grandchildren]
    rows: list[dict[str, object]] = [{} for _ in everything]
    fill_parent_settings(rows, everything)
    found = [row["parent_settings"] for row in rows]
    assert found[:4] == ["{}"] * 4
    for a, b, c, d in (found[4:8], found[8:]):
        assert a == b != c == d


@pytest.mark.parametrize("keep", [0, 1, 500], ids=["empty", "one byte", "half"])
def test_a_truncated_record_is_named(sweep: Path, keep: int) -> None:
    path = next((sweep / "trials").glob("*/record.json"))
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match=rf"{path.parent.name}/record\.json: not a valid record") as caught:
        tables.build(read_records(sweep))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r.update(status="fine"), "status: must be"),
        (lambda r: r.update(trial_id="abc"), "is the record of trial 'abc'"),
        (lambda r: r.update(schema_version=99), "schema version 99"),
        (lambda r: r["outcome"]["columns"].update(acuracy=1.0), "not columns of the trials table: acuracy"),
        (
            lambda r: r["outcome"]["columns"].update(test_score="high"),
            "column 'test_score'.*'high' is str, must be float",
        ),
        (
            lambda r: r["outcome"]["columns"].update(trainable_share=1.5),
            "column 'trainable_share'.*1.5 must be at most 1",
        ),
        (
            lambda r: r["outcome"]["columns"].update(train_tokens=-1),
            "column 'train_tokens'.*-1 must be at least 0",
        ),
        (
            lambda r: r["outcome"]["columns"].update(train_tokens=1.5),
            "column 'train_tokens'.*1.5 is float, must be int",
        ),
        (
            lambda r: r["outcome"]["columns"].update(higher_is_better=1),
            "column 'higher_is_better'.*must be bool",
        ),
        (
            lambda r: r["outcome"]["tables"]["scores"].append({"split": "test"}),
            "column 'metric'.*must not be null",
        ),
        (
            lambda r: r["outcome"]["tables"]["scores"].append({"splt": "test"}),
            "unknown name 'splt'; did you mean 'split'",
        ),
        (
            lambda r: r["outcome"]["tables"]["scores"].extend(r["outcome"]["tables"]["scores"]),
            "repeats the key",
        ),
    ],
)
def test_a_wrong_record_is_refused_with_its_place(sweep: Path, change, message: str) -> None:
    full = next(r for r in records(n_methods=3, seeds=2, curve_steps=4) if r.trial.method == "full")
    edit(sweep, full.trial_id, change)
    with pytest.raises(InputError, match=message) as caught:
        tables.build(read_records(sweep))
    assert full.trial_id in str(caught.value)


def one(table: Table, **values: object) -> pa.Table:
    builder = TableBuilder(table)
    builder.extend([values])
    return builder.finish()


LATENCY_ROW = {
    "trial_id": "a",
    "variant": "plain",
    "batch_size": 1,
    "prompt_tokens": 1,
    "new_tokens": 0,
    "phase": "predict",
}


@pytest.mark.parametrize(
    ("table", "data", "message"),
    [
        (
            SCORES,
            one(SCORES, trial_id="a", split=None, metric="f1"),
            "'scores', column 'split', row 0 .*must not be null",
        ),
        (LATENCY, one(LATENCY, **{**LATENCY_ROW, "batch_size": 0}), r"'batch_size', row 0 .*0 must be at least 1"),
        (
            CURVES,
            one(CURVES, trial_id="a", step=1, split="train", metric="loss", value=float("nan")),
            "nan is not finite",
        ),
        (SCORES, one(SCORES, trial_id="a", split="test", metric="f1").drop(["n"]), "missing column n"),
        (SCORES, one(CURVES, trial_id="a", step=1, split="test", metric="f1"), "missing column n, stderr"),
    ],
)
def test_validate_names_table_column_row_and_rule(table: Table, data: pa.Table, message: str) -> None:
    with pytest.raises(InputError, match=message):
        tables.validate(table, data)


def test_validate_checks_choices(sweep: Path) -> None:
    strict = replace(TRIALS, columns=tuple(
        replace(c, choices=("full",)) if c.name == "method" else c for c in TRIALS.columns
    ))  # fmt: skip
    with pytest.raises(InputError, match="'baseline' must be one of full"):
        tables.validate(strict, tables.build(read_records(sweep))["trials"])


def test_written_tables_read_back_the_same_and_leave_no_temporary_file(sweep: Path) -> None:
    rows = tables.write(read_records(sweep), sweep)
    built = tables.build(read_records(sweep))
    assert rows == {name: data.num_rows for name, data in built.items()}
    names = {f"{name}.{ending}" for name in TABLES for ending in ("parquet", "csv")}
    assert {path.name for path in (sweep / "tables").iterdir()} == names
    for place in (sweep, sweep / "tables"):
        for name, frame in tables.read(place).items():
            assert len(frame) == built[name].num_rows
            assert list(frame.columns) == built[name].column_names
    trials = tables.read(sweep)["trials"]
    assert trials.higher_is_better.dtype == "boolean"
    assert trials.peak_train_bytes.dtype == "float64"
    csv = pa.csv.read_csv(
        sweep / "tables" / "generations.csv",
        parse_options=pa.csv.ParseOptions(newlines_in_values=True),
    )
    assert csv["output"].to_pylist() == built["generations"]["output"].to_pylist()


def test_no_text_of_a_csv_is_a_formula(tmp_path: Path) -> None:
    texts = ["=HYPERLINK(1)", "+1", "-2.5", "@SUM(A1)", "\t=1", "\n=1", "＝1", "a=1", "'=1", "", " -", "x\n=1"]
    (record, *_) = records(n_methods=1, seeds=1)
    assert record.outcome
    rows = [{"example": n, "prompt": "p", "output": text, "reference": "r"} for n, text in enumerate(texts)]
    outcome = record.outcome.model_copy(update={"tables": {"generations": rows}})
    outcome.columns["valid_score"] = -0.5
    tables.write([record.model_copy(update={"outcome": outcome})], tmp_path)
    options = pa.csv.ParseOptions(newlines_in_values=True)
    csv = pa.csv.read_csv(tmp_path / "tables" / "generations.csv", parse_options=options)
    assert csv["output"].to_pylist() == [f"'{text}" for text in texts[:7]] + texts[7:]
    assert tables.read(tmp_path)["generations"].output.to_list() == texts
    trials = pa.csv.read_csv(tmp_path / "tables" / "trials.csv")
    assert trials["valid_score"].to_pylist() == [-0.5]


def test_a_reason_is_bounded() -> None:
    (record, *_) = records(n_methods=1, seeds=1, endings={"baseline": "failed"})
    said = Record.model_validate({**record.model_dump(), "reason": "é" * 10_000_000}).reason
    assert said == "é" * 960 + " … (9,999,040 more characters)"
    assert Record.model_validate({**record.model_dump(), "reason": said}).reason == said


def test_the_same_records_give_the_same_bytes(tmp_path: Path) -> None:
    written = []
    for place in (tmp_path / "a", tmp_path / "b"):
        make_sweep(place, n_methods=2, seeds=1)
        tables.write(read_records(place), place)
        written.append({path.name: path.read_bytes() for path in (place / "tables").iterdir()})
    assert written[0] == written[1]


def test_a_failed_write_keeps_the_old_tables(sweep: Path) -> None:
    tables.write(read_records(sweep), sweep)
    before = (sweep / "tables" / "trials.parquet").read_bytes()
    edit(sweep, next((sweep / "trials").iterdir()).name, lambda r: r.update(status="fine"))
    with pytest.raises(InputError):
        tables.write(read_records(sweep), sweep)
    assert (sweep / "tables" / "trials.parquet").read_bytes() == before


def test_reading_asks_for_tables_and_for_the_right_version(tmp_path: Path, sweep: Path) -> None:
    with pytest.raises(InputError, match="no tables here"):
        tables.read(tmp_path)
    with pytest.raises(InputError, match="no trials here"):
        tables.build(read_records(tmp_path))
    tables.write(read_records(sweep), sweep)
    path = sweep / "tables" / "trials.parquet"
    old = pa.parquet.read_table(path)
    pa.parquet.write_table(old.replace_schema_metadata({"schema_version": "0"}), path)
    with pytest.raises(InputError, match=rf"trials\.parquet: schema version 0, not {SCHEMA_VERSION}"):
        tables.read(sweep)
    path.write_bytes(b"not parquet")
    with pytest.raises(InputError, match="cannot be read as Parquet"):
        tables.read(sweep)


def test_a_sweep_that_has_not_started_gives_empty_tables(tmp_path: Path) -> None:
    (tmp_path / "trials").mkdir()
    assert {name: data.num_rows for name, data in tables.build(read_records(tmp_path)).items()} == dict.fromkeys(
        TABLES, 0
    )


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 2**53), st.none() | st.floats(allow_nan=False, allow_infinity=False)),
        unique_by=lambda t: t[0],
    ),
    st.integers(1, 7),
)
def test_the_builder_keeps_every_row_whatever_the_batch(rows: list[tuple[int, float | None]], batch: int) -> None:
    wanted = [
        {"trial_id": "a", "step": step, "split": "train", "metric": "loss", "value": value} for step, value in rows
    ]
    builder = TableBuilder(CURVES, batch_rows=batch)
    for row in wanted:
        builder.extend([row])
    data = builder.finish()
    tables.validate(CURVES, data)
    assert data.to_pylist() == wanted


def test_a_repeated_key_is_found_among_more_keys_than_a_number_can_count() -> None:
    rows = [
        {
            "trial_id": f"t{i}",
            "variant": f"v{i}",
            "batch_size": i,
            "prompt_tokens": i,
            "new_tokens": i,
            "phase": f"p{i}",
        }
        for i in range(1, 2001)
    ]
    assert len(rows) ** len(LATENCY.key) > 2**63
    builder = TableBuilder(LATENCY)
    builder.extend(rows)
    tables.validate(LATENCY, builder.finish())
    builder.extend([rows[700]])
    with pytest.raises(InputError, match=r"row 2000 \(trial_id=t701, .*repeats the key"):
        tables.validate(LATENCY, builder.finish())


def test_what_follows_from_stored_tables_is_computed_once_and_anew_beside_another_table(tmp_path: Path) -> None:
    tables.write([], tmp_path)
    stored = tables.read(tmp_path)
    computed: list[str] = []

    def compute() -> int:
        computed.append("now")
        return len(computed)

    assert [files.once(stored, "one", compute), files.once(stored, "one", compute)] == [1, 1]
    assert files.once(stored, "two", compute) == 2
    stored.put("more", pd.DataFrame())
    assert files.once(stored, "one", compute) == 3
    assert files.once({"trials": stored["trials"]}, "one", compute) == 4, "frames in a dictionary may change"

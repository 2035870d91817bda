"""Rows of a user's own file: none is lost, mended or made up in silence."""

from __future__ import annotations

import json
import math
import warnings
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from harness.errors import InputError
from harness.tasks import check, data
from harness.trial import Budget, Trial

GENERATION: dict[str, Any] = {
    "name": "own",
    "kind": "generation",
    "prompt": "Q: {q}\nA:",
    "completion": "{a}",
    "splits": {"validation": 2, "test": 2},
}
CLASSES: dict[str, Any] = {
    "name": "own",
    "kind": "classification",
    "prompt": "{body}",
    "label": "team",
    "labels": {"billing": "billing", "tech": "technical"},
    "splits": {"validation": 2, "test": 2},
}


def task(folder: Path, name: str, content: str | bytes, base: dict[str, Any], **changes: Any) -> str:
    """A data file and its task in ``folder``; returns the path of the latter."""
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    path = folder / "task.yaml"
    path.write_text(yaml.safe_dump({**base, "source": {"local": name}, **changes}), encoding="utf-8")
    return str(path)


def loaded(path: str) -> data.TaskData:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return data.load(path)


def examples(found: data.TaskData) -> list[data.Example]:
    return sorted((*found.train, *found.validation, *found.test), key=lambda e: (len(e.prompt), e.prompt))


def jsonl(rows: list[dict[str, Any]]) -> str:
    return "\n".join(map(json.dumps, rows)) + "\n"


def trial(path: str, **budget: Any) -> Trial:
    return Trial(
        notebook="methods/full",
        method="full",
        objective="sft",
        model="smollm2-135m",
        task="own",
        paths={"task": path},
        learning_rate=1e-3,
        budget=Budget(**budget),
    )


# --- what is missing -------------------------------------------------------------------------------------------------

ANSWERS = [math.nan if i % 4 == 0 else i for i in range(20)]


@pytest.mark.parametrize("ending", ["jsonl", "json", "csv", "parquet"])
def test_a_missing_cell_is_no_answer_and_integers_stay_integers(tmp_path: Path, ending: str) -> None:
    rows = [{"q": f"question {i}", "a": answer} for i, answer in enumerate(ANSWERS)]
    path = tmp_path / f"rows.{ending}"
    match ending:
        case "jsonl":
            content: str | bytes = jsonl(rows)
        case "json":
            content = json.dumps(rows)
        case "csv":
            content = "q,a\n" + "".join(f"{row['q']},{row['a']}\n" for row in rows)
        case _:
            table = {"q": [row["q"] for row in rows], "a": pa.array(ANSWERS, pa.float64(), from_pandas=True)}
            pq.write_table(pa.table(table), path)
            content = path.read_bytes()
    found = loaded(task(tmp_path, path.name, content, GENERATION))
    assert [e.completion for e in examples(found)] == [str(i) for i in range(20) if i % 4]
    where = {"jsonl": "line 1", "csv": "line 2"}.get(ending, "row 1")
    assert found.left_out == (f"{path.name}: 5 of 20 rows are left out: 'a' is empty or missing (first: {where})",)
    if ending != "csv":  # where NaN is a text like any other
        assert loaded(task(tmp_path, path.name, content, GENERATION, reader={"missing": []})).left_out == found.left_out


@pytest.mark.parametrize("text", ["nan", "NaN", "NaT", "None", "<NA>"])
def test_what_programs_write_for_missing_is_missing_unless_the_task_says_otherwise(tmp_path: Path, text: str) -> None:
    rows = [{"q": f"question {i}", "a": text if i == 3 else f"answer {i}"} for i in range(20)]
    found = loaded(task(tmp_path, "rows.jsonl", jsonl(rows), GENERATION))
    assert len(examples(found)) == 19 and text not in {e.completion for e in examples(found)}
    kept = loaded(task(tmp_path, "rows.jsonl", jsonl(rows), GENERATION, reader={"missing": []}))
    assert len(examples(kept)) == 20
    labels = {text: "nothing", "x": "something"}
    named = [{"q": f"question {i}", "a": text if i % 2 else "x"} for i in range(20)]
    classes = {**GENERATION, "kind": "classification", "completion": "{label_word}", "label": "a", "labels": labels}
    assert len(examples(loaded(task(tmp_path, "rows.jsonl", jsonl(named), classes)))) == 20, "it is a label here"


def test_rows_that_are_left_out_are_told_with_reason_file_and_first_line(tmp_path: Path) -> None:
    rows = [f"text {i},{'' if i in (4, 7) else 'tech'}" for i in range(30)]
    path = task(tmp_path, "rows.csv", "body,team\n" + "\n".join(rows), CLASSES)
    line = "rows.csv: 2 of 30 rows are left out: 'team' is empty or missing (first: line 6)"
    with pytest.warns(UserWarning, match=f"task 'own': {line}".replace("(", r"\(").replace(")", r"\)")):
        assert data.load(path).left_out == (line,)
    assert list(check.lines(check.tasks([trial(path, train_examples=20)]))) == [f"task 'own': {line}"]


def test_many_rows_left_out_are_an_error_before_the_first_trial(tmp_path: Path) -> None:
    rows = [f"text {i},{'' if i < 4 else 'tech'}" for i in range(30)]
    content = "body,team\n" + "\n".join(rows)
    path = task(tmp_path, "rows.csv", content, CLASSES)
    with pytest.raises(InputError, match=r"4 of 30 rows are left out.*first: line 2.*10% may be left out at most"):
        check.tasks([trial(path, train_examples=20)])
    path = task(tmp_path, "rows.csv", content, CLASSES, reader={"max_left_out": 0.2})
    assert [notice.rows for notice in check.tasks([trial(path, train_examples=20)])["own"]] == [4]


def test_a_training_split_smaller_than_the_budget_is_an_error_before_the_first_trial(tmp_path: Path) -> None:
    path = task(tmp_path, "rows.csv", "body,team\n" + "".join(f"text {i},tech\n" for i in range(10)), CLASSES)
    assert check.tasks([trial(path, train_examples=6)]) == {"own": ()}
    with pytest.raises(InputError, match=r"budget.train_examples: 7 are asked for, and task 'own' has 6"):
        check.tasks([trial(path, train_examples=7)])


def test_alpaca_rows_without_an_input_are_examples(tmp_path: Path) -> None:
    rows: list[dict[str, str]] = [{"instruction": f"do {i}", "input": f"with {i}", "output": "done"} for i in range(6)]
    rows += [{"instruction": f"say {i}", "input": "", "output": "said"} for i in range(4)]
    rows += [{"instruction": f"go {i}", "output": "gone"} for i in range(4)]
    alpaca = {**GENERATION, "prompt": "{instruction}\nInput: {input}\n", "completion": "{output}"}
    found = loaded(task(tmp_path, "rows.json", json.dumps(rows), alpaca))
    assert len(examples(found)) == 14 and found.left_out == ()
    assert "say 1\nInput: \n" in {e.prompt for e in examples(found)}
    none = task(tmp_path, "rows.json", json.dumps(rows), alpaca, optional=[])
    assert loaded(none).left_out == (
        "rows.json: 8 of 14 rows are left out: 'input' is empty or missing (first: row 7)",
    )


def test_a_task_says_which_fields_may_be_empty(tmp_path: Path) -> None:
    rows = [{"q": f"question {i}", "hint": "" if i % 2 else "think", "a": "yes"} for i in range(10)]
    changed = {**GENERATION, "prompt": "{q} {hint}"}
    assert len(examples(loaded(task(tmp_path, "r.jsonl", jsonl(rows), changed)))) == 5
    assert len(examples(loaded(task(tmp_path, "r.jsonl", jsonl(rows), changed, optional=["hint"])))) == 10
    with pytest.raises(InputError, match="optional: unknown name 'hitn'; did you mean 'hint'"):
        data.load(task(tmp_path, "r.jsonl", jsonl(rows), changed, optional=["hitn"]))


def test_lines_that_the_pattern_does_not_match_are_counted(tmp_path: Path) -> None:
    content = "".join(f"question {i} = answer {i}\n" for i in range(9)) + "\nno answer here\n"
    reader = {"format": "lines", "pattern": "(?P<q>.+) = (?P<a>.+)"}
    found = loaded(task(tmp_path, "r.txt", content, GENERATION, reader=reader))
    told = "r.txt: 1 of 10 rows are left out: reader.pattern does not match (first: line 11)"
    assert found.left_out == (told,)


# --- separated text --------------------------------------------------------------------------------------------------

LINE = "has {} values than columns, {} for 3"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["0,my invoice", "please help,billing", "1,text,tech"], "line 2 " + LINE.format("fewer", 2) + " (and 1 more"),
        (["0,text,tech", "1,a, b,tech"], "line 3 " + LINE.format("more", 4)),
        (
            ["0,text,tech", '1,"text,tech', "2,text,tech"],
            "line 3: a quotation mark opens in this row and is never closed",
        ),
        (
            ["0,text,tech", '1,"a screen,tech', "2,text,billing", '3,a 15" screen,tech'],
            "line 3: ',' expected after '\"'",
        ),
        (
            ["0,text,tech", '1,"a screen,tech', "2,text,billing", '3,a screen",tech', "4,text,tech", "5,text,billing"],
            "line 3: a quotation mark opens in this row and closes in line 5",
        ),
    ],
)
def test_a_row_that_lost_gained_or_swallowed_values_is_told_with_its_line(
    tmp_path: Path, rows: list[str], message: str
) -> None:
    with pytest.raises(InputError) as told:
        data.load(task(tmp_path, "rows.csv", "id,body,team\n" + "\n".join(rows) + "\n", CLASSES))
    assert f"rows.csv: cannot be read as csv: {message}" in str(told.value) and "\n" not in str(told.value)


@pytest.mark.parametrize(("ending", "separator"), [("csv", ","), ("tsv", "\t")])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_quoted_values_hold_line_breaks_separators_and_marks(
    tmp_path: Path, ending: str, separator: str, line_end: str
) -> None:
    value = f'"Dear team,{line_end}{line_end}a ""quoted""{separator} word{line_end}Bob"'
    rows = ["body" + separator + "team", *(f"text {i}{separator}tech" for i in range(6)), value + separator + "billing"]
    found = loaded(task(tmp_path, f"rows.{ending}", line_end.join(rows), CLASSES))
    assert len(examples(found)) == 7
    (letter,) = [e.prompt for e in examples(found) if e.label == 0]
    assert letter == f'Dear team,\n\na "quoted"{separator} word\nBob'


def test_bare_marks_in_a_corpus_with_tabs_are_text(tmp_path: Path) -> None:
    rows = ["body\tteam", '"Who is it?" he said\ttech', '"Hi."\ttech', *(f'a 15" screen {i}\ttech' for i in range(5))]
    found = loaded(task(tmp_path, "rows.tsv", "\n".join(rows), CLASSES))
    assert {'"Who is it?" he said', '"Hi."', 'a 15" screen 0'} <= {e.prompt for e in examples(found)}
    quoted = loaded(
        task(tmp_path, "rows.tsv", "\n".join([*rows[:1], '"Hi."\ttech', *rows[3:]]), CLASSES, reader={"quotes": True})
    )
    assert "Hi." in {e.prompt for e in examples(quoted)}


def test_a_column_that_is_named_twice_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the column 'body' is there twice"):
        data.load(task(tmp_path, "rows.csv", "body,body,team\na,b,tech\n", CLASSES))


ROWS = "body,team\n" + "".join(f"Grüße {i},tech\n" for i in range(6))


@pytest.mark.parametrize(
    ("encoding", "told"),
    [
        ("utf-8-sig", None),
        ("utf-16", None),
        ("utf-16-le", "rows.csv: .*is not utf-8; set reader.encoding|it holds zero bytes.*set reader.encoding"),
        ("latin-1", "rows.csv: byte 12 is not utf-8; set reader.encoding"),
    ],
)
def test_encodings_work_or_are_named(tmp_path: Path, encoding: str, told: str | None) -> None:
    path = task(tmp_path, "rows.csv", ROWS.encode(encoding), CLASSES)
    if told is not None:
        with pytest.raises(InputError, match=told):
            data.load(path)
        path = task(tmp_path, "rows.csv", ROWS.encode(encoding), CLASSES, reader={"encoding": encoding})
    assert {e.prompt for e in examples(loaded(path))} == {f"Grüße {i}" for i in range(6)}


def test_json_with_a_byte_order_mark(tmp_path: Path) -> None:
    content = json.dumps([{"q": f"q {i}", "a": "x"} for i in range(6)]).encode("utf-8-sig")
    assert len(examples(loaded(task(tmp_path, "rows.json", content, GENERATION)))) == 6


@pytest.mark.parametrize(
    ("line", "message"),
    [('{"q": "x", ', "line 3: "), ("[1, 2]", "line 3: an object with the columns' names is expected, not [1, 2]")],
)
def test_a_broken_line_of_json_is_told_with_its_number(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(InputError) as told:
        data.load(task(tmp_path, "r.jsonl", jsonl([{"q": "a", "a": "b"}]) + "\n" + line, GENERATION))
    assert f"r.jsonl: cannot be read as jsonl: {message}" in str(told.value)


# --- lists and labels ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (["x", "y"], "line 4: column 'a' is a list, not a text: [\"x\", \"y\"]; name it in 'references'"),
        ({"text": "x"}, 'line 4: column \'a\' is an object, not a text: {"text": "x"}; take a part of it'),
    ],
)
def test_a_list_or_an_object_is_no_text(tmp_path: Path, answer: Any, message: str) -> None:
    rows = [{"q": f"q {i}", "a": answer if i == 3 else "x"} for i in range(6)]
    with pytest.raises(InputError) as told:
        data.load(task(tmp_path, "r.jsonl", jsonl(rows), GENERATION))
    assert f"task 'own': r.jsonl: {message}" in str(told.value)


@pytest.mark.parametrize("ending", ["jsonl", "csv"])
def test_a_list_is_several_references_where_the_task_asks_for_it(tmp_path: Path, ending: str) -> None:
    rows = [{"q": f"q {i}", "a": ["yes", "YES", "of course", None]} for i in range(6)]
    cells = '"[""yes"", ""YES"", ""of course"", null]"'
    content = jsonl(rows) if ending == "jsonl" else "q,a\n" + "".join(f"q {i},{cells}\n" for i in range(6))
    found = loaded(task(tmp_path, f"r.{ending}", content, GENERATION, references="a"))
    assert {e.references for e in found.test} == {("yes", "of course")}
    assert sorted(e.completion for e in found.train) == ["of course"] * 2 + ["yes"] * 2


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            "tech ",
            "rows.csv: line 7: field 'team': unknown name 'tech '; did you mean 'tech'? valid: 'billing', 'tech'",
        ),
        ("Tech", "rows.csv: line 7: field 'team': unknown name 'Tech'; did you mean 'tech'? valid: 'billing', 'tech'"),
        ("7", "rows.csv: line 7: field 'team': unknown name '7'; valid: billing, tech"),
    ],
)
def test_a_label_that_is_none_is_told_with_its_line_and_the_valid_ones(
    tmp_path: Path, value: str, message: str
) -> None:
    rows = "".join(f"text {i},{value if i == 5 else 'tech'}\n" for i in range(9))
    with pytest.raises(InputError) as told:
        data.load(task(tmp_path, "rows.csv", "body,team\n" + rows, CLASSES))
    assert message in str(told.value)


def test_labels_that_became_floats_or_truth_values_are_found(tmp_path: Path) -> None:
    rows = "".join(f"text {i},{i % 2}.0\n" for i in range(9))
    numbers = loaded(task(tmp_path, "r.csv", "body,team\n" + rows, CLASSES, labels={"0": "bad", "1": "good"}))
    assert {e.prompt: e.label for e in examples(numbers)} == {f"text {i}": i % 2 for i in range(9)}
    truths = jsonl([{"body": f"text {i}", "team": i % 2 == 1} for i in range(9)])
    found = loaded(task(tmp_path, "r.jsonl", truths, CLASSES, labels={"False": "bad", "True": "good"}))
    assert {e.prompt: e.label for e in examples(found)} == {f"text {i}": i % 2 for i in range(9)}


def test_a_reference_without_a_match_of_answer_pattern_is_told_with_its_line(tmp_path: Path) -> None:
    rows = [{"q": f"q {i}", "a": "it is #### none" if i == 2 else f"it is #### {i}"} for i in range(6)]
    with pytest.raises(InputError, match=r"r.jsonl: line 3: answer_pattern finds nothing in the right answer 'it is"):
        data.load(task(tmp_path, "r.jsonl", jsonl(rows), GENERATION, answer_pattern=r"####\s*(\d*)"))
    rows[2]["a"] = "#### 2"
    spec = loaded(task(tmp_path, "r.jsonl", jsonl(rows), GENERATION, answer_pattern=r"####\s*(\d*)")).spec
    assert (spec.scored_part("#### 1"), spec.scored_part("#### x"), spec.scored_part("banana")) == ("1", "", "")


# --- what repeats ----------------------------------------------------------------------------------------------------


def test_rows_that_repeat_others_are_said(tmp_path: Path) -> None:
    rows = [f"text {i},tech" for i in range(8)] + ["text 0,tech", "TEXT 1,billing"]
    found = loaded(task(tmp_path, "rows.csv", "body,team\n" + "\n".join(rows), CLASSES))
    assert [str(notice) for notice in found.notices] == [
        "rows.csv: 1 of 10 rows repeat another row and count once (first: line 10)",
        "rows.csv: 1 of 10 rows give another row's input another label; the first row counts (first: line 11)",
    ]
    assert found.left_out == ()


def test_inputs_that_stand_in_two_files_are_said(tmp_path: Path) -> None:
    for name, numbers in {"train": range(8), "dev": range(6, 12), "test": range(11, 15)}.items():
        (tmp_path / f"{name}.csv").write_text("body,team\n" + "".join(f"text {i},tech\n" for i in numbers))
    splits = {"train": "train.csv", "validation": "dev.csv", "test": "test.csv"}
    path = task(tmp_path, "x", "", CLASSES, splits=splits)
    Path(path).write_text(Path(path).read_text().replace("local: x", "local: ."))
    assert [str(notice) for notice in loaded(path).notices] == [
        "dev.csv: 1 of 6 rows have an input of the test split and count there alone (first: line 7)",
        "train.csv: 2 of 8 rows have an input of the validation split and count there alone (first: line 8)",
    ]


def test_rows_of_other_tasks_in_the_file_are_no_loss(tmp_path: Path) -> None:
    kinds = ["a", "b", "c"] * 10
    pd.DataFrame({"kind": kinds, "q": [f"q{i}" for i in range(30)], "a": ["x"] * 30}).to_csv(tmp_path / "d.csv")
    (tmp_path / "t.yaml").write_text(
        "name: t\nkind: generation\nsource: {local: d.csv}\nwhere: {kind: [a, b]}\n"
        'prompt: "{q}"\ncompletion: "{a}"\nsplits: {validation: 4, test: 4}\n'
    )
    task = data.load(str(tmp_path / "t.yaml"))
    assert len(task.train) == 12 and task.left_out == ()
    told = [str(one) for one in task.notices]
    assert told == ["d.csv: 10 of 30 rows do not belong to the task by 'kind' (first: line 4)"]
    (tmp_path / "t.yaml").write_text((tmp_path / "t.yaml").read_text().replace("where: {kind", "where: {sort"))
    with pytest.raises(InputError, match=r"unknown name 'sort'.*columns: .*'kind'"):
        data.load(str(tmp_path / "t.yaml"))

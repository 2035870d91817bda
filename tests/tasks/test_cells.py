"""Cells as programs write them: one word in several forms, values that are none, and names that are there twice."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.own_tasks import DIALOGUE, GENERATION, PAIRS, SPLITS, examples, jsonl, refused, task, texts

from harness.tasks import data, keys
from harness.tasks.metrics.numbers import number
from harness.tasks.overview import overview
from harness.tasks.spec import load_spec

COMPOSED, APART = "caf\u00e9", "cafe\u0301"
ROWS = range(20)
CHOICES: dict[str, Any] = {"kind": "multiple_choice", "prompt": "{q}", "choices": "c", "label": "a", "splits": SPLITS}


def rows_of(a: Callable[[int], Any], **more: Any) -> str:
    return jsonl([{"q": f"q {i}", "a": a(i), **more} for i in ROWS])


def labelled(labels: dict[str, str], **changes: Any) -> dict[str, Any]:
    return {"kind": "classification", "prompt": "{q}", "label": "a", "labels": labels, "splits": SPLITS, **changes}


def noticed(path: str) -> list[str]:
    seen = overview(path)
    return [*seen.left_out, *seen.remarks]


# --- one word in several forms ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "names", "key"),
    [
        ("a", ("a", "b"), "a"),
        ("1.0", ("0", "1"), "1"),
        ("1", ("0.0", "1.0"), "1.0"),
        ("-1.00", ("-1", "1"), "-1"),
        ("1", ("1", "1.0"), "1"),
        ("1.5", ("1", "2"), None),
        ("01", ("1",), None),
        ("true", ("True", "False"), "True"),
        ("True", ("true", "false"), "true"),
        ("Yes", ("yes", "no"), None),
        ("true", ("TRUE", "True"), None),
        (APART, (COMPOSED, "tea"), COMPOSED),
        (COMPOSED, (APART,), APART),
        ("a ", ("a",), None),
        ("", ("a",), None),
    ],
)
def test_a_cell_is_the_word_that_it_stands_for(value: str, names: tuple[str, ...], key: str | None) -> None:
    assert keys.named(value, names) == key


@pytest.mark.parametrize(
    ("labels", "cell"),
    [
        ({"0.0": "no", "1.0": "yes"}, lambda i: i % 2),
        ({"0": "no", "1": "yes"}, lambda i: float(i % 2)),
        ({"False": "no", "True": "yes"}, lambda i: bool(i % 2)),
        ({"tea": "no", COMPOSED: "yes"}, lambda i: APART if i % 2 else "tea"),
        ({"tea": "no", APART: "yes"}, lambda i: COMPOSED if i % 2 else "tea"),
    ],
    ids=["floats", "integers", "truths", "composed", "apart"],
)
def test_a_label_is_found_in_every_form(tmp_path: Path, labels: dict[str, str], cell: Callable[[int], Any]) -> None:
    loaded = texts(task(tmp_path, "rows.jsonl", rows_of(cell), labelled(labels)))
    assert loaded == {(f"q {i}", "yes" if i % 2 else "no") for i in ROWS}


@pytest.mark.parametrize("labels", [{"1": "a", "1.0": "b"}, {COMPOSED: "a", APART: "b"}, {"true": "a", "True": "b"}])
def test_one_label_is_not_named_twice(tmp_path: Path, labels: dict[str, str]) -> None:
    assert "one and the same label" in refused(task(tmp_path, "rows.jsonl", rows_of(str), labelled(labels)))


def test_words_that_look_alike_are_one_word(tmp_path: Path) -> None:
    labels = {"0": COMPOSED, "1": APART}
    assert "the same word" in refused(task(tmp_path, "rows.jsonl", rows_of(lambda i: i % 2), labelled(labels)))


@pytest.mark.parametrize(("in_file", "in_task"), [(COMPOSED, APART), (APART, COMPOSED)])
def test_a_column_is_found_in_every_form(tmp_path: Path, in_file: str, in_task: str) -> None:
    content = f"{in_file},a\n" + "".join(f"q {i},a {i}\n" for i in range(6))
    by_name = task(tmp_path, "rows.csv", content, GENERATION, prompt=f"{{{in_task}}}")
    assert texts(by_name) == {(f"q {i}", f"a {i}") for i in range(6)}
    assert texts(task(tmp_path, "rows.csv", content, GENERATION, fields={"q": in_task})) == texts(by_name)


def test_values_of_where_and_choice_keys_are_found_in_every_form(tmp_path: Path) -> None:
    content = jsonl([{"q": f"q {i}", "a": f"a {i}", "year": 2020.5 if i % 4 else 2020.0} for i in ROWS])
    path = task(tmp_path, "rows.jsonl", content, GENERATION, where={"year": ["2020"]})
    assert len(examples(path)) == 5
    told = noticed(path)
    assert told == ["rows.jsonl: 15 of 20 rows do not belong to the task by 'year' (first: line 2)"]
    by_key = {**CHOICES, "choices": ["it is", "it is not"], "choice_keys": ["True", "False"]}
    loaded = examples(task(tmp_path, "rows.jsonl", rows_of(lambda i: bool(i % 2)), by_key))
    assert {e.completion for e in loaded if int(e.prompt[2:]) % 2} == {"it is"}


def test_too_few_inputs_say_which_rows_do_not_belong(tmp_path: Path) -> None:
    message = refused(task(tmp_path, "rows.jsonl", rows_of(str), GENERATION, where={"a": ["x"]}))
    assert message.endswith("0 are left; rows.jsonl: 20 of 20 rows do not belong to the task by 'a' (first: line 1)")


# --- what is no value ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", ["\u200b", "\ufeff", " \u200d ", "nan ", " None"])
def test_what_cannot_be_seen_is_no_answer(tmp_path: Path, cell: str) -> None:
    path = task(tmp_path, "rows.jsonl", rows_of(lambda i: cell if i == 3 else "x"), GENERATION)
    assert noticed(path) == ["rows.jsonl: 1 of 20 rows are left out: 'a' is empty or missing (first: line 4)"]
    assert len(examples(path)) == 19


@pytest.mark.parametrize("answers", [[], [None], ["", " "], [math.nan], ["nan"], ["\u200b", None]])
def test_a_list_without_an_answer_is_counted(tmp_path: Path, answers: list[Any]) -> None:
    content = rows_of(lambda i: answers if i == 3 else ["x", "y"])
    path = task(tmp_path, "rows.jsonl", content, GENERATION, references="a")
    assert noticed(path) == ["rows.jsonl: 1 of 20 rows are left out: 'a' is empty or missing (first: line 4)"]
    in_csv = "q,a\n" + "".join(f"q {i},{'[null]' if i == 3 else 'x'}\n" for i in ROWS)
    assert "1 of 20" in noticed(task(tmp_path, "rows.csv", in_csv, GENERATION, references="a"))[0]


@pytest.mark.parametrize("blank", ["  ", "\u200b", None])
def test_a_blank_choice_is_none(tmp_path: Path, blank: str | None) -> None:
    content = jsonl([{"q": f"q {i}", "c": ["x", blank if i == 3 else "y"], "a": 0} for i in ROWS])
    assert "1 of 20 rows are left out: 'c' is no list" in noticed(task(tmp_path, "rows.jsonl", content, CHOICES))[0]


def test_a_missing_label_is_no_class_of_a_recognised_file(tmp_path: Path) -> None:
    content = "text,label\n" + "".join(f"words {i},{('pos', 'neg', 'nan')[i % 3]}\n" for i in range(40))
    path = task(tmp_path, "rows.csv", content, {"kind": "auto"})
    assert load_spec(path).labels == {"neg": "neg", "pos": "pos"}
    assert noticed(path)[0].startswith("rows.csv: 13 of 40 rows are left out: 'label' is empty")


@pytest.mark.parametrize("name", ["label_word", "number", "choice"])
def test_a_recognised_column_may_be_called_like_a_field_of_answers(tmp_path: Path, name: str) -> None:
    for label, kind in (("label", "classification"), ("score", "regression")):
        cells = [i % 2 if label == "label" else i / 3 for i in range(40)]
        content = f"{name},{label}\n" + "".join(f"words {i},{cell}\n" for i, cell in enumerate(cells))
        path = task(tmp_path, "rows.csv", content, {"kind": "auto"})
        assert load_spec(path).kind == kind
        assert "words" in examples(path)[0].prompt


def test_a_file_with_one_label_is_no_plain_text(tmp_path: Path) -> None:
    content = "text,label\n" + "".join(f"words {i},x\n" for i in range(40))
    assert "write the kind" in refused(task(tmp_path, "rows.csv", content, {"kind": "auto"}))


@pytest.mark.parametrize("number", ["1e308", "-1e200", "inf", "nan_"])
def test_a_number_whose_square_is_none_is_refused(tmp_path: Path, number: str) -> None:
    content = "q,a\n" + "".join(f"q {i},{number if i == 3 else i}\n" for i in ROWS)
    regression = {"kind": "regression", "prompt": "{q}", "label": "a", "splits": SPLITS}
    assert f"line 5: field 'a': '{number}' is no number" in refused(task(tmp_path, "rows.csv", content, regression))


def test_the_minus_of_typography_is_a_minus(tmp_path: Path) -> None:
    regression = {"kind": "regression", "prompt": "{q}", "label": "a", "splits": SPLITS}
    content = "q,a\n" + "".join(f"q {i},\u2212{i + 1}\n" for i in range(6))
    assert {e.target for e in examples(task(tmp_path, "rows.csv", content, regression))} == {-1, -2, -3, -4, -5, -6}
    assert number("about \u22122.5 degrees") == -2.5


# --- what is there twice ---------------------------------------------------------------------------------------------


def _twice(folder: Path, ending: str) -> bytes:
    table = pa.Table.from_arrays([pa.array([str(i) for i in ROWS])] * 3, names=["q", "a", "a"])
    path = folder / f"made.{ending}"
    if ending == "parquet":
        pq.write_table(table, path)
    else:
        with pa.ipc.new_stream(str(path), table.schema) as stream:
            stream.write_table(table)
    return path.read_bytes()


@pytest.mark.parametrize("ending", ["jsonl", "json", "parquet", "arrow"])
def test_of_two_values_under_one_name_none_is_lost_in_silence(tmp_path: Path, ending: str) -> None:
    row = '{"q": "x", "a": "1", "a": "2"}'
    texts_of = {"jsonl": f"{row}\n", "json": f"[{row}]"}
    content = texts_of[ending] if ending in texts_of else _twice(tmp_path, ending)
    assert "'a' is" in (message := refused(task(tmp_path, f"rows.{ending}", content, GENERATION)))
    assert "twice" in message


def test_of_two_equal_choices_either_is_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The right one may be the second; a model finds both as likely, and the first is picked."""
    from helpers import toy_tasks

    from harness.tasks import evaluate

    content = jsonl([{"q": f"q {i}", "c": ["x", "y", "x"], "a": 2} for i in ROWS])
    loaded = data.load(task(tmp_path, "rows.jsonl", content, CHOICES))
    monkeypatch.setattr(evaluate, "pick_choices", lambda *_: ([0, 1], [1, 1]))
    tuned = SimpleNamespace(base=toy_tasks.base())
    result = evaluate._of_choices(tuned, loaded, "test", loaded.test, 32)  # type: ignore[arg-type]
    assert {one.metric: one.value for one in result.scores} == {"accuracy": 0.5, "accuracy_norm": 0.0}


def test_a_pair_of_equal_answers_is_told(tmp_path: Path) -> None:
    content = jsonl([{"prompt": f"q {i}", "chosen": "x", "rejected": "x " if i == 3 else "z"} for i in ROWS])
    told = noticed(task(tmp_path, "rows.jsonl", content, PAIRS))
    assert told == [
        "rows.jsonl: 1 of 20 rows have the same better and worse answer, so none of the two can be rated higher "
        "(first: line 4)"
    ]


@pytest.mark.parametrize(
    ("pattern", "answer", "is_told"),
    [
        (r"(####) (\d+)", lambda i: f"#### {i}", True),
        (r"####( ?)\d+|()", lambda i: f"#### {i}", False),
        (r"#### (\d+)", lambda i: f"#### {i}", False),
        (r"#### (\d+)", lambda _: "#### 5", False),
        (r"#### (\d+)", lambda i: f"{i} is #### 5", True),
    ],
)
def test_a_pattern_that_takes_the_same_from_every_answer_is_told(
    tmp_path: Path, pattern: str, answer: Callable[[int], str], is_told: bool
) -> None:
    path = task(tmp_path, "rows.jsonl", rows_of(answer), GENERATION, answer_pattern=pattern, metrics=["exact_match"])
    if pattern.endswith("()"):
        assert "finds nothing" in refused(path)
        return
    assert any("20 of 20 rows have the same scored part" in line for line in noticed(path)) == is_told


# --- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["arrow", "feather"])
def test_files_of_arrow_are_read_like_its_streams(tmp_path: Path, ending: str) -> None:
    table = pa.table({"q": [f"q {i}" for i in ROWS], "a": [None if i == 3 else f"a {i}" for i in ROWS]})
    with pa.ipc.new_file(str(tmp_path / f"rows.{ending}"), table.schema) as file:
        file.write_table(table)
    assert len(examples(task(tmp_path, f"rows.{ending}", None, GENERATION))) == 19


def test_bytes_of_an_image_are_no_text_and_disturb_nobody(tmp_path: Path) -> None:
    table = pa.table({"q": [f"q {i}" for i in ROWS], "a": ["x"] * 20, "image": [b"\xff\xd8\x00"] * 20})
    pq.write_table(table, tmp_path / "rows.parquet")
    assert len(examples(task(tmp_path, "rows.parquet", None, GENERATION))) == 20
    message = refused(task(tmp_path, "rows.parquet", None, GENERATION, prompt="{image}"))
    assert "row 1: column 'image' is bytes, not a text" in message
    message = refused(task(tmp_path, "rows.parquet", None, GENERATION, prompt="{q} {p}", fields={"p": "image"}))
    assert "column 'p' is bytes, not a text" in message


def test_a_row_with_equal_references_repeats_no_other_row(tmp_path: Path) -> None:
    rows = rows_of(lambda i: ["Yes", "yes", "YES", f"no {i}"])
    path = task(tmp_path, "rows.jsonl", rows, GENERATION, references="a")
    assert noticed(path) == []
    more = [{"q": "q 0", "a": ["no", "yes"]}, {"q": "q 1", "a": ["no", "perhaps"]}]
    again = rows_of(lambda i: ["Yes", "no"]) + jsonl(more)
    path = task(tmp_path, "rows.jsonl", again, GENERATION, references="a")
    assert noticed(path) == ["rows.jsonl: 1 of 22 rows repeat another row and count once (first: line 21)"]


@pytest.mark.parametrize("file", ["rows.csv", "rows.jsonl"])
def test_two_columns_of_one_name_in_two_forms_are_told(tmp_path: Path, file: str) -> None:
    content = f"{COMPOSED},{APART},a\n" + "".join(f"first {i},second {i},x\n" for i in ROWS)
    if file.endswith("jsonl"):
        content = jsonl([{COMPOSED: f"first {i}", APART: f"second {i}", "a": "x"} for i in ROWS])
    message = refused(task(tmp_path, file, content, GENERATION, prompt=f"{{{COMPOSED}}}"))
    assert f"the column '{COMPOSED}' is there twice" in message


def test_a_number_of_32_bits_is_the_shortest_that_gives_it(tmp_path: Path) -> None:
    numbers = pa.array([3.8, 0.1, None, 1e-7] * 5, pa.float32())
    pq.write_table(pa.table({"q": [f"q {i}" for i in ROWS], "a": numbers}), tmp_path / "rows.parquet")
    path = task(tmp_path, "rows.parquet", None, GENERATION, reader={"max_left_out": 0.5})
    assert {answer for _, answer in texts(path)} == {"3.8", "0.1", "0.0000001"}


def test_byte_order_marks_inside_a_file_are_no_text(tmp_path: Path) -> None:
    part = "q,a\n" + "".join(f"q {i},a {i}\n" for i in range(6))
    content = "\ufeff\ufeff" + part + "\ufeff" + part.partition("\n")[2]
    path = task(tmp_path, "rows.csv", content, GENERATION)
    assert texts(path) == {(f"q {i}", f"a {i}") for i in range(6)}
    assert noticed(path) == ["rows.csv: 6 of 12 rows repeat another row and count once (first: line 8)"]


# --- turns -----------------------------------------------------------------------------------------------------------


def _chat(folder: Path, turns: Callable[[int], Any]) -> str:
    content = jsonl([{"messages": turns(i)} for i in ROWS])
    return task(folder, "rows.jsonl", content, DIALOGUE, dialogue="messages")


def test_keys_that_a_typed_table_adds_to_a_turn_say_nothing(tmp_path: Path) -> None:
    def turns(i: int) -> list[Any]:
        asked = {"role": "user", "content": f"q {i}", "from": None, "value": None}
        return [asked, {"role": None, "content": None, "from": "gpt", "value": "x"}]

    assert texts(_chat(tmp_path, turns)) == {(f"q {i}", "x") for i in ROWS}


@pytest.mark.parametrize(
    "said", [None, [{"type": "text", "text": None}], [{"type": "text"}], [{"type": "image"}], ["hi"], {"text": "hi"}]
)
def test_a_turn_that_is_no_text_is_never_read_as_one(tmp_path: Path, said: Any) -> None:
    def turns(i: int) -> list[Any]:
        answer = {"role": "assistant", "content": "x"}
        return [{"role": "user", "content": said if i == 3 else f"q {i}"}, answer]

    assert "line 4: column 'messages'" in refused(_chat(tmp_path, turns))


def test_turns_behind_the_last_answer_are_told(tmp_path: Path) -> None:
    def turns(i: int) -> list[Any]:
        after = [{"role": "user", "content": "and now?"}] if i == 3 else []
        return [{"role": "user", "content": f"q {i}"}, {"role": "assistant", "content": "x"}, *after]

    path = _chat(tmp_path, turns)
    assert texts(path) == {(f"q {i}", "x") for i in ROWS}
    told = "rows.jsonl: 1 of 20 rows have turns behind the last answer, which are not read (first: line 4)"
    assert noticed(path) == [told]


# --- what gives the answer away --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"completion": "{a}: {label_word}"}, "completion: it gives the label away; leave 'a' to 'label'"),
        ({"prompt": "{q} {copy}", "fields": {"copy": "a"}}, "prompt: it gives the label away; leave 'copy' to 'label'"),
        ({"label": "y", "fields": {"y": "a"}, "prompt": "{q} {y}"}, "prompt: it gives the label away"),
        (
            {"prompt": "{q} {label_word}"},
            "prompt: it gives the label away: {label_word} is the right one",
        ),
    ],
)
def test_neither_a_copy_of_the_label_nor_its_sentence_gives_it_away(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    content = rows_of(lambda i: i % 2)
    assert message in refused(task(tmp_path, "rows.jsonl", content, labelled({"0": "a", "1": "b"}), **changes))


def test_the_key_of_a_choice_stands_in_no_answer(tmp_path: Path) -> None:
    content = jsonl([{"q": f"q {i}", "c": ["x", "y"], "a": i % 2} for i in ROWS])
    message = refused(task(tmp_path, "rows.jsonl", content, CHOICES, completion="{a}: {choice}"))
    assert "completion: it gives the answer away; leave 'a' to 'label'" in message


# --- YAML ------------------------------------------------------------------------------------------------------------


def test_own_words_win_over_merged_ones(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("q,a,1\n" + "".join(f"q {i},{i % 2},x\n" for i in ROWS))
    (tmp_path / "task.yaml").write_text(
        "name: own\nkind: classification\nsource: {local: rows.csv}\nprompt: '{q}'\n<<: {label: 1}\n"
        "label: a\nlabels: {<<: {0: 5, 1: 6}, 1: 7}\nsplits: {validation: 2, test: 2}\n"
    )
    assert {e.completion for e in examples(str(tmp_path / "task.yaml"))} == {"5", "7"}


def test_the_ending_of_a_tasks_name_may_be_in_capitals(tmp_path: Path) -> None:
    path = Path(task(tmp_path, "rows.jsonl", rows_of(str), GENERATION)).rename(tmp_path / "TASK.YAML")
    assert len(examples(str(path))) == 20

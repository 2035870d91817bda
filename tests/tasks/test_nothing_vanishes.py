"""What a row or a file holds is read, or somebody is told: no word of a user's data vanishes or becomes another."""

from __future__ import annotations

import gzip
import json
import warnings
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import own_tasks as own

from harness.tasks import data

ONE_EACH = {"validation": 1, "test": 1}
ANSWERS: dict[str, Any] = {**own.GENERATION, "splits": ONE_EACH}
CHOICES: dict[str, Any] = {"kind": "multiple_choice", "prompt": "{q}", "label": "r", "splits": ONE_EACH}


def rows(*given: dict[str, Any]) -> str:
    return own.jsonl(list(given))


def notices(path: str) -> list[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the rows that are left out
        return [str(notice) for notice in data.load(path).notices]


# --- answers ---------------------------------------------------------------------------------------------------------


def options(*texts: str | None) -> list[dict[str, str]]:
    return [{"key": key, **({} if text is None else {"text": text})} for key, text in zip("ABCD", texts, strict=False)]


def test_a_choice_without_a_text_does_not_move_the_right_one(tmp_path: Path) -> None:
    whole = [{"q": f"q{n}", "o": options("a", "b", "c", "d"), "r": "C"} for n in range(4)]
    content = rows(*whole, {"q": "q4", "o": options("a", None, "c", "d"), "r": "C"})
    path = own.task(tmp_path, "rows.jsonl", content, CHOICES, choices="o.text", choice_keys="o.key")
    assert notices(path) == [
        "rows.jsonl: 1 of 5 rows are left out: 'o.text' is no list of at least two texts (first: line 5)"
    ]
    assert {one.completion for one in own.examples(path)} == {"c"}


def test_keys_that_are_more_than_the_choices_are_refused(tmp_path: Path) -> None:
    content = rows(*({"q": f"q{n}", "o": ["a", "b"], "k": ["A", "B", "C"], "r": "B"} for n in range(4)))
    path = own.task(tmp_path, "rows.jsonl", content, CHOICES, choices="o", choice_keys="k")
    assert own.refused(path).endswith("rows.jsonl: line 1: 'k' has 3 keys for 2 choices")


def test_choices_by_their_names_are_right_in_any_order(tmp_path: Path) -> None:
    content = rows(
        *({"q": f"q{n}", "o": {"A": "a", "B": "b", "C": "c"}, "r": "A"} for n in range(3)),
        {"q": "q3", "o": {"B": "b", "A": "a", "C": "c"}, "r": "A"},
    )
    path = own.task(tmp_path, "rows.jsonl", content, CHOICES, choices="o.*", choice_keys=["A", "B", "C"])
    assert {one.completion for one in own.examples(path)} == {"a"}


def test_an_empty_answer_among_several_is_told(tmp_path: Path) -> None:
    content = rows(*({"q": f"q{n}", "t": [{"lex": f"one {n}"}, {"lex": f"two {n}"}]} for n in range(4)),
                   {"q": "q4", "t": [{"lex": "one"}, {}]})  # fmt: skip
    path = own.task(tmp_path, "rows.jsonl", content, ANSWERS, fields={"a": "t.lex"}, references="a")
    assert notices(path) == [
        "rows.jsonl: 1 of 5 rows have an empty answer in 'a', which counts as none (first: line 5)"
    ]


def test_the_sequence_without_a_list_has_no_rows_and_takes_none_away(tmp_path: Path) -> None:
    items = [{"q": f"q{n}", "a": f"a{n}"} for n in range(4)]
    content = json.dumps({"data": [{"items": items[:2]}, {"name": "empty"}, {"items": items[2:]}]})
    path = own.task(tmp_path, "rows.json", content, ANSWERS, reader={"records": "data.items"})
    assert own.texts(path) == {(one["q"], one["a"]) for one in items}


def test_inputs_that_are_alike_are_told(tmp_path: Path) -> None:
    pairs = [("What is 8²?", "64"), ("What is 82?", "82"), ("Who?", "a"), ("Where?", "b"), ("Where?  ", "c")]
    path = own.task(tmp_path, "rows.jsonl", rows(*({"q": q, "a": a} for q, a in pairs)), ANSWERS)
    (told,) = notices(path)
    assert "1 of 5 rows differ from another row's input in case, white space, the form of signs" in told
    assert told.endswith("(first: line 2)"), "a second answer to the very same prompt is a reference"


def test_questions_about_one_passage_are_told(tmp_path: Path) -> None:
    content = rows(*({"p": f"p{n // 2}", "q": f"q{n}", "a": f"a{n}"} for n in range(6)))
    path = own.task(tmp_path, "rows.jsonl", content, ANSWERS, prompt="{p} {q}", input=["p"])
    (told,) = notices(path)
    assert "3 of 6 rows differ" in told and "what is not in 'input'" in told


# --- columns ---------------------------------------------------------------------------------------------------------


def test_a_column_of_the_fields_name_is_not_the_field(tmp_path: Path) -> None:
    content = rows(*({"q": f"q{n}", "a": "guess", "gold": f"g{n}"} for n in range(3)), {"q": "q3", "a": "guess"})
    path = own.task(tmp_path, "rows.jsonl", content, ANSWERS, fields={"a": "gold"})
    assert own.texts(path) == {(f"q{n}", f"g{n}") for n in range(3)}
    assert notices(path) == ["rows.jsonl: 1 of 4 rows are left out: 'a' is empty or missing (first: line 4)"]


def test_an_expression_that_finds_nothing_leaves_no_old_text(tmp_path: Path) -> None:
    content = rows(*({"q": f"q{n}", "a": f"so #### {n}"} for n in range(3)), {"q": "q3", "a": "so it is 3"})
    path = own.task(tmp_path, "rows.jsonl", content, ANSWERS, extract={"a": "#### (?P<a>.+)"})
    assert own.texts(path) == {(f"q{n}", str(n)) for n in range(3)}
    assert notices(path) == [
        "rows.jsonl: 1 of 4 rows are left out: the expression of extract.a finds no 'a' (first: line 4)"
    ]


def test_the_expression_that_finds_a_part_gives_it(tmp_path: Path) -> None:
    content = rows(*({"q": f"q{n}", "x": "", "y": f"={n}"} for n in range(2)), {"q": "q2", "x": "=2", "y": ""})
    path = own.task(tmp_path, "rows.jsonl", content, ANSWERS, extract={"x": "=(?P<a>.)", "y": "=(?P<a>.)"})
    assert own.texts(path) == {(f"q{n}", str(n)) for n in range(3)}


@pytest.mark.parametrize(("column", "is_told"), [("Input", True), ("inputs", True), ("Notes", False)])
def test_an_optional_column_may_be_missing_but_not_misspelt(tmp_path: Path, column: str, is_told: bool) -> None:
    given = {**ANSWERS, "prompt": "{instruction} {input}", "completion": "{output}"}
    content = f"instruction,{column},output\n" + "".join(f"do {n},word {n},done {n}\n" for n in range(4))
    path = own.task(tmp_path, "rows.csv", content, given)
    if is_told:
        assert f"unknown name 'input'; did you mean '{column}'?" in own.refused(path)
    else:
        assert own.texts(path) == {(f"do {n} ", f"done {n}") for n in range(4)}


# --- files -----------------------------------------------------------------------------------------------------------

MARKED: dict[str, Any] = {**own.CLASSES, "prompt": "{text}", "reader": {"format": "xml", "records": "s"}}
XML = """<r><s team="tech">We hated <b>the food</b></s><s team="billing">We <b>loved</b> it</s>
<s team="billing">Fine</s><s team="tech">Bad</s><s team="tech">Worse</s></r>"""


def test_marks_in_a_text_are_part_of_it_also_at_its_end(tmp_path: Path) -> None:
    read = {prompt for prompt, _ in own.texts(own.task(tmp_path, "rows.xml", XML, MARKED))}
    assert read == {"We hated the food", "We loved it", "Fine", "Bad", "Worse"}


@pytest.mark.parametrize("second", ['<s team="tech" text="x">own</s>', '<s team="tech">own<text>x</text></s>'])
def test_a_text_that_stands_there_twice_is_refused(tmp_path: Path, second: str) -> None:
    message = own.refused(own.task(tmp_path, "rows.xml", f"<r>{second}</r>", MARKED))
    assert "an element 's' has 'text' twice, as its own text and as an attribute or a child" in message


def test_every_xml_file_of_a_folder_is_read_and_others_are_told(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()

    def xml(*numbers: int) -> str:
        return "<r>" + "".join(f"<s><q>q{n}</q><a>a{n}</a></s>" for n in numbers) + "</r>"

    (tmp_path / "d" / "a.xml").write_text(xml(0, 1))
    (tmp_path / "d" / "b.XML").write_text(xml(2))
    (tmp_path / "d" / "c.xml.gz").write_bytes(gzip.compress(xml(3).encode()))
    (tmp_path / "d" / "readme.txt").write_text("no rows")
    reader = {"format": "xml", "records": "s", "max_left_out": 0.5}
    path = own.task(tmp_path, "d", None, ANSWERS, reader=reader)
    assert notices(path) == ["d: 1 of 5 rows are left out: no XML file (first: readme.txt)"]
    assert own.texts(path) == {(f"q{n}", f"a{n}") for n in range(4)}


def test_what_another_file_takes_from_the_training_rows_is_told(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    for name, numbers in (("train", range(5)), ("dev", range(3, 6))):
        (tmp_path / "d" / f"{name}.jsonl").write_text(rows(*({"q": f"q{n}", "a": f"a{n}"} for n in numbers)))
    splits = {"train": "train.jsonl", "validation": 1, "test": 2}
    path = own.task(tmp_path, "d", None, own.GENERATION, splits=splits, reader={"file": "dev.jsonl"})
    told = notices(path)
    assert len(told) == 2 and all("train.jsonl: " in one and "and count there alone" in one for one in told), told
    drawn = own.task(tmp_path, "d", None, own.GENERATION, splits={**splits, "test": 1}, reader={"file": "train.jsonl"})
    assert data.load(drawn).notices == (), "what is drawn from a file is no loss of it"


def test_the_header_again_is_no_row(tmp_path: Path) -> None:
    content = "q,a\none,yes\ntwo,no\nQ,A\nthree,maybe\nfour,so\n"
    path = own.task(tmp_path, "rows.csv", content, {**ANSWERS, "reader": {"max_left_out": 0.5}})
    assert notices(path) == [
        "rows.csv: 1 of 5 rows are left out: the names of the columns stand there again (first: line 4)"
    ]
    assert ("Q", "A") not in own.texts(path)


def test_quotation_marks_behind_a_blank_enclose_a_value(tmp_path: Path) -> None:
    content = 'q, a\none, "yes, or so"\ntwo, "no"\nthree, "maybe"\nfour, so\n'
    path = own.task(tmp_path, "rows.csv", content, ANSWERS)
    assert own.texts(path) == {("one", "yes, or so"), ("two", "no"), ("three", "maybe"), ("four", "so")}


@pytest.mark.parametrize("ending", ["\r", "\n"])
def test_the_line_ends_of_old_macs_are_read(tmp_path: Path, ending: str) -> None:
    content = "\r".join(["q,a", *(f"q{n},a{n}" for n in range(4))]) + ending
    path = own.task(tmp_path, "rows.csv", content.encode(), ANSWERS)
    assert own.texts(path) == {(f"q{n}", f"a{n}") for n in range(4)}


def test_half_a_surrogate_pair_among_choices_is_told(tmp_path: Path) -> None:
    content = rows(*({"q": f"q{n}", "o": ["a", "b\ud800"], "r": "1"} for n in range(4)))
    path = own.task(tmp_path, "rows.jsonl", content, CHOICES, choices="o")
    assert "column 'o' holds half of a surrogate pair" in own.refused(path)


def test_a_short_number_is_the_shortest_also_inside_objects_and_lists(tmp_path: Path) -> None:
    single = pa.float32()
    kind = pa.struct({"s": single, "several": pa.list_(single)})
    values = [{"s": 3.8 + n, "several": [0.1, None]} for n in range(4)]
    table = pa.table({"q": [f"q{n}" for n in range(4)], "x": pa.array([*values[:3], None], kind), "a": ["a"] * 4})
    pq.write_table(table, tmp_path / "rows.parquet")
    changes = {"fields": {"s": "x.s", "l": "x.several"}, "prompt": "{q} {s} {l}", "join": {"l": {}}}
    path = own.task(tmp_path, "rows.parquet", None, ANSWERS, **changes, reader={"max_left_out": 0.5})
    assert {prompt for prompt, _ in own.texts(path)} == {f"q{n} {3.8 + n} 0.1" for n in range(3)}


@pytest.mark.parametrize(
    ("number", "text"),
    [(0.00001, "0.00001"), (2e-7, "0.0000002"), (1e22, "1" + "0" * 22), (2.5, "2.5"), (-3e-5, "-0.00003")],
)
def test_numbers_are_written_as_people_write_them(tmp_path: Path, number: float, text: str) -> None:
    content = rows(*({"q": f"q{n}", "a": number} for n in range(4)))
    assert {a for _, a in own.texts(own.task(tmp_path, "rows.jsonl", content, ANSWERS))} == {text}


def test_decimals_are_written_as_people_write_them(tmp_path: Path) -> None:
    decimals = pa.array([Decimal("0.00000001"), Decimal("1.50"), Decimal(2), Decimal(3)], pa.decimal128(12, 8))
    pq.write_table(pa.table({"q": ["a", "b", "c", "d"], "a": decimals}), tmp_path / "rows.parquet")
    answers = dict(own.texts(own.task(tmp_path, "rows.parquet", None, ANSWERS)))
    assert answers == {"a": "0.00000001", "b": "1.50000000", "c": "2.00000000", "d": "3.00000000"}


# --- dialogues -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"tool_calls": [{"id": "1"}]}, "a turn calls a tool"),
        ({"function_call": {"name": "f"}}, "a turn calls a tool"),
        ({"weight": 0}, "a turn has the weight 0, and every answer is learnt"),
    ],
)
def test_what_turns_say_beside_their_words_is_refused(tmp_path: Path, more: dict[str, Any], told: str) -> None:
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}]
    usual: list[dict[str, Any]] = [{**turns[0], "tool_calls": None}, {**turns[1], "weight": 1, "tool_calls": None}]
    content = [{"m": [{**usual[0], "content": f"Hi {n}"}, usual[1]]} for n in range(6)]
    assert len(own.texts(own.task(tmp_path, "rows.jsonl", own.jsonl(content), own.DIALOGUE, dialogue="m"))) == 6
    content.append({"m": [turns[0], {**turns[1], **more}]})
    assert told in own.refused(own.task(tmp_path, "rows.jsonl", own.jsonl(content), own.DIALOGUE, dialogue="m"))


def transcript(question: str, answer: str) -> str:
    return f"\n\nHuman: {question}\n\nAssistant: {answer}"


def test_transcripts_of_two_dialogues_and_of_none_are_told(tmp_path: Path) -> None:
    pairs = [(transcript(f"q {n}", f"good {n}"), transcript(f"q {n}", f"bad {n}")) for n in range(12)]
    pairs += [(transcript("q 12", "good"), transcript("something else", "bad"))]
    pairs += [(transcript("q 13", "good\n\nHuman: thanks!"), transcript("q 13", "bad"))]
    pd.DataFrame(pairs, columns=["chosen", "rejected"]).to_json(tmp_path / "rows.jsonl", orient="records", lines=True)
    path = tmp_path / "task.yaml"
    path.write_text("name: own\nsource: {local: rows.jsonl}\nkind: auto\nreader: {max_left_out: 0.5}\n")
    with pytest.warns(UserWarning):
        loaded = data.load(str(path))
    assert "2 of 14 pairs are answers to two different dialogues" in str(loaded.spec.taken_for)
    assert [str(one) for one in loaded.left_out] == [
        "rows.jsonl: 1 of 14 rows are left out: the expression of extract.chosen finds no 'better' (first: line 14)"
    ]
    assert not [one for one in own.examples(str(path)) if "thanks" in one.completion]

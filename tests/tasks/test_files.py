"""Data files as people have them: each form gives the right examples, or one line that says what to write."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import warnings
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from harness.errors import InputError
from harness.tasks import data
from harness.tasks.spec import load_spec

SPLITS = {"validation": 2, "test": 2}
GENERATION: dict[str, Any] = {"kind": "generation", "prompt": "{q}", "completion": "{a}", "splits": SPLITS}
CLASSES: dict[str, Any] = {
    "kind": "classification",
    "prompt": "{body}",
    "label": "team",
    "labels": {"billing": "billing", "tech": "technical"},
    "splits": SPLITS,
}
DIALOGUE: dict[str, Any] = {"kind": "generation", "splits": SPLITS}
PAIRS: dict[str, Any] = {
    "kind": "preference",
    "prompt": "{prompt}",
    "completion": "{chosen}",
    "rejected": "{rejected}",
    "splits": SPLITS,
}


def task(folder: Path, name: str, content: str | bytes | None, base: dict[str, Any], **changes: Any) -> str:
    """A data file and its task in ``folder``; returns the path of the latter. Without content, the data is there."""
    if content is not None:
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    path = folder / "task.yaml"
    path.write_text(yaml.safe_dump({"name": "own", "source": {"local": name}, **base, **changes}), encoding="utf-8")
    return str(path)


def examples(path: str) -> list[data.Example]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loaded = data.load(path)
    return sorted((*loaded.train, *loaded.validation, *loaded.test), key=lambda e: (e.prompt, e.completion))


def texts(path: str) -> set[tuple[str, str]]:
    return {(e.prompt, e.completion) for e in examples(path)}


def refused(path: str) -> str:
    with pytest.raises(InputError) as told:
        data.load(path)
    assert "\n" not in str(told.value)
    return str(told.value)


def jsonl(rows: list[Any]) -> str:
    return "\n".join(map(json.dumps, rows)) + "\n"


# --- separated text --------------------------------------------------------------------------------------------------

TICKETS = {(f"text {i}", "billing" if i % 2 else "technical") for i in range(6)}


def tickets(delimiter: str, before: str = "", after: str = "", header: str = "body{}team") -> str:
    rows = [f"text {i}{delimiter}{'billing' if i % 2 else 'tech'}{after}" for i in range(6)]
    return "\n".join([before + header.format(delimiter) + after, *rows]) + "\n"


@pytest.mark.parametrize(("delimiter", "told"), [(";", '";"'), ("\t", '"\\t"'), ("|", '"|"')])
def test_another_delimiter_is_guessed_and_can_be_set(tmp_path: Path, delimiter: str, told: str) -> None:
    content = tickets(delimiter)
    message = refused(task(tmp_path, "rows.csv", content, CLASSES))
    assert f"the values look separated by {delimiter!r}: set reader.delimiter: {told}" in message
    assert texts(task(tmp_path, "rows.csv", content, CLASSES, reader={"delimiter": delimiter})) == TICKETS


def test_a_delimiter_is_guessed_from_the_header_where_texts_hold_commas(tmp_path: Path) -> None:
    content = "body;team\n" + "".join(f"well, text {i};tech\n" for i in range(6))
    assert 'set reader.delimiter: ";"' in refused(task(tmp_path, "rows.csv", content, CLASSES))
    loaded = texts(task(tmp_path, "rows.csv", content, CLASSES, reader={"delimiter": ";"}))
    assert loaded == {(f"well, text {i}", "technical") for i in range(6)}


@pytest.mark.parametrize(
    "content",
    [
        tickets(",", after=","),
        tickets(",", after=",").replace("body,team,\n", "body,team\n"),
        tickets(",").replace("body,team\n", "body,team,\n"),
        tickets(",", after=",,"),
        tickets(";", before="sep=;\n"),
        tickets(",").replace("\n", "\r\n"),
        tickets(",").replace("\n", "\r"),
    ],
    ids=["both", "rows", "header", "two", "excel", "crlf", "cr"],
)
def test_trailing_delimiters_and_line_ends_make_no_column(tmp_path: Path, content: str) -> None:
    assert texts(task(tmp_path, "rows.csv", content, CLASSES)) == TICKETS


def test_a_line_is_told_behind_a_first_line_that_names_the_delimiter(tmp_path: Path) -> None:
    message = refused(task(tmp_path, "rows.csv", tickets(";", before="sep=;\n") + "x;tehc\n", CLASSES))
    assert "rows.csv: line 9: field 'team': unknown name 'tehc'" in message


def test_a_file_without_a_header_is_guessed_and_can_be_named(tmp_path: Path) -> None:
    content = tickets(",", header="text 9{}tech")
    message = refused(task(tmp_path, "rows.csv", content, CLASSES))
    assert "unknown name 'body'; if the file has no header, name its columns in reader.columns" in message
    named = task(tmp_path, "rows.csv", content, CLASSES, reader={"columns": ["body", "team"]})
    assert texts(named) == {*TICKETS, ("text 9", "technical")}


def test_columns_are_listed_and_the_direction_of_fields_is_told(tmp_path: Path) -> None:
    content = tickets("\t", header="#1 String{}Quality")
    columns = "columns: '#1 String', 'Quality'"
    message = refused(task(tmp_path, "rows.tsv", content, CLASSES))
    assert "unknown name 'body'" in message and message.endswith(columns)
    reversed_ = {"#1 String": "body", "Quality": "team"}
    message = refused(task(tmp_path, "rows.tsv", content, CLASSES, fields=reversed_))
    assert "fields gives new name: column, so write {body: '#1 String'}" in message
    message = refused(task(tmp_path, "rows.tsv", content, CLASSES, fields={"body": "#1 Strin", "team": "Quality"}))
    assert "fields: body: unknown name '#1 Strin'; did you mean '#1 String'?" in message
    message = refused(task(tmp_path, "rows.tsv", content, CLASSES, prompt="{#1 String}"))
    assert "fields: {column_1_String: '#1 String'}" in message
    right = {"body": "#1 String", "team": "Quality"}
    assert texts(task(tmp_path, "rows.tsv", content, CLASSES, fields=right)) == TICKETS


# --- JSON ------------------------------------------------------------------------------------------------------------

ANSWERS = {(f"q {i}", f"a {i}") for i in range(6)}


@pytest.mark.parametrize(
    ("row", "fields"),
    [
        (lambda i: {"q": f"q {i}", "answer": {"text": f"a {i}"}}, {"a": "answer.text"}),
        (lambda i: {"q": f"q {i}", "answers": [{"text": f"a {i}"}, {"text": "b"}]}, {"a": "answers.0.text"}),
        (lambda i: {"q": f"q {i}", "answers": {"text": ["b", f"a {i}"]}}, {"a": "answers.text.-1"}),
        (lambda i: {"q": f"q {i}", "a.b": {"c": f"a {i}"}}, {"a": "a.b.c"}),
        (lambda i: {"q": f"q {i}", "meta": json.dumps({"a": f"a {i}"})}, {"a": "meta.a"}),
    ],
)
def test_a_dotted_path_leads_into_lists_and_objects(tmp_path: Path, row: Any, fields: dict[str, str]) -> None:
    content = jsonl([row(i) for i in range(6)])
    assert texts(task(tmp_path, "rows.jsonl", content, GENERATION, fields=fields)) == ANSWERS


def test_a_wrong_path_is_told_with_what_is_there(tmp_path: Path) -> None:
    content = jsonl([{"q": f"q {i}", "answer": {"text": "x", "start": 3}} for i in range(6)])
    message = refused(task(tmp_path, "rows.jsonl", content, GENERATION, fields={"a": "answer.txet"}))
    assert "fields: a: unknown name 'answer.txet'; 'answer' has 'text', 'start'" in message
    message = refused(task(tmp_path, "rows.jsonl", content, GENERATION, completion="{answer.text}"))
    assert "fields: {answer_text: 'answer.text'}" in message


def test_a_label_may_be_a_dotted_path(tmp_path: Path) -> None:
    rows = [{"body": f"text {i}", "meta": {"team": "tech"}} for i in range(6)]
    assert len(texts(task(tmp_path, "rows.jsonl", jsonl(rows), CLASSES, label="meta.team"))) == 6


@pytest.mark.parametrize(
    ("document", "records"),
    [
        ({"data": {"items": [{"q": f"q {i}", "a": f"a {i}"} for i in range(6)]}}, "data.items"),
        ({"data": [{"rows": [{"q": f"q {i}", "a": f"a {i}"}, {"q": f"q {i + 1}", "a": f"a {i + 1}"}]}
                   for i in (0, 2, 4)]}, "data.rows"),
    ],
)  # fmt: skip
def test_the_list_of_rows_may_stand_inside_a_json_file(tmp_path: Path, document: Any, records: str) -> None:
    path = task(tmp_path, "rows.json", json.dumps(document), GENERATION, reader={"records": records})
    assert texts(path) == ANSWERS


def test_where_the_rows_of_a_json_file_are_is_told(tmp_path: Path) -> None:
    content = json.dumps({"version": 1, "data": {"items": [{"q": "x", "a": "y"}] * 6}})
    message = refused(task(tmp_path, "rows.json", content, GENERATION))
    assert "6 of them stand at 'data.items': set reader.records: data.items" in message
    message = refused(task(tmp_path, "rows.json", content, GENERATION, reader={"records": "data.rows"}))
    assert "there is no list at 'data.rows'; lists of objects in the file: data.items" in message
    message = refused(task(tmp_path, "rows.json", '{"q": {"0": "x"}, "a": {"0": "y"}}', GENERATION))
    assert "orient='records'" in message


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.json", '{"q": "x", "a": "y"}\n{"q": "x", "a": "y"}\n', "set reader.format: jsonl"),
        ("rows.jsonl", json.dumps([{"q": "x", "a": "y"}], indent=1), "set reader.format: json"),
        ("rows.jsonl", json.dumps([{"q": "x", "a": "y"}]), "set reader.format: json"),
    ],
)
def test_lines_and_a_list_of_json_are_told_apart(tmp_path: Path, name: str, content: str, message: str) -> None:
    assert message in refused(task(tmp_path, name, content, GENERATION))


# --- lists -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", ["['yes', \"it's\"]", '["yes", "it\'s"]', '["yes", "it\'s", null]'])
@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_the_print_of_a_list_is_no_text(tmp_path: Path, cell: str, ending: str) -> None:
    if ending == "csv":
        content = "q,a\n" + "".join(f'q {i},"{cell.replace(chr(34), chr(34) * 2)}"\n' for i in range(6))
    else:
        content = jsonl([{"q": f"q {i}", "a": cell} for i in range(6)])
    message = refused(task(tmp_path, f"rows.{ending}", content, GENERATION))
    assert "column 'a' is a list, not a text" in message and "'references'" in message and "lists_as_text" in message
    path = task(tmp_path, f"rows.{ending}", content, GENERATION, references="a")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert {e.references for e in data.load(path).test} == {("yes", "it's")}
    kept = task(tmp_path, f"rows.{ending}", content, GENERATION, reader={"lists_as_text": True})
    assert texts(kept) == {(f"q {i}", cell) for i in range(6)}


@pytest.mark.parametrize("value", ["[1, 2]", '{"a": 1}', "[sic]", "[", "[]", "{a, b}", "['a'] or ['b']"])
def test_other_texts_in_brackets_stay_texts(tmp_path: Path, value: str) -> None:
    content = jsonl([{"q": f"q {i}", "a": value} for i in range(6)])
    assert texts(task(tmp_path, "rows.jsonl", content, GENERATION)) == {(f"q {i}", value) for i in range(6)}


def test_the_print_of_an_array_is_refused_also_as_references(tmp_path: Path) -> None:
    content = "q,a\n" + "".join(f"q {i},\"['yes' 'no']\"\n" for i in range(6))
    for changes in ({}, {"references": "a"}):
        assert "the print of a NumPy array" in refused(task(tmp_path, "rows.csv", content, GENERATION, **changes))


def test_a_list_of_objects_is_refused_with_a_path_into_it(tmp_path: Path) -> None:
    rows = [{"q": f"q {i}", "instances": [{"input": "", "output": f"a {i}"}]} for i in range(6)]
    message = refused(task(tmp_path, "rows.jsonl", jsonl(rows), GENERATION, completion="{instances}"))
    assert "is a list, not a text" in message and "fields: {input: instances.0.input}" in message
    fields = {"a": "instances.0.output"}
    assert texts(task(tmp_path, "rows.jsonl", jsonl(rows), GENERATION, fields=fields)) == ANSWERS


def test_texts_inside_objects_are_references_by_their_path(tmp_path: Path) -> None:
    rows = [{"q": f"q {i}", "answers": [{"text": "yes"}, {"text": "of course"}]} for i in range(6)]
    path = task(tmp_path, "rows.jsonl", jsonl(rows), GENERATION, fields={"a": "answers.text"}, references="a")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert {e.references for e in data.load(path).test} == {("yes", "of course")}


# --- dialogues -------------------------------------------------------------------------------------------------------


def openai(i: int) -> list[dict[str, Any]]:
    return [{"role": "user", "content": f"q {i}"}, {"role": "assistant", "content": f"a {i}"}]


def sharegpt(i: int) -> list[dict[str, Any]]:
    return [{"from": "human", "value": f"q {i}"}, {"from": "gpt", "value": f"a {i}"}]


@pytest.mark.parametrize("turns", [openai, sharegpt])
@pytest.mark.parametrize("ending", ["jsonl", "json", "parquet", "csv"])
def test_a_list_of_turns_is_prompt_and_answer(tmp_path: Path, turns: Any, ending: str) -> None:
    rows = [{"chat": turns(i)} for i in range(6)]
    path = tmp_path / f"rows.{ending}"
    match ending:
        case "jsonl":
            path.write_text(jsonl(rows))
        case "json":
            path.write_text(json.dumps(rows))
        case "parquet":
            pq.write_table(pa.Table.from_pylist(rows), path)
        case "csv":  # as pandas writes it
            path.write_text("id,chat\n" + "".join(f'{i},"{turns(i)}"\n' for i in range(6)))
    assert texts(task(tmp_path, path.name, None, DIALOGUE, dialogue="chat")) == ANSWERS


def test_several_turns_are_read_up_to_the_last_answer(tmp_path: Path) -> None:
    rows = [
        {
            "messages": [
                {"role": "system", "content": "Be kind."},
                *openai(7),
                *openai(i),
                {"role": "user", "content": "?"},
            ]
        }
        for i in range(6)
    ]
    (first, *_) = examples(task(tmp_path, "rows.jsonl", jsonl(rows), DIALOGUE, dialogue="messages"))
    assert first.prompt == "system: Be kind.\nuser: q 7\nassistant: a 7\nuser: q 0" and first.completion == "a 0"


def test_a_dialogue_without_an_answer_is_left_out(tmp_path: Path) -> None:
    rows = [{"messages": openai(i)[: 1 if i == 3 else 2]} for i in range(7)]
    with pytest.warns(UserWarning, match="1 of 7 rows are left out: 'answer' is empty or missing"):
        data.load(task(tmp_path, "rows.jsonl", jsonl(rows), DIALOGUE, dialogue="messages"))


@pytest.mark.parametrize(
    ("turns", "message"),
    [
        (
            [{"role": "usr", "content": "x"}],
            "line 4: column 'messages': dialogue: role: unknown name 'usr'; did you mean",
        ),
        ([{"role": "tool", "content": "x"}, *openai(1)], "role: unknown name 'tool'"),
        ([{"role": "user", "content": None}, *openai(1)], "a list of turns with 'role' and 'content' is needed"),
        ("hello", "a list of turns with 'role' and 'content' is needed, not 'hello'"),
        (["hello", "you"], "a list of turns with 'role' and 'content' is needed"),
        ({"role": "user", "content": "x"}, "a list of turns with 'role' and 'content' is needed"),
    ],
)
def test_what_is_no_dialogue_is_told_with_its_line(tmp_path: Path, turns: Any, message: str) -> None:
    rows = [{"messages": turns if i == 3 else openai(i)} for i in range(7)]
    assert message in refused(task(tmp_path, "rows.jsonl", jsonl(rows), DIALOGUE, dialogue="messages"))


@pytest.mark.parametrize("texts_of", [{"prompt": "{m}"}, {"prompt": "{q}", "completion": "{m}"}, {"prompt": "{m} {q}"}])
def test_the_json_of_a_dialogue_is_never_a_text(tmp_path: Path, texts_of: dict[str, str]) -> None:
    """Neither as a list, nor as its print."""
    for turns in (lambda i: [*openai(i), *openai(9), {"role": "user", "content": "?"}][:5], openai):
        for write in (list, json.dumps, str):
            rows = [{"q": f"q {i}", "a": "a", "m": write(turns(i))} for i in range(6)]
            path = task(tmp_path, "rows.jsonl", jsonl(rows), {**GENERATION, **texts_of})
            try:
                loaded = examples(path)
            except InputError as error:
                assert "dialogue: m" in str(error)
            else:
                assert not any("role" in e.prompt + e.completion or "[" in e.completion for e in loaded)


def test_parts_of_a_turn_are_joined(tmp_path: Path) -> None:
    rows = [
        {"messages": [{"role": "user", "content": [{"type": "text", "text": f"q {i}"}]}, openai(i)[1]]}
        for i in range(6)
    ]
    assert texts(task(tmp_path, "rows.jsonl", jsonl(rows), DIALOGUE, dialogue="messages")) == ANSWERS


@pytest.mark.parametrize("form", ["texts", "lists", "whole", "implicit"])
def test_pairs_may_be_texts_or_dialogues(tmp_path: Path, form: str) -> None:
    def row(i: int) -> dict[str, Any]:
        question, good = openai(i)
        bad = {**good, "content": f"b {i}"}
        forms: dict[str, dict[str, Any]] = {
            "texts": {"prompt": f"q {i}", "chosen": f"a {i}", "rejected": f"b {i}"},
            "lists": {"prompt": [question], "chosen": [good], "rejected": [bad]},
            "whole": {"prompt": f"q {i}", "chosen": [question, good], "rejected": [question, bad]},
            "implicit": {"chosen": [question, good], "rejected": [question, bad]},
        }
        return forms[form]

    base = {k: v for k, v in PAIRS.items() if k not in ("prompt", "completion")} if form == "implicit" else PAIRS
    changes = {"dialogue": "chosen"} if form == "implicit" else {}
    loaded = examples(task(tmp_path, "rows.jsonl", jsonl([row(i) for i in range(6)]), base, **changes))
    assert {(e.prompt, e.completion, e.rejected) for e in loaded} == {(f"q {i}", f"a {i}", f"b {i}") for i in range(6)}


def test_answers_to_two_dialogues_are_no_pair(tmp_path: Path) -> None:
    rows = [{"chosen": openai(i), "rejected": openai(i + 1)} for i in range(6)]
    base = {k: v for k, v in PAIRS.items() if k not in ("prompt", "completion")}
    message = refused(task(tmp_path, "rows.jsonl", jsonl(rows), base, dialogue="chosen"))
    assert "line 1: 'rejected' answers another dialogue than 'chosen'" in message


# --- folders of texts ------------------------------------------------------------------------------------------------


def folder_of_texts(folder: Path) -> None:
    for split, numbers in {"train": range(6), "test": range(6, 9)}.items():
        for label in ("pos", "neg"):
            (folder / split / label).mkdir(parents=True)
            for i in numbers:
                (folder / split / label / f"{i}.txt").write_text(f"{label} review {i}\n")
    (folder / "train" / ".DS_Store").write_bytes(b"\0\1")


def test_a_folder_of_texts_is_a_corpus(tmp_path: Path) -> None:
    folder_of_texts(tmp_path / "texts")
    corpus: dict[str, Any] = {"kind": "corpus", "splits": SPLITS}
    message = refused(task(tmp_path, "texts", None, corpus))
    assert "is a folder; name the file in 'reader.file' or in 'splits', or set reader.format: text" in message
    path = task(tmp_path, "texts", None, corpus, reader={"format": "text"})
    assert len({e.completion for e in examples(path)}) == 18
    assert {"pos review 3", "neg review 8"} <= {e.completion for e in examples(path)}
    version = load_spec(path).full_version()
    (tmp_path / "texts" / "train" / "pos" / "0.txt").write_text("changed")
    assert load_spec(path).full_version() != version


def test_the_name_of_a_folder_is_a_label(tmp_path: Path) -> None:
    folder_of_texts(tmp_path / "texts")
    reviews = {
        "kind": "classification",
        "prompt": "{text}",
        "label": "folder",
        "labels": {"neg": "negative", "pos": "positive"},
        "splits": {"train": "train", "validation": 2, "test": "test"},
        "reader": {"format": "text"},
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loaded = data.load(task(tmp_path, "texts", None, reviews))
    assert [len(split) for split in (loaded.train, loaded.validation, loaded.test)] == [10, 2, 6]
    assert {(e.prompt[:3], e.label) for e in loaded.train} == {("neg", 0), ("pos", 1)}


def test_what_is_no_text_in_a_folder_is_told(tmp_path: Path) -> None:
    folder_of_texts(tmp_path / "texts")
    (tmp_path / "texts" / "picture.png").write_bytes(b"\x89PNG")
    corpus = {"kind": "corpus", "splits": SPLITS, "reader": {"format": "text"}}
    with pytest.warns(UserWarning, match=r"texts: 1 of 19 rows are left out: no text file \(first: picture.png\)"):
        data.load(task(tmp_path, "texts", None, corpus))
    (tmp_path / "texts" / "train" / "pos" / "2.txt").write_bytes("Grüße".encode("latin-1"))
    assert "2.txt: byte 2 is not utf-8; set reader.encoding: cp1252" in refused(task(tmp_path, "texts", None, corpus))
    (tmp_path / "none").mkdir()
    assert "there is no text file" in refused(task(tmp_path, "none", None, corpus))


# --- bytes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("ending", "pack"), [(".gz", gzip.compress), (".xz", lzma.compress), (".bz2", bz2.compress)])
@pytest.mark.parametrize("ending_too", [True, False])
def test_compressed_files_are_read_and_damaged_ones_told(
    tmp_path: Path, ending: str, pack: Any, ending_too: bool
) -> None:
    content = pack(tickets(",").encode())
    name = f"rows.csv{ending if ending_too else ''}"
    assert texts(task(tmp_path, name, content, CLASSES)) == TICKETS
    assert f"{name}: cannot be read as csv" in refused(task(tmp_path, name, content[:-9], CLASSES))


@pytest.mark.parametrize(
    ("encoding", "text", "told"),
    [
        ("cp1252", "“Grüße”", "cp1252"),
        ("latin-1", "Grüße", "cp1252"),
        ("cp1251", "Привет мир, как дела", "cp1251"),
        ("shift_jis", "こんにちは世界、元気ですか", "shift_jis"),
        ("utf-16-le", "hello", "utf-16-le"),
        ("utf-16-be", "hello", "utf-16-be"),
    ],
)
def test_the_likely_encoding_is_named_and_works(tmp_path: Path, encoding: str, text: str, told: str) -> None:
    content = ("body\tteam\n" + "".join(f"{text} {i}\ttech\n" for i in range(6))).encode(encoding)
    assert f"set reader.encoding: {told}" in refused(task(tmp_path, "rows.tsv", content, CLASSES))
    loaded = texts(task(tmp_path, "rows.tsv", content, CLASSES, reader={"encoding": told}))
    assert loaded == {(f"{text} {i}", "technical") for i in range(6)}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.csv", b"PK\x03\x04rest", "a zip archive or an Excel workbook"),
        ("rows.xlsx", b"PK\x03\x04rest", "save the sheet as a CSV file"),
        ("rows.csv.zip", b"PK\x03\x04rest", "unpack it first"),
        ("rows.csv", b"PAR1rest", "set reader.format: parquet"),
        ("rows.txt", b"a\nb\n", "set reader.format: lines with a pattern"),
        ("rows.csv", b"", "there is no row in this file"),
        ("rows.csv", b"body,team\n", "there is no row in this file"),
    ],
)
def test_what_is_no_data_file_is_told(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    assert message in refused(task(tmp_path, name, content, CLASSES))


# --- mistakes that the data cannot show ------------------------------------------------------------------------------

CORPUS: dict[str, Any] = {"kind": "corpus", "splits": SPLITS}


@pytest.mark.parametrize(
    ("base", "changes", "message"),
    [
        (CLASSES, {"prompt": "{body} {team}"}, "prompt: it gives the label away"),
        (CLASSES, {"prompt": "{body} {label_word}"}, "prompt: it gives the label away"),
        (CLASSES, {"text": "{body} {team}"}, "text: it gives the label away"),
        (CLASSES, {"input": ["body", "team"]}, "input: it gives the label away"),
        (CLASSES, {"prompt": "hello"}, "prompt: it holds no field"),
        (CLASSES, {"prompt": ""}, "prompt: it holds no field"),
        (CLASSES, {"text": "hello"}, "text: it holds no field"),
        (CLASSES, {"completion": "yes"}, "completion: it must hold {label_word}"),
        (CLASSES, {"completion": ""}, "completion: it must hold {label_word}"),
        (CLASSES, {"labels": {"billing": " ", "tech": "t"}}, "labels: a label's word is empty"),
        (CLASSES, {"labels": {"billing": "t ", "tech": "t"}}, "labels: two labels have the same word"),
        (CLASSES, {"metrics": ["rouge_l"]}, "metrics: 'rouge_l' does not rate a classification task; valid: accuracy"),
        (CLASSES, {"metrics": ["accuracy", "accuracy"]}, "metrics: a name is there twice"),
        (CLASSES, {"answer_pattern": "(x)"}, "answer_pattern: a classification task has no free answers"),
        (CLASSES, {"max_new_tokens": 10**9}, "max_new_tokens"),
        (CLASSES, {"extract": {"body": "abc"}}, "extract: body: the expression has no named group"),
        (CLASSES, {"fields": {"words": "nothing"}}, "fields: words: unknown name 'nothing'"),
        (CLASSES, {"splits": {"validation": 0.1, "test": 2}}, "no share"),
        (CLASSES, {"splits": {"validation": "10%", "test": 2}}, "no share"),
        (CLASSES, {"splits": {"validation": True, "test": 2}}, "no share"),
        (CLASSES, {"splits": {"train": "a.csv", "validation": 2, "test": "./a.csv"}}, "two splits have the same file"),
        (CLASSES, {"reader": {"file": "rows.csv"}}, "has no file 'rows.csv' in it; give its folder"),
        (CLASSES, {"reader": {"encoding": "utf9"}}, "unknown encoding 'utf9'; did you mean 'utf-8'"),
        (CLASSES, {"reader": {"records": "data"}}, "reader.records belongs to json, and this file is read as csv"),
        (CLASSES, {"reader": {"columns": ["a", "a"]}}, "columns: a name is there twice"),
        (CLASSES, {"reader": {"delimiter": ";;"}}, "delimiter"),
        (GENERATION, {"reader": {"columns": ["q"], "format": "jsonl"}}, "reader.columns belongs to csv, tsv"),
        (GENERATION, {"reader": {"quotes": True, "format": "jsonl"}}, "reader.quotes belongs to csv, tsv"),
        (GENERATION, {"metrics": ["perplexity"]}, "'perplexity' does not rate a generation task"),
        (GENERATION, {"completion": "hello"}, "completion: it holds no field"),
        (GENERATION, {"completion": "{q}"}, "prompt: it gives the answer away"),
        (GENERATION, {"labels": {"x": "x", "y": "y"}}, "labels: belongs to kind 'classification'"),
        (GENERATION, {"label": "a"}, "label: belongs to kind 'classification'"),
        (GENERATION, {"optional": ["a"]}, "optional: 'a' is all of 'completion'"),
        (PAIRS, {"rejected": "{chosen}"}, "rejected: it is the same as 'completion'"),
        (CORPUS, {"prompt": "{q}"}, "prompt: a corpus has none"),
        (CORPUS, {"metrics": ["accuracy"]}, "'accuracy' does not rate a corpus task; valid: perplexity"),
        (CORPUS, {"dialogue": "m"}, "dialogue: a corpus task has no answers"),
        ({"kind": "generation", "completion": "{a}", "splits": SPLITS}, {}, "'prompt' is missing"),
    ],
)
def test_parts_of_a_task_go_together(
    tmp_path: Path, base: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    assert message in refused(task(tmp_path, "rows.csv", tickets(","), base, **changes))

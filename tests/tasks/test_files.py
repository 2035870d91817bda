"""Data files as people have them: each form gives the right examples, or one line that says what to write."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import warnings
from pathlib import Path
from typing import Any

import pytest
from helpers.own_tasks import (
    ANSWERS,
    CLASSES,
    GENERATION,
    SPLITS,
    TICKETS,
    examples,
    jsonl,
    refused,
    task,
    texts,
    tickets,
)

from harness.errors import InputError
from harness.tasks import data
from harness.tasks.spec import load_spec

# --- separated text --------------------------------------------------------------------------------------------------


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
        ("utf-16-le", "Привет мир, как дела", "utf-16-le"),
    ],
)
def test_the_likely_encoding_is_named_and_works(tmp_path: Path, encoding: str, text: str, told: str) -> None:
    content = ("body\tteam\n" + "".join(f"{text} {i}\ttech\n" for i in range(6))).encode(encoding)
    assert f"set reader.encoding: {told}" in refused(task(tmp_path, "rows.tsv", content, CLASSES))
    loaded = texts(task(tmp_path, "rows.tsv", content, CLASSES, reader={"encoding": told}))
    assert loaded == {(f"{text} {i}", "technical") for i in range(6)}


@pytest.mark.parametrize(
    ("after", "zeros", "told"), [(0, 1, "a zero byte in line 3"), (5000, 2, "2 zero bytes, the first in line 1003")]
)
def test_a_stray_zero_byte_is_no_other_encoding(tmp_path: Path, after: int, zeros: int, told: str) -> None:
    rows = ["body,team", *("hello,tech" for _ in range(after // 5)), "one,tech", *["t\0wo,tech"] * zeros, "six,tech"]
    message = refused(task(tmp_path, "rows.csv", "\n".join(rows), CLASSES))
    assert f"rows.csv: it holds {told}" in message
    assert "reader.encoding" not in message


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.csv", b"PK\x03\x04rest", "a zip archive or an Excel workbook"),
        ("rows.xlsx", b"PK\x03\x04rest", "save the sheet as a CSV file"),
        ("rows.csv.zip", b"PK\x03\x04rest", "unpack it first"),
        ("rows.csv", b"PAR1rest", "set reader.format: parquet"),
        (
            "rows.txt",
            b"a\nb\n",
            "for columns set reader.format: tsv or csv; for a text in each line",
        ),
        ("rows.csv", b"version https://git-lfs.github.com/spec/v1\n", "run 'git lfs pull'"),
        ("rows.csv", b"<html><body>404</body></html>", "it is a web page"),
        ("rows.csv", b'{"body": "x", "team": "tech"}\n', "it looks like JSON; set reader.format"),
        ("rows.json", b"[" * 100_000, "nested too deeply"),
        ("rows.jsonl", b"[" * 100_000, "line 1: lists or objects are nested too deeply"),
        ("rows.jsonl", b'{"body": ' + b"9" * 5000 + b"}", "line 1: a number has too many digits"),
        ("rows.jsonl", b'{"body": "\\ud800", "team": "tech"}\n' * 9, "line 1: column 'body' holds half of a surrogate"),
        ("rows.jsonl", b"{}\n" * 9, "no row has a column with a name"),
        ("rows.parquet", b"PAR1", "rows.parquet: cannot be read as parquet"),
        ("rows.csv", b"", "there is no row in this file"),
        ("rows.csv", b"body,team\n", "there is no row in this file"),
    ],
)
def test_what_is_no_data_file_is_told(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    assert message in refused(task(tmp_path, name, content, CLASSES))


def test_a_pipe_is_told_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "rows.csv")
    path = task(tmp_path, "rows.csv", None, CLASSES)
    assert "is a pipe or a device" in refused(path)
    with pytest.raises(InputError, match="is a pipe or a device"):
        load_spec(path).full_version()

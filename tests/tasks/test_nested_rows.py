"""Triples and several references: the JSON and XML of WebNLG, DART, and chats, in files of their official form."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from helpers import own_tasks as own
from hypothesis import given
from hypothesis import strategies as st

from harness.tasks import data
from harness.tasks.joined import Join
from harness.tasks.values import NOTHING, at

TRIPLES = [{"object": "Denmark", "property": "country", "subject": "Aarhus"},
           {"object": "Bo", "property": "leader", "subject": "Aarhus"}]  # fmt: skip
SENTENCES = ("Aarhus in Denmark is led by Bo.", "Bo leads Aarhus, Denmark.")


def numbered(triples: list[dict[str, str]], number: int) -> list[dict[str, str]]:
    """``triples`` of their own: no two inputs are equal."""
    return [{**one, "object": f"{one['object']}{number or ''}"} for one in triples]


def webnlg(numbers: range) -> str:
    """As release 2.1 has it: each entry is an object whose only name is its number."""
    entries = [
        {str(place): {"category": "City", "size": "2", "xml_id": f"Id{place}",
                      "lexicalisations": [{"comment": "good", "lang": "", "lex": one} for one in SENTENCES],
                      "modifiedtripleset": numbered(TRIPLES, n), "originaltriplesets": {"originaltripleset": []}}}
        for place, n in enumerate(numbers, 1)
    ]  # fmt: skip
    return json.dumps({"entries": entries})


def webnlg_xml(numbers: range) -> str:
    """As release 3.0 has it: one file for each category and number of triples."""
    entries = "".join(
        f"""<entry category="City" eid="Id{n}" shape="(X (X))" shape_type="NA" size="2"><originaltripleset>
        <otriple>Aarhus | country | Denmark@en</otriple></originaltripleset><modifiedtripleset>
        <mtriple>Aarhus | country | Denmark{n or ""}</mtriple><mtriple>Aarhus | leader | Bo &amp; Co</mtriple>
        </modifiedtripleset><lex comment="good" lid="Id1" lang="en">{SENTENCES[0]}</lex>
        <lex comment="good" lid="Id2" lang="en">{SENTENCES[1]}</lex></entry>"""
        for n in numbers
    )
    return f'<?xml version="1.0" ?><benchmark><entries>{entries}</entries></benchmark>'


def dart(numbers: range) -> str:
    return json.dumps([
        {"tripleset": [["Aarhus", "COUNTRY", f"Denmark{n or ''}"], ["Aarhus", "LEADER", "Bo"]],
         "subtree_was_extended": False, "annotations": [{"source": "x", "text": one} for one in SENTENCES]}
        for n in numbers
    ])  # fmt: skip


def samsum(numbers: range) -> str:
    return json.dumps([
        {"id": f"138{n}", "summary": "Ann bakes.", "dialogue": f"Ann: I bake cookies{n or ''}.\r\nBo: Sure!"}
        for n in numbers
    ])  # fmt: skip


#: Task -> its files for training, validation and test, and what makes a file of the rows with these numbers.
FORMS: dict[str, tuple[tuple[str, ...], Any]] = {
    "webnlg": (tuple(f"webnlg_release_v2.1_{name}.json" for name in ("train", "dev", "test")), webnlg),
    "webnlg_2020": (
        ("train/2triples/City.xml", "dev/2triples/City.xml",
         "test/rdf-to-text-generation-test-data-with-refs-en.xml"), webnlg_xml),
    "dart": (tuple(f"dart-v1.1.1-full-{name}.json" for name in ("train", "dev", "test")), dart),
    "samsum": (("train.json", "val.json", "test.json"), samsum),
}  # fmt: skip
READ = {
    "webnlg": ("Put the facts into words.\nFacts: Aarhus : country : Denmark | Aarhus : leader : Bo\nText:", SENTENCES),
    "webnlg_2020": (
        "Put the facts into words.\nFacts: Aarhus | country | Denmark; Aarhus | leader | Bo & Co\nText:", SENTENCES),
    "dart": (
        "Put the facts into words.\nFacts: Aarhus : COUNTRY : Denmark | Aarhus : LEADER : Bo\nText:",
        SENTENCES,
    ),
    "samsum": (
        "Sum up the chat in one or two sentences.\nAnn: I bake cookies.\r\nBo: Sure!\nSummary:", ("Ann bakes.",)),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMS)
def test_the_official_form_is_read(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files, form = FORMS[name]
    for file, numbers in zip(files, (range(3, 7), range(1, 3), range(1)), strict=True):
        path = tmp_path / name / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(form(numbers), encoding="utf-8")
    monkeypatch.setenv("TUNEBENCH_DATA", str(tmp_path))
    task = data.load(name)
    prompt, references = READ[name]
    assert [(e.prompt, e.references) for e in task.test] == [(prompt, references)]
    assert (len(task.train), len(task.validation)) == (4 * len(references), 2), "each reference is learnt"
    assert task.notices == ()


NOTES = "SELECT Notes FROM table WHERE State = {}"


def test_the_parquet_files_of_wikisql_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "wikisql").mkdir()
    for start, name in enumerate(("train", "validation", "test")):
        rows = [
            {"phase": 1, "question": f"Which notes are there for {3 * n + start}?",
             "table": {"header": ["State", "Notes"], "types": ["text", "text"], "rows": [["a", "b"]], "name": "t"},
             "sql": {"human_readable": NOTES.format(3 * n + start), "sel": 1, "agg": 0}}
            for n in range(2)
        ]  # fmt: skip
        pd.DataFrame(rows).to_parquet(tmp_path / "wikisql" / f"{name}.parquet")
    monkeypatch.setenv("TUNEBENCH_DATA", str(tmp_path))
    task = data.load("wikisql")
    assert [len(split) for split in (task.train, task.validation, task.test)] == [2, 2, 2]
    read = {(e.prompt, e.completion) for e in task.test}
    assert (
        "Table columns: State, Notes\nQuestion: Which notes are there for 2? SQL:",
        NOTES.format(2),
    ) in read


# --- the parts -------------------------------------------------------------------------------------------------------


def test_a_list_becomes_a_text() -> None:
    triples = Join(between=" | ", inside=" : ", parts=("subject", "property", "object"))
    assert triples.text(TRIPLES) == "Aarhus : country : Denmark | Aarhus : leader : Bo"
    assert triples.text([{"subject": "a", "object": "b"}]) == "a : b", "a part that is missing leaves no sign"
    assert Join().text(["a", None, " b ", ""]) == "a, b"
    assert Join(inside="-").text([["a", 1], ["b", 2.5]]) == "a-1, b-2.5"
    assert Join().text({"x": "one", "y": "two"}) == "one two"
    assert Join().text([]) == ""
    assert Join(inside=":").text([["a", float("nan"), True], {"x": {"y": "é"}}]) == 'a:true, {"y": "é"}'


FACTS: dict[str, Any] = {
    "kind": "generation", "prompt": "Facts: {facts}\nText:", "completion": "{text}", "metrics": ["bleu"],
    "splits": {"validation": 1, "test": 1},
}  # fmt: skip


def facts(number: int) -> list[dict[str, str]]:
    return [{"s": f"A{number}", "p": "is", "o": "B"}, {"s": "C", "p": "has", "o": "D"}]


def facts_in(form: str) -> str:
    """Six rows, as JSON lines or in a CSV file whose cells are the prints of the lists."""
    rows = [{"facts": facts(number), "text": f"Text {number}."} for number in range(6)]
    if form == "jsonl":
        return own.jsonl(rows)
    prints = json.dumps if form == "json.csv" else repr
    return pd.DataFrame([{**row, "facts": prints(row["facts"])} for row in rows]).to_csv(index=False)


@pytest.mark.parametrize("form", ["jsonl", "json.csv", "python.csv"])
def test_objects_are_joined_also_where_a_cell_holds_their_print(form: str, tmp_path: Path) -> None:
    join = {"facts": {"between": " | ", "inside": " : ", "parts": ["s", "p", "o"]}}
    path = own.task(tmp_path, f"rows.{form}", facts_in(form), FACTS, join=join)
    assert own.texts(path) == {(f"Facts: A{n} : is : B | C : has : D\nText:", f"Text {n}.") for n in range(6)}


def test_a_part_that_no_object_has_is_named(tmp_path: Path) -> None:
    path = own.task(tmp_path, "rows.jsonl", facts_in("jsonl"), FACTS, join={"facts": {"parts": ["s", "q", "o"]}})
    assert own.refused(path).endswith("join.facts.parts: unknown name 'q'; valid: o, p, s")
    texts = own.jsonl([{"facts": ["a", "b"], "text": f"Text {n}"} for n in range(6)])
    path = own.task(tmp_path, "rows.jsonl", texts, FACTS, join={"facts": {"parts": ["s"]}})
    assert "join.facts.parts: 'facts' holds no objects" in own.refused(path)


@given(st.lists(st.text("abc", min_size=1), min_size=1))
def test_a_list_of_words_can_be_divided_again(words: list[str]) -> None:
    assert Join(between="|").text(words).split("|") == words


def test_a_star_stands_for_all_names() -> None:
    assert at({"entries": [{"1": "a"}, {"2": "b"}]}, ["entries", "*"]) == [["a"], ["b"]]
    assert at({"x": {"p": [1], "q": [2]}}, ["x", "*", "0"]) == [1]


@pytest.mark.parametrize("place", ["--1", "-", "9" * 5000, "٣"])
def test_what_is_no_place_in_a_list_leads_nowhere(place: str) -> None:
    assert at([1, 2], ["-1"]) == 2
    assert at([1, 2], [place]) is NOTHING


XML = {
    "kind": "generation",
    "reader": {"records": "row"},
    "prompt": "{q}",
    "completion": "{a}",
    "splits": own.SPLITS,
}


def test_xml_of_ones_own(tmp_path: Path) -> None:
    rows = "".join(f'<row q="question {n}"><a>answer {n}</a></row>' for n in range(6))
    path = own.task(tmp_path, "rows.xml", f"<rows>{rows}</rows>", XML)
    assert own.texts(path) == {(f"question {n}", f"answer {n}") for n in range(6)}


def test_a_text_that_goes_on_behind_an_element_is_whole(tmp_path: Path) -> None:
    rows = "".join(f'<row q="q {n}"><a id="{n}">\n start {n} <b>bold</b> <i>x</i> end\n</a></row>' for n in range(6))
    path = own.task(
        tmp_path, "rows.xml", f"<rows>{rows}</rows>", {**XML, "fields": {"t": "a.text"}, "completion": "{t}"}
    )
    assert own.texts(path) == {(f"q {n}", f"start {n} bold x end") for n in range(6)}


@pytest.mark.parametrize(
    ("content", "changes", "message"),
    [
        ("<rows><row>", {}, "it is no XML"),
        ("<rows><line q='1'/></rows>", {}, "no element is called 'row'; there are line, rows"),
        ("<!DOCTYPE x [<!ENTITY a 'aaaa'>]><rows><row q='&a;'/></rows>", {}, "it declares the entity 'a'"),
        (
            "<rows><row q='1'><q>2</q></row></rows>",
            {},
            "an element 'row' has 'q' twice, as an attribute and as a child",
        ),
        ("<rows><row q='1'/></rows>", {"reader": {"format": "xml"}}, "set reader.records to the name of the elements"),
    ],
)
def test_xml_that_cannot_be_read_is_told(
    tmp_path: Path, content: str, changes: dict[str, object], message: str
) -> None:
    assert message in own.refused(own.task(tmp_path, "rows.xml", content, {**XML, **changes}))

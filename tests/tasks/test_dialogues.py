"""Lists and dialogues in the columns of a file: references, prompts and answers, and never their print."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.own_tasks import (
    ANSWERS,
    DIALOGUE,
    GENERATION,
    PAIRS,
    examples,
    jsonl,
    refused,
    task,
    texts,
)

from harness.errors import InputError
from harness.tasks import data

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


def test_a_dialogue_in_a_prompt_must_not_hold_the_answer(tmp_path: Path) -> None:
    rows = [{"m": openai(i), "a": "yes"} for i in range(6)]
    message = refused(task(tmp_path, "rows.jsonl", jsonl(rows), GENERATION, prompt="{m}"))
    assert "line 1: column 'm' ends with an answer" in message and "write dialogue: m" in message
    asked = [{"m": openai(i)[:1], "a": f"a {i}"} for i in range(6)]
    assert texts(task(tmp_path, "rows.jsonl", jsonl(asked), GENERATION, prompt="{m}")) == ANSWERS


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

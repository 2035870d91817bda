"""``kind: auto``: what a data file is told by its columns and values, or one line with the candidates."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.files_as_found import FORMS, ROWS
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import InputError
from harness.tasks import auto, data
from harness.tasks.spec import TaskSpec, load_spec


def write(folder: Path, name: str, content: str, **keys: Any) -> str:
    (folder / name).write_text(content, encoding="utf-8")
    document = {"name": "own", "kind": "auto", "source": {"local": name}, **keys}
    path = folder / "task.yaml"
    path.write_text(yaml.safe_dump({key: value for key, value in document.items() if value is not None}))
    return str(path)


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("written", ["auto", None])
def test_each_form_is_recognised_and_its_task_opens(tmp_path: Path, name: str, written: str | None) -> None:
    content, kind, what = FORMS[name]
    spec = load_spec(path := write(tmp_path, name, content, kind=written))
    assert (spec.kind, spec.taken_for) == (kind, what)
    task = data.load(path)
    sizes = len(task.train), len(task.validation), len(task.test)
    assert sum(sizes) == len(ROWS) and sizes[1:] == (4, 8)
    assert all(example.completion for example in task.train)


def test_known_examples_of_three_forms(tmp_path: Path) -> None:
    def examples(name: str) -> set[tuple[str, str]]:
        task = data.load(write(tmp_path, name, FORMS[name][0]))
        return {(e.prompt, e.completion) for e in (*task.train, *task.validation, *task.test)}

    assert ("Say 3.\nx", "It is 3.") in examples("alpaca.jsonl")
    assert ("Premise: a 4\nHypothesis: b 4\nLabel:", "1") in examples("nli.tsv")
    assert ("Mein Text: my words number 5\nLabel:", "1") in examples("semicolons.csv")


def test_what_the_file_writes_wins(tmp_path: Path) -> None:
    content = FORMS["tickets.csv"][0]
    words = {"tech": "technical", "sales": "selling"}
    spec = load_spec(
        write(tmp_path, "t.csv", content, labels=words, prompt="{body}", splits={"validation": 3, "test": 5})
    )
    assert (dict(spec.labels), spec.prompt, spec.splits.test, spec.label) == (words, "{body}", 5, "team")
    assert load_spec(write(tmp_path, "t.csv", content, **_whole())).taken_for is None


def _whole() -> dict[str, Any]:
    keys = {"kind": "classification", "prompt": "{body}", "label": "team", "splits": {"validation": 3, "test": 5}}
    return {**keys, "labels": {"tech": "a", "sales": "b"}}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "text,tone,team\n" + "".join(f"words {n},{'xy'[n % 2]},{'ab'[n % 3 > 0]}\n" for n in ROWS),
            "it may be texts with a label (columns text, tone), kind: classification; or texts with a label (columns "
            "text, team), kind: classification; write the kind and its columns",
        ),
        (
            "question,answer,label\n" + "".join(f"q {n},some answer {n},{n % 2}\n" for n in ROWS),
            "it may be prompts and answers (columns question, answer), kind: generation; or ",
        ),
        (
            "foo,bar\n" + "".join(f"words {n},other words {n}\n" for n in ROWS),
            "its columns ('foo', 'bar') are like no form that is known; write the kind",
        ),
        (
            "text,score\n" + "".join(f"words {n},{n / 7 if n else 'N/A'}\n" for n in range(60)),
            "its columns ('text', 'score') are like no form that is known; write the kind",
        ),
        ("text\n" + "".join(f"words {n}\n" for n in range(5)), "5 different inputs are too few to draw splits from"),
        ("text,label\n", "its columns (none) are like no form"),
    ],
)
def test_what_is_several_things_or_none_is_one_line(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(InputError) as told:
        load_spec(write(tmp_path, "rows.csv", content))
    assert message in str(told.value) and "rows.csv" in str(told.value) and "\n" not in str(told.value)


def test_a_source_elsewhere_needs_its_kind(tmp_path: Path) -> None:
    hub = {"hub": "org/name", "revision": "0" * 40, "repository": "dataset", "files": ["a.csv"]}
    with pytest.raises(InputError, match="looks into a local file, and 'source' names none; write the kind"):
        load_spec(write(tmp_path, "rows.csv", "a,b\n", source=hub))
    with pytest.raises(InputError, match=r"none\.csv does not exist"):
        load_spec(write(tmp_path, "rows.csv", "a,b\n", source={"local": "none.csv"}))


def test_a_changed_file_is_looked_at_again(tmp_path: Path) -> None:
    assert load_spec(write(tmp_path, "rows.csv", FORMS["tickets.csv"][0])).kind == "classification"
    assert load_spec(write(tmp_path, "rows.csv", FORMS["stars.csv"][0])).kind == "regression"


@given(
    table=st.lists(
        st.lists(
            st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0"), max_size=12), min_size=3, max_size=3
        ),
        min_size=1,
        max_size=30,
    ),
    header=st.permutations(["text", "label", "score", "prompt", "chosen", "x"]),
)
def test_any_table_is_a_task_or_one_line(tmp_path_factory: Any, table: list[list[str]], header: list[str]) -> None:
    path = tmp_path_factory.getbasetemp() / "any.jsonl"
    path.write_text("\n".join(json.dumps(dict(zip(header, row, strict=False))) for row in table))
    try:
        keys = auto.recognise(path).keys
    except InputError as error:
        assert "\n" not in str(error)
    else:
        TaskSpec.model_validate_json(json.dumps({"name": "own", "source": {"local": str(path)}, **keys}))

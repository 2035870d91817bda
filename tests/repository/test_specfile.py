"""YAML as people write it: words stay words, numbers are finite, and no file is too much to read."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from pydantic import Field

from harness import specfile
from harness.errors import InputError
from harness.tasks.spec import load_spec
from harness.trial import Frozen


class Words(Frozen):
    """A specification with text in every place."""

    labels: dict[str, str] = Field(default_factory=dict)
    columns: tuple[str, ...] = ()
    label: str = ""
    rate: float = 0.0


class Outer(Frozen):
    """A specification with another one in it that may be missing."""

    inner: Words | None = None


def test_a_misspelt_name_below_what_may_be_null_is_told_with_the_nearest_one() -> None:
    with pytest.raises(InputError, match=r"^x: inner: unknown name 'labls'; did you mean 'labels'\?$"):
        specfile.parse(Outer, {"inner": {"labls": {}}}, "x")


WORDS = ("yes", "no", "on", "off", "y", "n", "true", "False", "null", "~", "010", "1_000", "1:30", "0x1F", "2024-01-31")


def test_labels_and_columns_are_the_words_that_the_file_shows(tmp_path: Path) -> None:
    path = tmp_path / "words.yaml"
    lines = "".join(f"  {word}: {word}\n" for word in (*WORDS, "1", "1.50", "1e3"))
    path.write_text(f"labels:\n{lines}columns: [{', '.join(WORDS)}]\nlabel: 7\n")
    found = specfile.read(Words, path)
    assert found.labels == {word: word for word in (*WORDS, "1", "1.50", "1e3")}
    assert (found.columns, found.label) == (WORDS, "7")


def test_a_place_that_wants_a_number_takes_no_word(tmp_path: Path) -> None:
    path = tmp_path / "words.yaml"
    path.write_text("label: 010\nrate: 1_000\n")
    with pytest.raises(InputError, match=r"words.yaml: rate: must be a number .given: '1_000'"):
        specfile.read(Words, path)
    path.write_text("label: [no]\n")
    with pytest.raises(InputError, match=r"words.yaml: label: must be text"):
        specfile.read(Words, path)


@pytest.mark.parametrize("labels", ["{yes: yes, no: no}", "{yes: relevant, no: irrelevant}", "{on: off, off: on}"])
def test_unquoted_labels_of_a_task_are_words(tmp_path: Path, labels: str) -> None:
    path = tmp_path / "task.yaml"
    path.write_text(
        "name: own\nkind: classification\nsource: {local: rows.csv}\nprompt: '{body}'\nlabel: on\n"
        f"labels: {labels}\nsplits: {{validation: 1, test: 1}}\n"
    )
    spec = load_spec(str(path))
    assert spec.labels == dict(pair.split(": ") for pair in labels.strip("{}").split(", "))
    assert spec.label == "on"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("[1e-3, 1E3, 1.5e3, .5, 5., -2.5, 12, -0, +3]", [0.001, 1000.0, 1500.0, 0.5, 5.0, -2.5, 12, 0, 3]),
        ("[true, False, ~, null, '1', \"no\", yes]", [True, False, None, None, "1", "no", "yes"]),
        ("{a: &d {x: 1}, b: {<<: *d, y: 2}, c: *d}", {"a": {"x": 1}, "b": {"x": 1, "y": 2}, "c": {"x": 1}}),
    ],
)
def test_values(text: str, value: Any) -> None:
    found = specfile.parse_yaml(text, "x")
    assert found == value
    assert [type(one) for one in found] == [type(one) for one in value]


BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)
)
MERGES = "a0: &a0 {x: 1}\n" + "".join(f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}\n" for i in range(1, 12))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rate: .inf", "x: line 1: .inf is not a finite number"),
        ("a: 1\nrates: [1e-3, .nan]", "x: line 2: .nan is not a finite number"),
        ("rate: 1e999", "x: line 1: 1e999 is not a finite number"),
        ("a: 1\n[a, b]: 2", "x: line 2: a list or a mapping cannot be a key"),
        ("{{a: 1}: 2}", "x: line 1: a list or a mapping cannot be a key"),
        ("a: &a [*a]", "x: line 1: an alias stands inside the value that it names"),
        ("a: !!python/object:os.system x", "x: line 1: the tag '!!python/object:os.system' is not read here"),
        (BOMB, "x: line 5: more than 20000 values, aliases written out"),
        (MERGES, "x: line 5: more than 20000 values, aliases written out"),
        ("{a: " * 1500 + "1" + "}" * 1500, "x: line 1: values are nested more than 64 deep"),
        ("{a: " * 80 + "1" + "}" * 80, "x: line 1: values are nested more than 64 deep"),
    ],
)
def test_what_no_specification_holds_is_told_in_one_line_at_once(text: str, message: str) -> None:
    start = time.perf_counter()
    with pytest.raises(InputError) as told:
        specfile.parse_yaml(text, "x")
    assert str(told.value).startswith(message) and "\n" not in str(told.value)
    assert time.perf_counter() - start < 10

"""Multiple choice: which answer is right, in every form that files have, and which one a model picks."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers import toy_tasks as toy

from harness import methods
from harness.errors import InputError
from harness.objectives import sft
from harness.tasks import data, ranking
from harness.tasks.data import Example
from harness.tasks.evaluate import evaluate, majority_score
from harness.tasks.spec import TaskSpec

TASK: dict[str, Any] = {
    "name": "t",
    "kind": "multiple_choice",
    "source": {"local": "rows.jsonl"},
    "prompt": "{q}",
    "splits": {"validation": 2, "test": 2},
}
LISTED = {**TASK, "choices": "options", "label": "right"}


def load(folder: Path, rows: list[dict[str, Any]], **task: Any) -> list[Example]:
    """Every example of the rows, in their order, each under a question of its own."""
    numbered = [{"q": f"question {number}?", **row} for number, row in enumerate(rows * 6)]
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, numbered)))
    (folder / "t.yaml").write_text(yaml.safe_dump({**TASK, **task}))
    task_data = data.load(str(folder / "t.yaml"))
    everything = [*task_data.train, *task_data.validation, *task_data.test]
    return sorted(everything, key=lambda example: int(example.prompt.split()[1][:-1]))


@pytest.mark.parametrize(
    ("row", "task"),
    [
        ({"options": ["a", "b", "c"], "right": 1}, {"choices": "options", "label": "right"}),
        ({"options": ["a", "b", "c"], "right": "1.0"}, {"choices": "options", "label": "right"}),
        ({"a1": "a", "a2": "b", "k": 2}, {"choices": ["{a1}", "{a2}"], "label": "k", "choice_keys": ["1", "2"]}),
        (
            {"options": {"text": ["a", "b"], "label": ["X", "Y"]}, "k": "Y"},
            {"choices": "options.text", "label": "k", "choice_keys": "options.label"},
        ),
        ({"options": ["b", "a", "c"]}, {"choices": "options"}),
        ({"good": "b", "bad": "a"}, {"choices": ["{good}", "{bad}"]}),
        ({"options": "['a', 'b']", "right": 1}, {"choices": "options", "label": "right"}),
    ],
    ids=["from 0", "as a number", "templates", "keys in the row", "first of a list", "first template", "printed list"],
)
def test_the_right_one_in_every_form(tmp_path: Path, row: dict[str, Any], task: dict[str, Any]) -> None:
    for example in load(tmp_path, [row], **task):
        assert example.label == 1 and example.completion == "b"
        assert example.candidates[:2] == ("a", "b") and example.references == ("b",)


def test_choices_may_differ_in_number_and_stand_in_a_sentence(tmp_path: Path) -> None:
    rows = [{"options": ["a", "b"], "right": 0}, {"options": ["a", "b", "c", "d"], "right": 3}]
    first, second = load(tmp_path, rows, choices="options", label="right", completion="It is {choice}.")[:2]
    assert first.candidates == ("It is a.", "It is b.") and first.completion == "It is a."
    assert second.completion == "It is d." and second.label == 3


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"options": ["a", "b"], "right": 2}, "'2' is none of the 2 choices; valid: '0', '1'; name them"),
        ({"options": ["a", {"b": 1}], "right": 0}, "'options' must hold texts"),
    ],
)
def test_a_row_without_a_right_choice_is_told(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load(tmp_path, [row], **{name: LISTED[name] for name in ("choices", "label")})


def test_rows_with_one_choice_are_left_out_and_counted(tmp_path: Path) -> None:
    rows = [{"options": ["a", "b"], "right": 0}] * 11 + [{"options": ["a"], "right": 0}]
    load(tmp_path, rows, choices="options", label="right")
    notices = data.load(str(tmp_path / "t.yaml")).left_out
    assert notices == (
        "rows.jsonl: 6 of 72 rows are left out: 'options' is no list of at least two texts (first: line 12)",
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"choices": ()}, "needs 'choices'"),
        ({"choices": ["{a}"]}, "needs 'choices'"),
        ({"label": None, "choice_keys": ["a", "b"]}, "without 'label' the first choice is right"),
        ({"choices": ["{a}", "{b}"], "choice_keys": ["1", "2", "3"]}, "3 keys for 2 choices"),
        ({"choices": ["{a}", "{b}"], "choice_keys": ["1", "1"]}, "a key is there twice"),
        ({"completion": "{q}"}, r"must hold \{choice\}"),
        ({"prompt": "{q} {right}"}, "gives the answer away"),
        ({"labels": {"a": "b", "c": "d"}}, "belongs to kind 'classification'"),
        ({"metrics": ["rouge_l"]}, "does not rate a multiple_choice task"),
        ({"kind": "generation", "completion": "{a}", "label": None}, "belongs to kind 'multiple_choice'"),
    ],
)
def test_mistakes_in_the_task(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TaskSpec.model_validate({**LISTED, **changes}, strict=False)


def chosen(prompt: str, candidates: tuple[str, ...], label: int) -> Example:
    example = toy.example(prompt, candidates[label])
    return dataclasses.replace(example, label=label, candidates=candidates)


def test_the_likeliest_and_the_likeliest_per_character(monkeypatch: pytest.MonkeyPatch) -> None:
    examples = [chosen("a:", ("yes", "not at all"), 1), chosen("b:", ("yes", "not at all"), 0)]
    # -3 nats over 3 characters and -5 over 10: the first is likelier, the second is per character.
    monkeypatch.setattr(ranking, "likelihoods", lambda *_: [[-3.0, -5.0], [-2.0, -9.0]])
    tuned = methods.apply("baseline", toy.base())
    assert ranking.pick_choices(tuned, examples, 60) == ([0, 0], [1, 0])
    task = toy.data(
        "multiple_choice", examples, choices=["{c}", "{r}"], completion="{choice}", label="l", rejected=None
    )
    evaluation = evaluate(tuned, task, "test", 60)
    assert [(score.metric, score.value) for score in evaluation.scores] == [("accuracy", 0.5), ("accuracy_norm", 1.0)]
    assert [(answer.output, answer.references) for answer in evaluation.answers] == [
        ("yes", ("not at all",)),
        ("yes", ("yes",)),
    ]


def test_who_reads_nothing_picks_at_random() -> None:
    several = [chosen("a:", ("x", "y"), 1), chosen("b:", ("x", "y", "z", "w"), 0)]
    how: dict[str, Any] = {"choices": ["{c}", "{r}"], "completion": "{choice}", "label": "l", "rejected": None}
    task = toy.data("multiple_choice", several[:1], several, **how)
    assert majority_score(task) == pytest.approx((1 / 2 + 1 / 4) / 2)


@pytest.mark.slow
def test_a_model_learns_to_choose() -> None:
    pairs = [("a:", ("bcd", "efg"), 0), ("h:", ("bcd", "efg"), 1)]
    task = toy.data(
        "multiple_choice",
        [chosen(*one) for one in pairs] * 16,
        [chosen(*one) for one in pairs],
        choices=["{c}", "{r}"],
        completion="{choice}",
        label="l",
        rejected=None,
    )
    tuned = methods.apply("full", toy.base())
    sft.fit(tuned, task, toy.settings(learning_rate=1e-2, train_examples=32, batch_size=4))
    assert evaluate(tuned, task, "test", 60).primary.value == 1.0

"""``padding_share`` and ``example_tokens_cut``, counted by hand from batches and texts; the same for every method."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Any

import pytest
import torch
from helpers import toy_tasks as toy

from harness import methods, objectives
from harness.measure.processors import Processors
from harness.objectives import ppo
from harness.tasks.encode import encode
from harness.training import heads, trainer
from harness.training.trainer import History

pytestmark = pytest.mark.slow

#: Tokens are bytes: 'q:' is 2, ' y' with the end token 3; so 5, 7, 9 and 11 tokens.
RAGGED = [toy.example("q:", "y" * count) for count in (1, 3, 5, 7)]


def trained(method: str = "full", **changes: Any) -> History:
    budget = {"train_examples": 4, "batch_size": 2, **changes.pop("budget", {})}
    data = toy.data("generation", changes.pop("examples", RAGGED), max_new_tokens=20)
    return objectives.fit("sft", methods.apply(method, toy.base()), data, toy.settings(**budget), **changes)


def test_padding_is_counted_and_batches_have_similar_lengths() -> None:
    """5 and 7 tokens make one batch, 9 and 11 the other: 4 of 36 places are padding; at random it could be 12 of 44."""
    history = trained(budget={"epochs": 5})
    assert sorted((step.tokens, step.slots) for step in history.steps) == [(12, 14)] * 5 + [(20, 22)] * 5
    assert history.padding_share == pytest.approx(4 / 36)
    assert trained(packing=True).padding_share == 0


LABELLED: dict[str, Any] = {"label": "l", "labels": {"0": "a", "1": "b"}, "metrics": ["accuracy"]}


@pytest.mark.parametrize(
    ("kind", "task", "is_sorted"),
    [
        ("generation", {}, True),
        ("classification", LABELLED, False),
        ("multiple_choice", {"choices": ["a", "b"], "completion": "{choice}", "label": "l"}, False),
        ("regression", {"completion": "{number}", "label": "l"}, False),
    ],
)
def test_no_length_decides_which_examples_with_a_label_share_a_step(
    kind: str, task: dict[str, Any], is_sorted: bool
) -> None:
    """Spam is longer than other messages: batches of one length would teach one label at a time, and then the other."""
    examples = [toy.example("q" * count, label) for count, label in ((2, "a"), (20, "b"))] * 16
    data = toy.data(kind, examples, **task)
    history = objectives.fit("sft", methods.apply("full", toy.base()), data, toy.settings(train_examples=32))
    shared = [step for step in history.steps if step.slots is not None and step.tokens < step.slots]
    assert len(history.steps) == 8 and len(shared) == (0 if is_sorted else 8)


def test_every_method_has_the_same_examples_in_the_same_step() -> None:
    def tokens(method: str) -> list[tuple[int, int | None]]:
        return [(step.tokens, step.slots) for step in trained(method, budget={"epochs": 4}).steps]

    assert tokens("full") == tokens("lora") == tokens("prompt")


def test_examples_that_lost_tokens_are_counted() -> None:
    """16 tokens leave 8 for the prompt: one prompt is too long, one answer, and one example fits to the token."""
    examples = [
        toy.example("q" * 8, "y" * 6),  # 8, then a space, 6 letters and the end
        toy.example("q" * 9, "y"),
        toy.example("q:", "y" * 13),
        toy.example("q:", "y"),
    ]
    assert trained(budget={"max_length": 16}, examples=examples).cut_share == 2 / 4
    assert trained().cut_share == 0


def test_what_was_cut_is_no_part_of_what_an_encoding_equals() -> None:
    encoded = encode(toy.base().tokenizer, "q" * 9, "y", 16, 8)
    assert encoded.cut and encoded == replace(encoded, cut=False)


@pytest.mark.parametrize("objective", ["dpo", "rrhf", "orpo", "kto"])
def test_a_pair_is_cut_where_one_of_its_answers_is(objective: str) -> None:
    examples = [toy.example("q:", "y", "n" * 30), toy.example("q:", "y", "n"), toy.example("q:", "y" * 30, "n")]
    tuned = methods.apply("lora", toy.base())
    data = toy.data("preference", examples, max_new_tokens=4)
    history = objectives.fit(objective, tuned, data, toy.settings(train_examples=3, max_length=16))
    assert history.cut_share == pytest.approx(2 / 3)


def test_texts_that_a_head_reads_in_part_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte is a token, and the end is one: of these texts, two of four are longer than 8."""
    seen: dict[str, Any] = {}
    monkeypatch.setattr(heads, "train", lambda *_args, **known: seen.update(known))
    rows = [("q" * count, 1.0) for count in (1, 7, 8, 12)] + [("q" * 20, None)]
    heads.train_head(methods.apply("full", toy.base()), rows, toy.settings(max_length=8))
    assert seen["cut"] == [False, False, True, True]
    assert seen.get("lengths") is None, "a length may tell a label"


def test_the_share_of_the_processors_is_that_of_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    for place in (trainer, ppo):
        monkeypatch.setattr(place, "processors", lambda: contextlib.nullcontext(Processors(0.25)))
    assert trained().processor_share == 0.25
    data = toy.data("generation", RAGGED, max_new_tokens=2)
    tuned = methods.apply("full", toy.base())
    history = ppo.fit(tuned, data, toy.settings(), lambda _, answers: torch.ones(len(answers)), updates=1)
    assert history.processor_share == 0.25


def test_a_history_without_counted_batches_has_no_share() -> None:
    history = trained()
    first, second = history.steps
    assert replace(history, steps=(first, replace(second, slots=None))).padding_share is None
    assert replace(history, steps=()).padding_share is None

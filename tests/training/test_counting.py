"""``train_tokens``: the tokens of the rows that a step reads, each once, counted by hand for every objective."""

from __future__ import annotations

import pytest
import torch
from helpers import toy_tasks as toy

from harness import methods, objectives

pytestmark = pytest.mark.slow

#: Prompt and answers in bytes, which are the toy tokenizer's tokens: 'q:' is 2. A completion that continues plain text
#: has a space before it and the end token behind it: ' yyy' and the end are 5, ' nn' and the end 4.
PAIRS = (toy.example("q:", "yyy", "nn"), toy.example("qq:", "y", "nnnn"))
CHOSEN = (2 + 5) + (3 + 3)
BOTH = CHOSEN + (2 + 4) + (3 + 6)


@pytest.mark.parametrize(
    ("objective", "expected"),
    [("sft", CHOSEN), ("dpo", BOTH), ("rrhf", BOTH), ("orpo", BOTH), ("kto", BOTH)],
)
def test_tokens_of_what_is_given(objective: str, expected: int) -> None:
    tuned = methods.apply("full", toy.base())
    history = objectives.fit(objective, tuned, toy.data("preference", PAIRS), toy.settings(train_examples=2))
    assert [step.tokens for step in history.steps] == [expected]


def test_tokens_of_a_reward_model_are_those_of_both_answers() -> None:
    tuned = methods.apply("full", toy.base(scalar=True))
    history = objectives.fit("reward", tuned, toy.data("preference", PAIRS), toy.settings(train_examples=2))
    assert [step.tokens for step in history.steps] == [BOTH]


def test_tokens_of_blocks_have_no_padding() -> None:
    data = toy.data("corpus", [toy.example("", "x" * 31)], prompt="", completion="{c}")
    history = objectives.fit(
        "clm", methods.apply("full", toy.base()), data, toy.settings(train_examples=2, max_length=16)
    )
    assert [step.tokens for step in history.steps] == [2 * 16], "31 letters and the end token"


@pytest.mark.parametrize(("objective", "samples", "end"), [("ppo", 1, 0), ("rloo", 3, 1), ("grpo", 3, 1)])
def test_tokens_of_sampled_answers(objective: str, samples: int, end: int) -> None:
    """Each prompt is read with each of its answers, here of exactly one token; updates read the same rows again.

    Where TRL tokenises, the toy tokenizer puts an ``end`` token behind a prompt as well.
    """
    args = {"updates": 2} if objective == "ppo" else {"samples": samples}
    data = toy.data("preference", PAIRS, max_new_tokens=1)
    history = objectives.fit(
        objective,
        methods.apply("full", toy.base()),
        data,
        toy.settings(train_examples=2, batch_size=2),
        reward=lambda _, answers: torch.arange(len(answers), dtype=torch.float32),
        **args,
    )
    assert [step.tokens for step in history.steps] == [samples * ((2 + end + 1) + (3 + end + 1))]


def test_a_packed_row_counts_every_token() -> None:
    tuned = methods.apply("full", toy.base())
    history = objectives.fit("sft", tuned, toy.data("preference", PAIRS), toy.settings(train_examples=2), packing=True)
    assert [step.tokens for step in history.steps] == [CHOSEN]

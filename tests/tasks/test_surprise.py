"""What an answer costs the untouched model: the log-likelihood by hand."""

from __future__ import annotations

import pytest
import torch

from harness.models.load import Base, load
from harness.tasks.encode import completion_ids, prompt_ids
from harness.tasks.surprise import answer_nats

pytestmark = pytest.mark.slow

ANSWERS = [("How are you?", "fine"), ("Count.", "one two three four"), ("How are you?", ""), ("a\n", "b")]


@pytest.fixture(scope="module")
def base() -> Base:
    return load("tiny-llama", device="cpu")


def by_hand(base: Base, prompt: str, answer: str) -> tuple[float, int]:
    """Each token of the answer after all before it."""
    ids, own = prompt_ids(base.tokenizer, prompt), completion_ids(base.tokenizer, prompt, answer)[:-1]
    with torch.no_grad():
        logs = base.build()(torch.tensor([[*ids, *own]])).logits[0].double().log_softmax(-1)
    return -sum(float(logs[len(ids) + at - 1, token]) for at, token in enumerate(own)), len(own)


def test_every_token_of_the_answer_counts_and_none_of_the_prompt(base: Base) -> None:
    found = list(answer_nats(base, ANSWERS))
    assert found.pop(2) == (0.0, 0), "an empty answer has no token"
    for (nats, tokens), (prompt, answer) in zip(found, [one for one in ANSWERS if one[1]], strict=True):
        expected, count = by_hand(base, prompt, answer)
        assert tokens == count == len(completion_ids(base.tokenizer, prompt, answer)) - 1
        assert nats == pytest.approx(expected, rel=1e-4)


def test_company_in_a_batch_changes_nothing(base: Base) -> None:
    many = ANSWERS * 5
    assert [nats for nats, _ in answer_nats(base, many)] == pytest.approx(
        [nats for nats, _ in answer_nats(base, ANSWERS)] * 5, rel=1e-4
    )


def test_a_long_prompt_leaves_the_answer_whole(base: Base) -> None:
    ((_, tokens),) = answer_nats(base, [("word " * 2000, "yes")])
    assert tokens == len(completion_ids(base.tokenizer, "word", "yes")) - 1

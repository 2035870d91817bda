"""Bits per byte: what a text costs, whatever the tokenizer."""

from __future__ import annotations

import math

import pytest
import torch
from helpers import toy_tasks as toy

from harness import methods
from harness.networks.tuned import Tuned
from harness.tasks.evaluate import evaluate
from harness.tasks.likelihood import text_loss
from harness.tasks.metrics import score

pytestmark = pytest.mark.slow


def uniform() -> Tuned:
    """A model that finds each of its 259 tokens equally likely, in every place."""
    tuned = methods.apply("full", toy.base())
    with torch.no_grad():
        tuned.model.lm_head.weight.zero_()
    return tuned


def test_a_model_that_knows_nothing_pays_the_logarithm_of_its_vocabulary_for_each_token() -> None:
    """Of 'abcdefgh', 7 bytes and the end token are predicted: the first one is only read."""
    data = toy.data("corpus", [toy.example("", "abcdefgh")], prompt="", completion="{c}")
    scores = {one.metric: one.value for one in evaluate(uniform(), data, "test", 64).scores}
    assert scores["bits_per_byte"] == pytest.approx(8 * math.log2(259) / 7)
    assert scores["perplexity"] == pytest.approx(259)


@pytest.mark.parametrize(
    ("text", "max_length", "tokens", "size"),
    [
        ("abcdefghij", 64, 10, 9),
        ("é" * 5, 64, 10, 9),  # two bytes each
        ("日本", 64, 6, 5),
        ("abcdefghij", 4, 8, 7),  # blocks of 4, 4 and 3 tokens; three first ones are only read
    ],
)
def test_the_bytes_are_those_of_the_tokens_that_are_predicted(
    text: str, max_length: int, tokens: int, size: int
) -> None:
    loss = text_loss(uniform(), [text], max_length)
    assert (loss.tokens, loss.bytes) == ([tokens], [size])
    assert loss.nats == [pytest.approx(tokens * math.log(259), rel=1e-5)]


def test_without_a_byte_there_is_no_value() -> None:
    assert score("bits_per_byte", [0.0], [0]).reason == "the texts have no byte that can be predicted"

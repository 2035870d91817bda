"""Clozes: the likelihood of one right answer by hand, and whether greedy decoding writes it."""

from __future__ import annotations

import math

import pytest
import torch
from helpers import toy_tasks as toy

from harness import methods
from harness.networks.tuned import Tuned
from harness.tasks.cloze import read_answers
from harness.tasks.data import Example
from harness.tasks.encode import completion_ids, prompt_ids
from harness.tasks.evaluate import evaluate, generate

pytestmark = pytest.mark.slow

PASSAGES = ("he gave her a", "a longer passage about the", "so")


@pytest.fixture(scope="module")
def tuned() -> Tuned:
    return methods.apply("full", toy.base())


def by_hand(tuned: Tuned, example: Example, most: int = 99) -> float:
    """The nats of the first ``most`` tokens of the answer, each behind a plain reading of all before it."""
    tokenizer = tuned.base.tokenizer
    ids = prompt_ids(tokenizer, example.prompt)
    nats = 0.0
    for token in completion_ids(tokenizer, example.prompt, example.completion)[:-1][:most]:
        with torch.no_grad():
            logits = tuned.model(input_ids=torch.tensor([ids])).logits[0, -1].double()
        nats -= float(logits.log_softmax(-1)[token])
        ids = [*ids, token]
    return nats


def test_an_answer_costs_the_nats_of_its_tokens_without_the_end(tuned: Tuned) -> None:
    examples = [toy.example(passage, word) for passage, word in zip(PASSAGES, ("ring", "dog", "é"), strict=True)]
    read = read_answers(tuned, examples, max_length=64, max_new_tokens=8, batch_size=2)
    assert [one.nats for one in read] == pytest.approx([by_hand(tuned, e) for e in examples], rel=1e-4)


@pytest.mark.parametrize(("max_length", "room"), [(64, 4), (6, 3)])
def test_an_answer_that_is_longer_than_its_room_loses_its_end(tuned: Tuned, max_length: int, room: int) -> None:
    examples = [toy.example("so", word) for word in ("ringbearer", "a")]
    read = read_answers(tuned, examples, max_length, max_new_tokens=4)
    assert [one.nats for one in read] == pytest.approx([by_hand(tuned, e, room) for e in examples], rel=1e-4)
    assert read[0].nats < by_hand(tuned, examples[0]) - 1


def test_the_likeliest_answer_is_the_one_that_greedy_decoding_writes(tuned: Tuned) -> None:
    first = [toy.example(passage, "x") for passage in PASSAGES]
    likeliest = [one.likeliest for one in read_answers(tuned, first, 64, 8)]
    # One letter and the space before it: what follows is the model's own first tokens.
    written = generate(tuned, list(PASSAGES), 8, 64)
    assert all(len(text) <= 2 for text in likeliest)
    own = [toy.example(passage, text) for passage, text in zip(PASSAGES, written, strict=True) if text]
    hits = [one.is_likeliest for one in read_answers(tuned, own, 64, 8)]
    for example, hit in zip(own, hits, strict=True):
        ids = completion_ids(tuned.base.tokenizer, example.prompt, example.completion)[:-1]
        with torch.no_grad():
            whole = torch.tensor([[*prompt_ids(tuned.base.tokenizer, example.prompt), *ids]])
            best = tuned.model(input_ids=whole).logits[0, -len(ids) - 1 : -1].argmax(-1).tolist()
        assert hit is (best == ids)


def test_a_task_of_clozes_is_scored_by_both(tuned: Tuned) -> None:
    uniform = methods.apply("full", toy.base())
    with torch.no_grad():
        uniform.model.lm_head.weight.zero_()
    data = toy.data(
        "cloze",
        [toy.example("a b", "c"), toy.example("c d e", "fgh")],
        metrics=["cloze_accuracy", "cloze_perplexity"],
    )
    evaluation = evaluate(uniform, data, "test", 32)
    assert [score.metric for score in evaluation.scores] == ["cloze_accuracy", "cloze_perplexity"]
    # A space and one letter, and a space and three: 2 and 4 tokens of 259 each; the token that argmax takes is none.
    assert evaluation.scores[0].value == 0
    assert evaluation.scores[1].value == pytest.approx(math.exp((2 + 4) / 2 * math.log(259)), rel=1e-4)
    assert [answer.references for answer in evaluation.answers] == [("c",), ("fgh",)]

"""Evaluation by known answers: labels ranked by hand, answers that stop where they should, each split by its own."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from helpers import toy_tasks as toy

from harness import methods
from harness.networks.tuned import Tuned
from harness.tasks import evaluate as evaluation
from harness.tasks.data import Example, TaskData
from harness.tasks.encode import completion_ids, prompt_ids
from harness.tasks.evaluate import evaluate, evaluate_splits, generate, generate_ids, predict_labels, stop_ids
from harness.tasks.likelihood import prefers_chosen
from harness.tasks.ranking import rank_labels

LABELS = ("no", "perhaps", "entirely")
SENTENCES = tuple(f"It is {word}." for word in LABELS)
TASK: dict[str, Any] = {
    "label": "l",
    "labels": dict(zip("abc", LABELS, strict=True)),
    "completion": "It is {label_word}.",
    "metrics": ["accuracy", "macro_f1"],
}


def labelled(prompt: str, label: int) -> Example:
    example = toy.example(prompt, SENTENCES[label])
    return dataclasses.replace(example, label=label, candidates=SENTENCES)


@torch.no_grad()
def logprob(tuned: Tuned, prompt: str, answer: str) -> tuple[float, int]:
    """Log-probability of the whole answer, token by token without padding or company, and its tokens."""
    before, ids = prompt_ids(tuned.base.tokenizer, prompt), completion_ids(tuned.base.tokenizer, prompt, answer)
    logprobs = tuned.model(input_ids=torch.tensor([[*before, *ids]])).logits[0].log_softmax(-1)
    return sum(float(logprobs[len(before) + i - 1, token]) for i, token in enumerate(ids)), len(ids)


@pytest.mark.parametrize("method", ["baseline", "prompt", "prefix"])
def test_the_label_whose_sentence_is_likeliest_is_ranked_first(method: str) -> None:
    tuned = methods.apply(method, toy.base())
    examples = [labelled(prompt, 0) for prompt in ("a:", "which one is it?", "longer and longer still:")]
    expected = []
    for example in examples:
        sums = [logprob(tuned, example.prompt, sentence)[0] for sentence in SENTENCES]
        expected.append(sums.index(max(sums)))
    assert rank_labels(tuned, examples, 60, batch_size=4) == expected


def test_labels_are_told_apart_by_all_of_their_tokens() -> None:
    """The mean of the tokens prefers a long label of likely letters; the sum is the likelihood of the label."""
    tuned = methods.apply("baseline", toy.base())
    rated = {answer: logprob(tuned, "a:", answer) for answer in ("n", *(letter * 12 for letter in "abcdefghijk"))}
    (short, size), likely = rated["n"], max("abcdefghijk", key=lambda letter: rated[letter * 12][0]) * 12
    assert rated[likely][0] / rated[likely][1] > short / size and rated[likely][0] < short
    example = dataclasses.replace(labelled("a:", 0), candidates=(likely, "n"))
    assert rank_labels(tuned, [example], 60) == [1]


def test_labels_in_a_sentence_are_scored_as_their_words(monkeypatch: pytest.MonkeyPatch) -> None:
    data = toy.data("classification", [labelled("a:", 1), labelled("b:", 2), labelled("c:", 1)], **TASK)
    monkeypatch.setattr(evaluation, "rank_labels", lambda *_: [1, 2, 2])
    found = evaluate(methods.apply("baseline", toy.base()), data, "test", 60)
    assert found.primary.metric == "accuracy" and found.primary.value == pytest.approx(2 / 3)
    assert [(answer.output, answer.references) for answer in found.answers] == [
        ("perhaps", ("perhaps",)),
        ("entirely", ("entirely",)),
        ("entirely", ("perhaps",)),
    ]


def test_each_split_is_scored_by_its_own_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    train, validation, test = (tuple(labelled(f"{name}{i}:", 0) for i in range(2)) for name in ("x", "v", "t"))
    data = dataclasses.replace(toy.data("classification", train, **TASK), validation=validation, test=test)
    right = {"v0:": 0, "v1:": 0, "t0:": 0, "t1:": 1}
    monkeypatch.setattr(evaluation, "rank_labels", lambda _, examples, *rest: [right[e.prompt] for e in examples])
    tuned = methods.apply("baseline", toy.base())
    scores = {split: evaluate(tuned, data, split, 60) for split in ("validation", "test")}
    assert {split: found.primary.value for split, found in scores.items()} == {"validation": 1.0, "test": 0.5}
    assert [found.split for found in scores.values()] == ["validation", "test"]
    assert [answer.prompt for answer in scores["test"].answers] == ["t0:", "t1:"]


class Classifier(torch.nn.Module):
    """A head of three labels that goes by the first byte of a text: 'a' is 0, 'b' is 1, 'c' is 2."""

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
        return SimpleNamespace(logits=torch.nn.functional.one_hot(input_ids[:, 0] - 100, 3).float())


def test_the_labels_of_a_head_come_back_in_the_order_of_the_examples() -> None:
    base = toy.base(scalar=True)
    tuned = dataclasses.replace(methods.apply("baseline", base), model=Classifier())
    texts = ["bbbbbb", "a", "ccc", "b", "aaaa"]
    assert predict_labels(tuned, [toy.example(text, "") for text in texts], 20, batch_size=2) == [1, 0, 2, 1, 0]


def test_evaluation_switches_dropout_off(monkeypatch: pytest.MonkeyPatch) -> None:
    tuned = methods.apply("baseline", toy.base())
    tuned.model.train()
    monkeypatch.setattr(evaluation, "rank_labels", lambda tuned, *_: [0] if not tuned.model.training else [1])
    found = evaluate(tuned, toy.data("classification", [labelled("a:", 0)], **TASK), "test", 60)
    assert found.primary.value == 1.0 and not tuned.model.training


class Speaker(torch.nn.Module):
    """A network that answers every prompt with the same tokens, whatever it is asked."""

    def __init__(self, like: Any, says: Sequence[int]) -> None:
        super().__init__()
        self.generation_config, self.config, self._says = like.generation_config, like.config, list(says)
        self.head = torch.nn.Identity()
        self.width, self.said = 0, 0

    def get_output_embeddings(self) -> torch.nn.Module:
        return self.head

    def forward(self, input_ids: torch.Tensor, past_key_values: Any = None, **_: Any) -> Any:
        if past_key_values is None:
            past_key_values, self.width, self.said = transformers.DynamicCache(), input_ids.shape[1], 0
        nothing = torch.zeros(len(input_ids), 1, input_ids.shape[1], 1)
        past_key_values.update(nothing, nothing, 0)
        token = torch.nn.functional.one_hot(torch.tensor(self._says[self.said]), 259).float()
        self.said += 1
        return SimpleNamespace(logits=self.head(token.expand(*input_ids.shape, -1)), past_key_values=past_key_values)


def speaking(says: Sequence[int], ends: Any = 1) -> Tuned:
    tuned = methods.apply("baseline", toy.base())
    tuned.model.generation_config.eos_token_id = ends
    return dataclasses.replace(tuned, model=Speaker(tuned.model, says))


@pytest.mark.parametrize(("ends", "expected"), [(1, "abc"), ([2, 100], "a"), ([1, 101], "ab"), (None, "abc")])
def test_an_answer_stops_at_the_first_end_token_that_the_checkpoint_names(ends: Any, expected: str) -> None:
    """Bytes: 'a' is 100, 'b' 101, 'c' 102; 1 is the tokenizer's own end token."""
    tuned = speaking([100, 101, 102, 1, 103], ends)
    if ends == [2, 100]:
        tuned = speaking([100, 2, 102, 1], [2, 3])
    if ends == [1, 101]:
        tuned = speaking([100, 101, 105, 1], [105])
    assert generate(tuned, ["x:"], 5, 40) == [expected]
    assert set(stop_ids(tuned)) >= {1}
    assert tuned.model.said == len(expected) + 1, "nothing is asked for behind the end"


def test_answers_are_greedy_in_the_order_of_the_prompts_and_cut_like_the_training() -> None:
    tuned = speaking([100, 1])
    assert generate(tuned, ["y" * 100 + "\nx:", "z:"], 5, 40) == ["a", "a"]
    assert tuned.model.width == 35
    endless = speaking([100] * 9)
    assert generate(endless, ["x:"], 5, 40) == ["a" * 5] and endless.model.said == 5
    real = methods.apply("full", toy.base())
    prompts = [[101, 102], [103], [104, 105, 106]]
    together = generate_ids(real, prompts, 6, batch_size=2)
    assert together == [generate_ids(real, [one], 6)[0] for one in prompts]


def test_pairs_are_rated_by_the_mean_of_an_answers_tokens() -> None:
    tuned = methods.apply("baseline", toy.base())
    pairs = [toy.example("a:", "yy", "n" * 9), toy.example("a:", "n" * 9, "yy"), toy.example("c:", "what", "ever")]
    expected = []
    for pair in pairs:
        assert pair.rejected is not None
        (chosen, size), (rejected, other) = (logprob(tuned, pair.prompt, a) for a in (pair.completion, pair.rejected))
        expected.append(chosen / size > rejected / other)
    assert prefers_chosen(tuned, pairs, 60, 12, batch_size=2) == expected
    assert expected[0] != expected[1]


def test_a_preference_task_counts_the_pairs_in_the_right_order(monkeypatch: pytest.MonkeyPatch) -> None:
    data: TaskData = toy.data("preference", toy.PAIRS[:4], metrics=["accuracy"])
    monkeypatch.setattr(evaluation, "prefers_chosen", lambda *_: [True, True, False, True])
    found = evaluate(methods.apply("baseline", toy.base(scalar=True)), data, "test", 48)
    assert found.primary.value == 0.75
    assert [answer.output for answer in found.answers] == ["yyy", "yyyyy", "nnn", "yyyyy"]


def test_splits_that_are_evaluated_together_have_their_own_answers() -> None:
    tuned = methods.apply("full", toy.base())
    texts = ("a:", "a longer one:", "b:", "which?", "c:")
    examples = tuple(toy.example(text, text[0]) for text in texts)
    whole = toy.data("generation", examples, metrics=["exact_match", "rouge_l"])
    data = dataclasses.replace(whole, validation=examples[:2], test=examples[2:])
    both = evaluate_splits(tuned, data, ("validation", "test"), 40)
    assert list(both) == ["validation", "test"]
    assert both == {split: evaluate(tuned, data, split, 40) for split in both}
    assert len({answer.output for one in both.values() for answer in one.answers}) > 1

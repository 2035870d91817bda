"""What each example adds to a score: numbers whose mean is the score, under ids that follow from the text."""

from __future__ import annotations

import dataclasses
import math
import re
from typing import Any

import numpy as np
import pytest
from helpers import metric_samples as samples
from helpers import toy_tasks as toy

from harness import methods
from harness.methods.baseline import in_context
from harness.tasks import evaluate as evaluation
from harness.tasks.data import example_ids
from harness.tasks.evaluate import evaluate, majority_score
from harness.tasks.metrics import METRICS, mean_score, score


@pytest.mark.parametrize("name", sorted(set(METRICS) - {"meteor"}))
def test_the_mean_over_the_examples_is_the_score_and_its_spread_is_the_error(name: str) -> None:
    found = score(name, *samples.of(name, 60))
    assert len(found.values) == found.n == 60
    assert np.mean(found.values) == pytest.approx(found.value)
    assert found.stderr is not None
    assert np.std(found.values, ddof=1) / math.sqrt(60) == pytest.approx(found.stderr, rel=0.15)


def test_a_mean_is_made_of_the_examples_own_scores() -> None:
    found = score("exact_match", ["a", "b", "c"], ["a", "b", "d"])
    assert (list(found.values), dict(found.statistics)) == ([1, 1, 0], {})
    assert list(mean_score("reward", [0.5, -1.0]).values) == [0.5, -1.0]


def test_of_another_metric_the_sufficient_statistics_are_kept() -> None:
    nats, tokens = [4.0, 6.0, 5.0], [2, 3, 5]
    found = score("perplexity", nats, tokens)
    assert found.by_example == {"perplexity": found.values, "perplexity.nats": nats, "perplexity.tokens": tokens}
    # Without the first: exp(11 / 8); without the second: exp(9 / 7); without the third: exp(10 / 5).
    without = np.exp([11 / 8, 9 / 7, 2.0])
    assert list(found.values) == pytest.approx(list(np.exp(1.5) + 2 * (without.mean() - without)))

    kept = score("bleu", *samples.of("bleu", 60)).statistics
    lengths = [sum(kept[name]) for name in ("tokens", "reference_tokens")]
    shares = [math.log(sum(kept[f"correct_{n}"]) / sum(kept[f"total_{n}"])) / 4 for n in range(1, 5)]
    by_hand = 100 * math.exp(sum(shares)) * min(1, math.exp(1 - lengths[1] / lengths[0]))
    assert by_hand == pytest.approx(score("bleu", *samples.of("bleu", 60)).value)

    kept = score("macro_f1", ["a", "b", "b"], ["a", "a", "b"]).statistics
    assert dict(kept) == {"true": [0, 0, 1], "predicted": [0, 1, 1]}


def test_without_a_value_nothing_is_kept() -> None:
    assert score("bleu", ["a"], ["b"]).by_example == {"bleu": ()}


def test_an_id_follows_from_the_example_alone() -> None:
    examples = [toy.example("a:", "b"), toy.example("c:", "d"), toy.example("a:", "b"), toy.example("a:", "other")]
    ids = example_ids(examples)
    assert all(re.fullmatch(r"[0-9a-f]{12}-[0-9a-f]{6}(-2)?", one) for one in ids)
    assert len(set(ids)) == 4
    assert ids[2] == f"{ids[0]}-2", "given twice"
    assert ids[3].split("-")[0] == ids[0].split("-")[0] != ids[1].split("-")[0], "the same source"
    assert example_ids(examples[1:]) == (ids[1], ids[0], ids[3]), "whatever stands beside it"
    assert example_ids([toy.example("a:", "b")]) == ("bfc622d4a6d4-e55ddf",), "the same a year apart"


def test_examples_in_the_prompt_do_not_change_an_id() -> None:
    data = toy.data("generation", [toy.example(f"{n}:", "b") for n in range(4)], metrics=["rouge_l"])
    assert example_ids(in_context(data, 2).test) == example_ids(data.test)


def test_an_evaluation_names_its_examples() -> None:
    data = toy.data("generation", [toy.example(f"{n}:", "b") for n in range(3)], metrics=["rouge_l"])
    found = evaluate(methods.apply("baseline", toy.base()), data, "test", 60)
    assert found.examples == example_ids(data.test)
    assert len(found.primary.values) == 3


def test_the_best_one_label_for_every_example(monkeypatch: pytest.MonkeyPatch) -> None:
    task: dict[str, Any] = {"label": "l", "labels": {"y": "yes", "n": "no"}, "metrics": ["accuracy", "macro_f1"]}
    examples = [
        dataclasses.replace(toy.example(f"{n}:", "yes"), label=label, candidates=("yes", "no"))
        for n, label in enumerate((0, 0, 0, 1, 1))
    ]
    data = toy.data("classification", examples[2:], examples, **{**task, "completion": "{label_word}"})
    assert majority_score(data) == pytest.approx(0.6)
    monkeypatch.setattr(evaluation, "rank_labels", lambda *_: [0, 1, 0, 1, 0])
    assert list(evaluate(methods.apply("baseline", toy.base()), data, "test", 60).primary.values) == [1, 0, 1, 1, 0]
    assert majority_score(toy.data("generation", [toy.example("a:", "b")], metrics=["rouge_l"])) is None

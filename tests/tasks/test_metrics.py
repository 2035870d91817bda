"""Metrics against values worked out by hand, by the libraries that define them, and by repeated sampling."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest
import sacrebleu
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score, matthews_corrcoef

from harness.errors import InputError
from harness.tasks.metrics import METRICS, score

LABELS = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abc")), min_size=2, max_size=40)
TEXT = st.text(alphabet="abcde .", max_size=30)


def test_known_answers() -> None:
    assert score("accuracy", ["yes", "no", "no", "yes"], ["yes", "no", "yes", "yes"]).value == 0.75
    assert score("exact_match", ["A  b", "c"], [["a b"], ["d", "C"]]).value == 1.0
    assert score("matthews_correlation", list("ppppnnnn"), list("pppnnnnp")).value == 0.5
    # The longest common subsequence has 3 of 4 and 3 of 3 words: precision 1, recall 3/4.
    assert score("rouge_l", ["the cat sat"], ["the black cat sat"]).value == pytest.approx(2 * 0.75 / 1.75)
    assert score("rouge_1", ["running dogs"], ["run dog"]).value == 1.0  # stemmed
    assert score("rouge_2", ["a b c"], ["a b d"]).value == 0.5
    assert score("bleu", ["the cat is on the mat now"], ["the cat is on the mat now"]).value == pytest.approx(100)
    assert score("perplexity", [2 * math.log(8), 6 * math.log(8)], [2, 6]).value == pytest.approx(8)


def test_the_best_of_several_references_counts() -> None:
    one = score("rouge_l", ["a b c"], [["x y z"]]).value
    assert one == 0.0
    assert score("rouge_l", ["a b c"], [["x y z", "a b c"]]).value == 1.0
    assert score("accuracy", ["b"], [["a", "b"]]).value == 1.0


def test_labels_may_be_numbers() -> None:
    assert score("macro_f1", [0, 1, 1], [0, 1, 0]) == score("macro_f1", ["0", "1", "1"], ["0", "1", "0"])


@settings(deadline=None, max_examples=25)
@given(LABELS)
def test_class_metrics_agree_with_scikit_learn(pairs: list[tuple[str, str]]) -> None:
    predicted, truth = zip(*pairs, strict=True)
    assume(len({*predicted, *truth}) > 1)  # with one class scikit-learn warns
    assert score("macro_f1", predicted, truth).value == pytest.approx(f1_score(truth, predicted, average="macro"))
    assert score("matthews_correlation", predicted, truth).value == pytest.approx(matthews_corrcoef(truth, predicted))


@settings(deadline=None, max_examples=25)
@given(st.lists(st.tuples(TEXT, st.lists(TEXT, min_size=1, max_size=3)), min_size=2, max_size=8))
def test_corpus_metrics_agree_with_sacrebleu(rows: list[tuple[str, list[str]]]) -> None:
    predicted, references = [p for p, _ in rows], [rs for _, rs in rows]
    streams = [[rs[i] if i < len(rs) else None for rs in references] for i in range(max(map(len, references)))]
    assert score("bleu", predicted, references).value == pytest.approx(
        sacrebleu.corpus_bleu(predicted, streams, force=True).score
    )
    assert score("chrf", predicted, references).value == pytest.approx(sacrebleu.corpus_chrf(predicted, streams).score)


@settings(deadline=None, max_examples=15)
@given(st.sampled_from(sorted(set(METRICS) - {"perplexity"})), st.lists(st.tuples(TEXT, TEXT), min_size=2, max_size=6))
def test_values_stay_in_their_range(name: str, pairs: list[tuple[str, str]]) -> None:
    predicted, references = zip(*pairs, strict=True)
    found = score(name, predicted, references)
    metric = METRICS[name]
    assert metric.minimum <= found.value <= metric.maximum + 1e-9
    assert found.stderr is not None and found.stderr >= 0 and found.n == len(pairs)


def test_the_standard_error_of_a_share_is_the_binomial_one() -> None:
    found = score("accuracy", ["y"] * 30 + ["n"] * 70, ["y"] * 100)
    assert found.stderr == pytest.approx(math.sqrt(0.3 * 0.7 / 99))


def test_the_bootstrap_finds_the_spread_of_fresh_samples() -> None:
    """The standard error from one sample is near the spread of the metric over many samples of that size."""
    rng = np.random.default_rng(0)

    def sample() -> tuple[list[str], list[str]]:
        truth = rng.random(200) < 0.4
        wrong = rng.random(200) < 0.25
        return [str(x) for x in truth ^ wrong], [str(x) for x in truth]

    def value(predicted: list[str], truth: list[str]) -> float:
        found = METRICS["matthews_correlation"].statistics(predicted, [(label,) for label in truth])
        return found.value(found.rows.sum(0), len(truth))

    spread = statistics.stdev(value(*sample()) for _ in range(300))
    assert score("matthews_correlation", *sample()).stderr == pytest.approx(spread, rel=0.3)


def test_the_bootstrap_gives_the_same_number_twice() -> None:
    predicted, references = ["a b c d e", "b c", "e e a"], ["a b c d", "b d", "e a"]
    assert score("chrf", predicted, references) == score("chrf", predicted, references)
    assert score("chrf", predicted, references).stderr


def test_one_example_has_no_standard_error() -> None:
    single = score("accuracy", ["a"], ["a"])
    assert single.stderr is None
    assert str(single) == "accuracy: 1.000 (n = 1)"
    assert str(score("accuracy", ["a", "b"], ["a", "a"])) == "accuracy: 0.500 ± 0.500 (n = 2)"


def test_mistakes_are_told() -> None:
    with pytest.raises(InputError, match="metric: unknown name 'rougeL'; did you mean 'rouge_l'"):
        score("rougeL", ["a"], ["a"])
    with pytest.raises(ValueError, match="2 predictions for 1 references"):
        score("accuracy", ["a", "b"], ["a"])
    with pytest.raises(ValueError, match="0 predictions"):
        score("accuracy", [], [])


def test_evaluate_computes_the_same_without_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    evaluate_metrics = pytest.importorskip("harness.tasks.evaluate_metrics", reason="evaluate is not installed")

    def no_network(*_: object) -> None:
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket.socket, "connect", no_network)
    predicted, references = ["a b", "c"], [["a b", "x"], ["d"]]
    found = evaluate_metrics.load("rouge_l").compute(predictions=predicted, references=references)
    expected = score("rouge_l", predicted, references)
    assert found == {"rouge_l": expected.value, "rouge_l_stderr": expected.stderr}
    batches = evaluate_metrics.load("accuracy")
    for prediction, reference in [("a", "a"), ("a", "b")]:
        batches.add(prediction=prediction, reference=reference)
    assert batches.compute()["accuracy"] == 0.5

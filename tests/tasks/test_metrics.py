"""Metrics against values worked out by hand, by the libraries that define them, and by repeated sampling."""

from __future__ import annotations

import json
import math
import statistics
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import sacrebleu
import yaml
from helpers import metric_samples as samples
from helpers import toy_tasks as toy
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score, matthews_corrcoef

from harness import methods
from harness.errors import InputError
from harness.tasks import data
from harness.tasks.evaluate import evaluate
from harness.tasks.metrics import METRICS, mean_score, score
from harness.tasks.words import WordTokenizer

#: Metrics that rate any answer without a program beside Python.
OF_ANSWERS = sorted(set(METRICS) - {"meteor", *samples.OF_LOSSES, *samples.OF_NUMBERS})
#: Those that have no value for some answers, and a reason.
SOMETIMES_NONE = ("bleu", "cider", "f1", "nist")
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
    assert score("bits_per_byte", [2 * math.log(8), 6 * math.log(8)], [2, 4]).value == pytest.approx(8 * 3 / 6)


def test_the_best_of_several_references_counts() -> None:
    one = score("rouge_l", ["a b c"], [["x y z"]]).value
    assert one == 0.0
    assert score("rouge_l", ["a b c"], [["x y z", "a b c"]]).value == 1.0
    assert score("accuracy", ["b"], [["a", "b"]]).value == 1.0
    assert score("exact_match", ["b"], [["a", "B"]]).value == 1.0


def test_labels_may_be_numbers() -> None:
    assert score("macro_f1", [0, 1, 1], [0, 1, 0]) == score("macro_f1", ["0", "1", "1"], ["0", "1", "0"])


@pytest.mark.slow
@settings(deadline=None, max_examples=25)
@given(LABELS)
def test_class_metrics_agree_with_scikit_learn(pairs: list[tuple[str, str]]) -> None:
    predicted, truth = zip(*pairs, strict=True)
    assume(len({*predicted, *truth}) > 1)  # with one class scikit-learn warns
    assert score("macro_f1", predicted, truth).value == pytest.approx(f1_score(truth, predicted, average="macro"))
    assert score("matthews_correlation", predicted, truth).value == pytest.approx(matthews_corrcoef(truth, predicted))


@pytest.mark.slow
@settings(deadline=None, max_examples=25)
@given(st.lists(st.tuples(TEXT, st.lists(TEXT, min_size=1, max_size=3)), min_size=2, max_size=8))
def test_corpus_metrics_agree_with_sacrebleu(rows: list[tuple[str, list[str]]]) -> None:
    predicted, references = [p for p, _ in rows], [rs for _, rs in rows]
    streams = [[rs[i] if i < len(rs) else None for rs in references] for i in range(max(map(len, references)))]
    bleu = score("bleu", predicted, references)
    tokenize = sacrebleu.BLEU().tokenizer
    if any(len(tokenize(one).split()) >= 4 for several in references for one in several):
        assert bleu.value == pytest.approx(sacrebleu.corpus_bleu(predicted, streams, force=True).score)
    else:
        assert (bleu.value, bleu.stderr) == (None, None) and bleu.reason is not None
    assert score("chrf", predicted, references).value == pytest.approx(sacrebleu.corpus_chrf(predicted, streams).score)


@settings(deadline=None, max_examples=15)
@given(st.sampled_from(OF_ANSWERS), st.lists(st.tuples(TEXT, TEXT), min_size=2, max_size=6))
def test_values_stay_in_their_range(name: str, pairs: list[tuple[str, str]]) -> None:
    predicted, references = zip(*pairs, strict=True)
    found = score(name, predicted, references)
    metric = METRICS[name]
    if found.value is None:
        assert name in SOMETIMES_NONE and found.reason is not None
        return
    assert metric.minimum <= found.value <= metric.maximum + 1e-9
    assert found.n == len(pairs) and (found.stderr or 0) >= 0
    assert found.stderr is not None or name == "f1", "of few resamples with a positive label there is none"


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

    from harness.tasks.metrics import objects

    def no_network(*_: object) -> None:
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket.socket, "connect", no_network)
    predicted, references = ["a b", "c"], [["a b", "x"], ["d"]]
    found = objects.load("rouge_l").compute(predictions=predicted, references=references)
    expected = score("rouge_l", predicted, references)
    assert (found["rouge_l"], found["stderr"], found["values"]) == (expected.value, expected.stderr, [1.0, 0.0])
    batches = objects.load("accuracy")
    for prediction, reference in [("a", "a"), ("a", "b")]:
        batches.add(prediction=prediction, reference=reference)
    assert batches.compute()["accuracy"] == 0.5


# --- scripts ---------------------------------------------------------------------------------------------------------

TEXTS = {
    "Russian": "Кошка сидит на старом окне",
    "Chinese": "猫坐在旧窗户上",
    "Japanese": "猫は古い窓に座っている",
    "Hindi": "बिल्ली पुरानी खिड़की पर बैठी है",
    "Arabic": "القطة تجلس على النافذة القديمة",
    "Thai": "แมวนั่งอยู่บนหน้าต่างเก่า",
    "Korean": "고양이가 오래된 창문에 앉아 있다",
    "Greek": "Η γάτα κάθεται στο παλιό παράθυρο",
    "German": "Über den Straßen schläft die Katze",
}


@pytest.mark.parametrize("language", TEXTS)
def test_equal_texts_are_equal_in_every_script_and_other_texts_are_not(language: str) -> None:
    text = TEXTS[language]
    for name in ("rouge_1", "rouge_2", "rouge_l", "exact_match"):
        assert score(name, [text], [text]).value == 1.0
        assert score(name, ["the cat"], [text]).value == 0.0
    assert score("chrf", [text], [text]).value == pytest.approx(100)
    assert score("bleu", [text], [text]).value in (None, pytest.approx(100))
    decomposed = unicodedata.normalize("NFD", text)
    assert score("rouge_l", [decomposed], [text]).value == score("exact_match", [decomposed], [text]).value == 1.0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Кошки, КОШКА!", ["кошки", "кошка"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("中文 字", ["中", "文", "字"]),
        ("iPhone15を買った", ["iphone15", "を", "買", "っ", "た"]),
        ("running naïve dogs", ["run", "naïve", "dog"]),
        ("नहीं\u200cतो", ["नहीं\u200cतो"]),
        ("❤️ 🙂", ["❤", "\ufe0f", "🙂"]),
        ("ﬁnd １２", ["find", "12"]),
    ],
)
def test_words_of_other_scripts(text: str, words: list[str]) -> None:
    assert WordTokenizer().tokenize(text) == words


@settings(deadline=None, max_examples=200)
@given(st.text(alphabet=st.characters(max_codepoint=127), max_size=80))
def test_the_words_of_ascii_texts_are_those_of_rouge_score(text: str) -> None:
    from rouge_score.tokenizers import DefaultTokenizer

    assert WordTokenizer().tokenize(text) == DefaultTokenizer(use_stemmer=True).tokenize(text)


@settings(deadline=None, max_examples=20)
@given(st.text(alphabet="abcxyz .-A1", max_size=30), st.text(alphabet="abcxyz .-A1", max_size=30))
def test_rouge_of_ascii_texts_is_that_of_rouge_score(prediction: str, reference: str) -> None:
    from rouge_score.rouge_scorer import RougeScorer

    kinds = {"rouge_1": "rouge1", "rouge_2": "rouge2", "rouge_l": "rougeL"}
    scores = RougeScorer(list(kinds.values()), use_stemmer=True).score(reference, prediction)
    for name, kind in kinds.items():
        assert score(name, [prediction], [reference]).value == scores[kind].fmeasure


# --- the edges of each metric's domain -------------------------------------------------------------------------------

SENTENCE, OTHER = "a cat sat on a mat", "six dogs ran by us all"
#: (predictions, references): what each metric gives, in the order of COLUMNS.
COLUMNS = (
    "accuracy",
    "macro_f1",
    "matthews_correlation",
    "exact_match",
    "rouge_1",
    "rouge_2",
    "rouge_l",
    "bleu",
    "chrf",
)
EDGES = {
    "empty answer": (([""], [SENTENCE]), (0, 0, 0, 0, 0, 0, 0, 0, 0)),
    "empty reference": (([SENTENCE], [""]), (0, 0, 0, 0, 0, 0, 0, None, 0)),
    "both empty": (([""], [""]), (1, 1, 0, 1, 0, 0, 0, None, 0)),
    "identical": (([SENTENCE], [SENTENCE]), (1, 1, 0, 1, 1, 1, 1, 100, 100)),
    "two identical": (([SENTENCE, OTHER], [SENTENCE, OTHER]), (1, 1, 1, 1, 1, 1, 1, 100, 100)),
    "disjoint": (([OTHER], ["tt hh kk mm"]), (0, 0, 0, 0, 0, 0, 0, 0, 0)),
    "one word": ((["cat"], ["cat"]), (1, 1, 0, 1, 1, 0, 1, None, 100)),
    "one Russian word": ((["кот"], ["кот"]), (1, 1, 0, 1, 1, None, 1, None, 100)),
    "signs": ((["🙂"], ["🙂"]), (1, 1, 0, 1, 1, None, 1, None, 100)),
    "no word": ((["кот"], ["\u00a0"]), (0, 0, 0, 0, None, None, None, None, 0)),
    "constant predictions": ((["p", "p"], ["p", "q"]), (0.5, 1 / 3, 0, 0.5, 0.5, 0, 0.5, None, None)),
}


@pytest.mark.parametrize("edge", EDGES)
def test_every_metric_has_a_defined_value_or_a_reason(edge: str) -> None:
    (predictions, references), expected = EDGES[edge]
    for name, value in zip(COLUMNS, expected, strict=True):
        found = score(name, predictions, references)
        if edge == "constant predictions" and name == "chrf":
            assert found.value == pytest.approx(sacrebleu.corpus_chrf(["p", "p"], [["p", "q"]]).score)
            continue
        assert found.value == (None if value is None else pytest.approx(value, abs=1e-9)), name
        assert (found.reason is None) == (value is not None)
        assert found.stderr is None or len(predictions) > 1


@pytest.mark.parametrize(
    ("nats", "tokens", "reason"),
    [
        ([0.0], [0], "the texts have no token that can be predicted"),
        ([1e6], [1], "the value is not a finite number"),
        ([math.nan], [3], "the value is not a finite number"),
    ],
)
def test_a_perplexity_outside_its_domain_is_none(nats: list[float], tokens: list[int], reason: str) -> None:
    found = score("perplexity", nats, tokens)
    assert (found.value, found.stderr, found.reason) == (None, None, reason)
    assert str(found) == f"perplexity: none, {reason} (n = 1)"


# --- clusters --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("copies", [2, 5])
@pytest.mark.parametrize("name", sorted(set(METRICS) - {"meteor"}))
def test_copies_of_each_example_have_the_standard_error_of_one(name: str, copies: int) -> None:
    predictions, references = samples.of(name, 12, seed=1)
    tolerance = 0.02 if name == "bleu" else 1e-6  # its smoothing depends on the number of words
    one = score(name, predictions, references)
    several = score(name, predictions * copies, references * copies, clusters=list(range(12)) * copies)
    assert several.value == pytest.approx(one.value)
    assert one.stderr is not None and several.stderr == pytest.approx(one.stderr, rel=tolerance)
    assert (one.n, several.n) == (12, 12 * copies)
    naive = score(name, predictions * copies, references * copies)
    assert naive.stderr is not None and naive.stderr < 0.85 * one.stderr


def test_the_clustered_standard_error_is_that_of_miller() -> None:
    """Equation 4 of arXiv:2411.00640, term by term, with the correction G / (G - 1) for few clusters."""
    values, groups = [1.0, 0.0, 1.0, 1.0, 0.0, 0.5], ["a", "a", "b", "b", "b", "c"]
    mean, n = sum(values) / 6, 6
    within = sum((v - mean) ** 2 for v in values)
    across = sum(
        (values[i] - mean) * (values[j] - mean) for i in range(6) for j in range(6) if i != j and groups[i] == groups[j]
    )
    expected = math.sqrt(3 / 2 * (within + across)) / n
    assert mean_score("x", values, groups).stderr == pytest.approx(expected)
    assert mean_score("x", values).stderr == pytest.approx(statistics.stdev(values) / math.sqrt(n))
    assert mean_score("x", values, ["a"] * 6).stderr is None


def test_pairs_of_one_prompt_are_one_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Accuracy of pairs and the scores of their answers have the standard error of the prompts, not of the pairs."""
    rows = [{"p": f"say {i % 6}", "c": "y" * (1 + i // 6), "r": "n"} for i in range(18)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    task = {
        "name": "pairs",
        "kind": "preference",
        "source": {"local": "rows.jsonl"},
        "prompt": "{p}",
        "completion": "{c}",
        "rejected": "{r}",
        "splits": {"validation": 1, "test": 4},
        "metrics": ["accuracy", "chrf"],
    }
    (tmp_path / "task.yaml").write_text(yaml.safe_dump(task))
    found = data.load(str(tmp_path / "task.yaml"))
    assert len(found.test) == 12 and len(set(data.clusters(found.test) or ())) == 4
    prompts = [e.prompt for e in found.test]
    rated = [prompt in prompts[:1] for prompt in prompts]  # right on every pair of one prompt in four
    monkeypatch.setattr("harness.tasks.evaluate.prefers_chosen", lambda *_: rated)
    accuracy = evaluate(methods.apply("full", toy.base()), found, "test", 48).scores[0]
    assert (accuracy.value, accuracy.n) == (0.25, 12)
    # sd of (1, 0, 0, 0) is 1/2, over the square root of 4 prompts.
    assert accuracy.stderr == pytest.approx(0.25)


def test_a_task_may_name_what_several_inputs_share(tmp_path: Path) -> None:
    rows = "".join(f"passage {i % 3},question {i},yes\n" for i in range(9))
    (tmp_path / "rows.csv").write_text("passage,question,answer\n" + rows)
    task = {
        "name": "reading",
        "kind": "generation",
        "source": {"local": "rows.csv"},
        "prompt": "{passage}\n{question}",
        "completion": "{answer}",
        "cluster": ["passage"],
        "splits": {"validation": 1, "test": 7},
    }
    (tmp_path / "task.yaml").write_text(yaml.safe_dump(task))
    assert set(data.clusters(data.load(str(tmp_path / "task.yaml")).test) or ()) == {f"passage {i}" for i in range(3)}

"""F1 of one label, SQuAD's F1, NIST, CIDEr and METEOR against libraries, programs and values worked out by hand."""

from __future__ import annotations

import math
import shutil
import socket
from pathlib import Path
from typing import Any

import evaluate
import numpy as np
import pytest
import yaml
from helpers import command_line, own_tasks
from helpers import metric_samples as samples
from hypothesis import given, settings
from hypothesis import strategies as st
from nltk.translate.nist_score import corpus_nist
from sklearn.metrics import f1_score

from harness.sources import fetch, here
from harness.tasks.metrics import METRICS, meteor, objects, registry, score, scoring

TOKENS = st.lists(st.sampled_from("abcd"), min_size=5, max_size=9).map(" ".join)


def test_every_metric_is_an_evaluate_metric_that_scores_are_computed_with(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in METRICS:
        assert isinstance(objects.load(name), evaluate.Metric)
    answer: dict[str, Any] = {"f1": 0.25, "stderr": 0.5, "n": 1, "reason": None, "values": [0.25], "statistics": {}}
    asked: list[dict[str, Any]] = []

    def compute(self: objects.TaskMetric, **given: Any) -> dict[str, Any]:
        """evaluate adds to this text."""
        asked.append(given)
        return dict(answer)

    monkeypatch.setattr(objects.TaskMetric, "compute", compute)
    assert score("f1", [1], [1], options={"positive": "1", "step": 2}).value == 0.25
    assert asked == [{"predictions": ["1"], "references": [["1"]], "clusters": None, "positive": "1"}]


def test_a_metric_writes_nothing_and_asks_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate.config, "HF_METRICS_CACHE", str(tmp_path))
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("the network was used"))
    for name in sorted(set(METRICS) - {"meteor"}):
        predictions, references = samples.of(name, 8)
        assert score(name, predictions, references).value is not None
    assert list(tmp_path.iterdir()) == []


def test_half_of_a_surrogate_pair_is_no_obstacle() -> None:
    assert score("accuracy", ["a\ud800"], ["a"]).value == 0.0


@settings(deadline=None, max_examples=20)
@given(st.lists(st.tuples(st.sampled_from(["no", "yes"]), st.sampled_from(["no", "yes"])), min_size=2, max_size=20))
def test_f1_is_that_of_scikit_learn(pairs: list[tuple[str, str]]) -> None:
    predicted, truth = zip(*pairs, strict=True)
    for positive in ("yes", "no"):
        statistics = METRICS["f1"].statistics(predicted, [(one,) for one in truth], positive=positive)
        found = scoring.scored("f1", statistics, None)
        if positive in {*predicted, *truth}:
            assert found.value == pytest.approx(f1_score(truth, predicted, pos_label=positive, zero_division=0.0))
        else:
            assert (found.value, found.reason) == (None, f"no example is '{positive}', and none is taken for it")


def test_f1_of_a_constant_prediction() -> None:
    assert score("f1", ["0", "0"], ["0", "1"]).value == 0.0
    assert score("f1", ["1", "1"], ["0", "1"]).value == pytest.approx(2 / 3)
    assert score("f1", ["1", "1"], ["0", "1"], options={"positive": "0"}).value == 0.0


@pytest.mark.parametrize(
    ("answer", "references", "value"),
    [
        ("The Eiffel tower!", ["eiffel tower"], 1),
        ("tower of London", ["the tower"], 2 / 4),
        ("in 1912", ["1911", "1912"], 2 / 3),
        ("", ["x"], 0),
        ("x", [""], 0),
        ("", ["the"], 1),
        ("кот", ["кот и пёс"], 2 / 4),
    ],
)
def test_the_f1_of_words_is_that_of_squad(answer: str, references: list[str], value: float) -> None:
    assert score("token_f1", [answer], [references]).value == pytest.approx(value)


# --- NIST ------------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=20)
@given(st.lists(st.tuples(TOKENS, TOKENS), min_size=1, max_size=5))
def test_nist_with_one_reference_is_that_of_nltk(pairs: list[tuple[str, str]]) -> None:
    expected = corpus_nist([[right.split()] for _, right in pairs], [answer.split() for answer, _ in pairs])
    statistics = METRICS["nist"].statistics([a for a, _ in pairs], [(r,) for _, r in pairs])
    assert scoring.scored("nist", statistics, None).value == pytest.approx(expected)


def test_nist_of_a_sentence_of_nltks_documentation() -> None:
    """Its hypothesis 1 against reference 1 alone, in lower case."""
    answer = "It is a guide to action which ensures that the military always obeys the commands of the party"
    reference = "It is a guide to action that ensures that the military will forever heed Party commands"
    assert score("nist", [answer], [reference]).value == pytest.approx(2.6699346405228757)


def test_a_run_may_stand_in_any_reference() -> None:
    """Doddington 2002, equation 3. Of 8 words in the references, a stands there twice, b, c and d twice, too."""
    found = score("nist", ["a b c d"], [["a b", "c d a b c d"]])
    # Words: 4 x log2(8 / 2). 'b c' follows one of two b, and 'a b c' one of two 'a b': a bit each, the rest none.
    assert [found.statistics[f"information_{n}"][0] for n in range(1, 6)] == [8, 1, 1, 0, 0]
    assert found.statistics["reference_tokens"] == [4.0], "the mean length of the references"
    assert found.value == pytest.approx(8 / 4 + 1 / 3 + 1 / 2)
    # No reference has two a: one of them counts log2(4 / 2), b counts log2(4 / 1).
    assert score("nist", ["a a b"], [["a b", "a c"]]).statistics["information_1"] == [3.0]


def test_a_short_answer_loses_by_the_penalty_of_nist() -> None:
    """Two thirds of the reference's length halve the value: so is beta chosen."""
    whole = score("nist", ["a b c"], ["a b c"])
    assert whole.value == pytest.approx(math.log2(3))
    assert score("nist", ["a b"], ["a b c"]).value == pytest.approx(math.log2(3) / 2)


@pytest.mark.parametrize(
    ("answers", "references", "value"), [(["", "a"], ["a", "b"], 0.0), (["a"], [""], None), ([""], ["a b"], 0.0)]
)
def test_nist_at_the_edges_of_its_domain(answers: list[str], references: list[str], value: float | None) -> None:
    found = score("nist", answers, references)
    assert found.value == value and (found.reason is None) == (value is not None)


# --- CIDEr -----------------------------------------------------------------------------------------------------------


def test_cider_by_hand() -> None:
    """Of two examples, every run stands in one: each weighs log 2, which the cosines cancel."""
    found = score("cider", ["a b", "c x"], ["a b", "c d"])
    # Equal: words 1, pairs 1, no longer runs: 10 x 2 / 4. Of 'c x': one word of two: 10 x 1 / 2 / 4.
    assert list(found.values) == pytest.approx([5.0, 1.25])
    longer = score("cider", ["a b a", "c d"], ["a b", "c d"])
    words, pairs = (1 + 1) / math.sqrt(2 * 5), 1 / math.sqrt(2)  # the second 'a' is cut to one
    assert longer.values[0] == pytest.approx(10 * math.exp(-1 / 72) * (words + pairs) / 4)
    several = score("cider", ["a b", "c d"], [["a b", "y z"], ["c d"]])
    assert list(several.values) == pytest.approx([2.5, 5.0]), "the mean over the references"


def test_cider_is_that_of_its_authors_code() -> None:
    """The values of pycocoevalcap 1.2 for these words."""
    answers = ["a man rides a horse", "two dogs play in the park", "a red car", "a man eats"]
    references = [
        ["a man is riding a brown horse", "the man rides a horse on grass"],
        ["dogs play in a park", "two dogs run in the park together"],
        ["a red car on the road", "red car"],
        ["a man eats an apple", "man eating"],
    ]
    found = score("cider", answers, references)
    assert list(found.values) == pytest.approx([3.32382061, 3.85877617, 4.21336925, 2.39588712])


@pytest.mark.parametrize("answers", [["a b"], ["a b", "a b"]])
def test_where_no_word_tells_examples_apart_cider_has_no_value(answers: list[str]) -> None:
    found = score("cider", answers, ["a b"] * len(answers))
    assert found.value is None and found.reason is not None and "no word" in found.reason
    assert score("cider", ["", "x"], ["a b", "c d"]).value == 0.0


# --- METEOR ----------------------------------------------------------------------------------------------------------

#: Answer, reference, what meteor-1.5.jar counts, and its value of that.
COUNTED = (
    (
        "the cat sat on a mat",
        "the cat sat on the mat",
        [6, 6, 3, 3, 3, 3, 2, 2, *[0] * 12, 2, 5, 5],
        0.45876240259563655,
    ),
    (
        "Some dog ran fast over there",
        "A dog ran quickly.",
        [6, 5, 3, 2, 2, 2, *[0] * 10, 1, 1, 0, 0, 1, 3, 3],
        0.36261609784413634,
    ),
    ("the cat", "the cat", [2, 2, 1, 1, 1, 1, 1, 1, *[0] * 12, 1, 2, 2], 1.0),
    ("", "x", [0, 1, *[0] * 21], 0.0),
)
#: The program's value of the first two together, and of the last two, of which the first is equal to its reference.
TOGETHER = ((COUNTED[:2], 0.41163022382388115), (COUNTED[2:], 0.6106870229007633))


@pytest.mark.parametrize(("answer", "reference", "columns", "value"), COUNTED)
def test_meteor_of_counts_is_that_of_the_program(
    answer: str, reference: str, columns: list[float], value: float
) -> None:
    (row,) = meteor.summands(np.array([columns], dtype=float))
    assert meteor.value_of(row) == pytest.approx(value, abs=1e-12)


@pytest.mark.parametrize(("counted", "value"), TOGETHER)
def test_meteor_of_a_corpus_is_that_of_the_sums(counted: tuple[Any, ...], value: float) -> None:
    sums = meteor.summands(np.array([columns for _, _, columns, _ in counted], dtype=float)).sum(0)
    assert meteor.value_of(sums) == pytest.approx(value, abs=1e-12)


def test_without_java_meteor_has_no_value_but_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    found = score("meteor", ["a"], ["a"])
    assert (found.value, found.reason) == (None, "METEOR needs Java, and no 'java' is on the PATH")


def test_a_program_that_fails_leaves_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    java = tmp_path / "java"
    java.write_text("#!/bin/sh\necho 'no room for a heap' >&2\nexit 3\n")
    java.chmod(0o755)
    monkeypatch.setattr(shutil, "which", lambda _: str(java))
    monkeypatch.setattr(meteor, "resolve", lambda _: tmp_path)
    assert score("meteor", ["a"], ["a"]).reason == "METEOR's program failed with code 3: no room for a heap"


@pytest.mark.slow
@pytest.mark.long
def test_the_program_itself() -> None:
    if shutil.which("java") is None or not here.is_here(meteor.SOURCE):
        pytest.skip("no Java, or METEOR's program is not in the cache")
    found = score("meteor", [one[0] for one in COUNTED], [one[1] for one in COUNTED])
    counted = meteor.summands(np.array([columns for _, _, columns, _ in COUNTED], dtype=float))
    assert [list(row) for row in zip(*found.statistics.values(), strict=True)] == counted.tolist()


def test_a_metric_that_needs_files_says_so() -> None:
    assert [metric.name for metric in registry.METRICS.values() if metric.source] == ["meteor"]


def test_fetch_brings_the_files_of_metrics(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    task = own_tasks.task(tmp_path, "rows.csv", "q,a\nx,y\n", own_tasks.GENERATION, metrics=["meteor", "rouge_l"])
    sweep = {"name": "s", "models": ["tiny-llama"], "tasks": [task], "methods": {"lora": {}}}
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(sweep))
    asked: list[object] = []

    def resolve(source: object, **_: object) -> Path:
        asked.append(source)
        return tmp_path

    monkeypatch.setattr(fetch, "resolve", resolve)
    code, out, _ = command_line.run(monkeypatch, capsys, "fetch", str(tmp_path / "sweep.yaml"))
    assert code == 0 and f"meteor: {tmp_path}" in out and meteor.SOURCE in asked and "rouge_l" not in out

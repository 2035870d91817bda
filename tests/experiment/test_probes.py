"""Forgetting: exactly nothing where nothing changed, more where a model is wrecked, and by hand in between."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import own_tasks as own
from helpers import toy_tasks as toy

from harness import methods
from harness.errors import InputError
from harness.experiment import Experiment
from harness.experiment.probes import Probes, change
from harness.models.load import Base
from harness.networks.tuned import Tuned
from harness.sources.fetch import LocalSource
from harness.tasks import data as task_data
from harness.tasks.likelihood import text_nats
from harness.tasks.metrics import score
from harness.tasks.probes import SUITES, Suite
from harness.tasks.spec import load_spec

pytestmark = pytest.mark.slow

CORPUS = {"kind": "corpus", "splits": own.SPLITS}
CHOICES = {"kind": "multiple_choice", "prompt": "{q}", "choices": ["{a}", "{b}"], "splits": own.SPLITS}


@pytest.fixture
def suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Suite:
    """A suite of two tasks of one's own, and a cache of its own."""
    texts = [{"text": f"a text of {n} words " * (n + 1)} for n in range(6)]
    questions = [{"q": f"{n} and {n}", "a": f"{2 * n}", "b": f"{2 * n + 1}"} for n in range(6)]
    paths = []
    for name, rows, base in (("texts", texts, CORPUS), ("questions", questions, CHOICES)):
        (tmp_path / name).mkdir()
        paths.append(own.task(tmp_path / name, "rows.jsonl", own.jsonl(rows), {"name": name, **base}))
    small = Suite("retention", "", 1, text=paths[0], choices=(paths[1],), examples=2, max_length=96)
    monkeypatch.setitem(SUITES, "retention", small)
    monkeypatch.setenv("TUNEBENCH_CACHE", str(tmp_path / "cache"))
    return small


def base(**changes: Any) -> Base:
    """The toy decoder, as one with weights of its own."""
    toy_base = toy.base()
    return toy.base(spec=toy_base.spec.model_copy(update={"source": LocalSource(local="toy")}), **changes)


def asked(tuned: Any, of_base: Base, task: str = "trec") -> Probes:
    probes = Probes(("retention",), of_base, load_spec(task))
    probes.before()
    probes.after(tuned)
    return probes


def test_a_method_that_changed_nothing_forgot_exactly_nothing(suite: Suite) -> None:
    of_base = base()
    probes = asked(methods.apply("lora", of_base), of_base)
    assert probes.columns == {"forgetting": 0.0, "forgetting_stderr": 0.0}
    changes = [one.value for split, one in probes.scores() if split == "retention_change"]
    assert changes == [0.0, 0.0]


def test_a_wrecked_model_forgot_what_text_and_tokens_say(suite: Suite) -> None:
    of_base = base()
    tuned = methods.apply("full", of_base)
    texts = [example.completion for example in task_data.load(suite.text).test[:2]]
    nats, tokens = text_nats(tuned, texts, suite.max_length)
    with torch.no_grad():
        tuned.model.lm_head.weight *= -3
    wrecked, _ = text_nats(tuned, texts, suite.max_length)
    forgetting = asked(tuned, of_base).columns["forgetting"]
    assert forgetting is not None and forgetting > 0.5
    assert forgetting == pytest.approx((sum(wrecked) - sum(nats)) / sum(tokens))


def test_scores_stand_under_what_was_asked_when(suite: Suite) -> None:
    of_base = base()
    probes = asked(methods.apply("full", of_base), of_base)
    names = Counter(split for split, _ in probes.scores())
    assert names == {"retention": 4, "retention_before": 4, "retention_change": 2}
    metrics = {one.metric for split, one in probes.scores() if split == "retention"}
    assert metrics == {f"{suite.text}.{m}" for m in ("perplexity", "bits_per_byte")} | {
        f"{suite.choices[0]}.{m}" for m in ("accuracy", "accuracy_norm")
    }
    rows = list(probes.example_scores())
    assert len(rows) == len({(row["metric"], row["example"]) for row in rows}) == 2 * 2
    assert {row["split"] for row in rows} == {"retention_change"}


def test_what_a_notebook_draws_is_before_and_after(suite: Suite) -> None:
    of_base = base()
    tuned = methods.apply("full", of_base)
    with torch.no_grad():
        tuned.model.lm_head.weight.zero_()
    ((task, before, after),) = asked(tuned, of_base).before_and_after("perplexity")
    assert task == suite.text and after == pytest.approx(259, rel=1e-4)
    assert before is not None and before != after


def test_the_base_is_asked_once_for_all_trials(suite: Suite, monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[str] = []
    apply = methods.apply

    def counted(name: str, of_base: Base) -> Tuned:
        built.append(name)
        return apply(name, of_base)

    monkeypatch.setattr(methods, "apply", counted)
    for seed in (0, 1):
        Probes(("retention",), base(seed=seed), load_spec("trec")).before()
    assert built == ["baseline"]
    Probes(("retention",), base(dtype=torch.bfloat16), load_spec("trec")).before()
    monkeypatch.setitem(SUITES, "retention", Suite("retention", "", 2, suite.text, suite.choices, 1, 96))
    Probes(("retention",), base(), load_spec("trec")).before()
    assert built == ["baseline"] * 3, "another number format and other examples are other questions"


@pytest.mark.parametrize(
    ("of_base", "reason"),
    [
        (toy.base(checkpoint=None), "random weights know nothing"),
        (base(scalar=True), "one number as its output"),
        (toy.base(spec=base().spec.model_copy(update={"kind": "encoder"})), "'toy' is encoder"),
    ],
)
def test_what_answers_no_probe_says_why(suite: Suite, of_base: Base, reason: str) -> None:
    probes = asked(None, of_base)
    assert probes.columns == {} and not list(probes.scores()) and not list(probes.example_scores())
    assert len(probes.remarks) == 1 and reason in probes.remarks[0]


def test_the_data_that_a_trial_learns_is_not_asked(suite: Suite) -> None:
    of_base = base()
    probes = asked(methods.apply("lora", of_base), of_base, task=suite.text)
    assert probes.columns == {"forgetting": None, "forgetting_stderr": None}
    assert {one.metric for split, one in probes.scores() if split == "retention_change"} == {
        f"{suite.choices[0]}.accuracy"
    }
    assert probes.remarks == [f"no probe asks '{suite.text}', whose data is that of the trial's own task"]
    # The base is asked everything, for the trials of other tasks.
    assert f"{suite.text}.perplexity" in {one.metric for split, one in probes.scores() if split == "retention_before"}


def test_a_broken_model_has_no_forgetting_and_a_reason(suite: Suite) -> None:
    of_base = base()
    tuned = methods.apply("full", of_base)
    with torch.no_grad():
        tuned.model.lm_head.weight.fill_(math.nan)
    probes = asked(tuned, of_base)
    assert probes.columns == {"forgetting": None, "forgetting_stderr": None}
    assert probes.remarks == [
        f"the change of {suite.text}.nats_per_token has no value: the value is not a finite number"
    ]


def test_a_suite_that_does_not_exist_is_told() -> None:
    with pytest.raises(InputError, match=r"^budget\.probes: unknown name 'retain'; did you mean 'retention'\?"):
        Probes(("retain",), base(), load_spec("trec"))


def test_without_probes_nothing_is_asked() -> None:
    probes = Probes((), base(), load_spec("trec"))
    probes.before()
    probes.after(None)  # type: ignore[arg-type]
    assert (probes.columns, probes.remarks) == ({}, [])


def test_the_change_of_a_loss_is_that_of_its_sums() -> None:
    """Rises of 1 and 5 nats on 1 and 2 tokens: 6 / 3 = 2 each; 2 + (1 - 2) / 1.5 and 2 + (5 - 4) / 1.5."""
    before, after = score("perplexity", [2.0, 4.0], [1, 2]), score("perplexity", [3.0, 9.0], [1, 2])
    rise = change(before, after)
    assert rise.metric == "nats_per_token" and rise.value == pytest.approx(2.0)
    assert list(rise.values) == pytest.approx([2 - 2 / 3, 2 + 2 / 3])
    assert rise.stderr == pytest.approx(math.sqrt(2 * (2 / 3) ** 2) / math.sqrt(2))
    assert change(after, before).value == pytest.approx(-2.0)


def test_the_change_of_an_accuracy_is_paired() -> None:
    """Three of four questions are answered as before: only the fourth is uncertain."""
    before, after = score("accuracy", list("abcd"), list("abcx")), score("accuracy", list("abyd"), list("abcx"))
    fall = change(before, after)
    assert (fall.metric, fall.value, list(fall.values)) == ("accuracy", -0.25, [0, 0, -1, 0])
    assert fall.stderr == pytest.approx(0.25)
    assert change(before, before).stderr == 0


def test_without_a_value_there_is_no_change() -> None:
    fine, broken = score("perplexity", [2.0], [1]), score("perplexity", [math.nan], [1])
    for pair in ((fine, broken), (broken, fine)):
        assert change(*pair).value is None
        assert change(*pair).reason == "the value is not a finite number"


def test_a_trial_records_what_it_forgot_and_trains_as_without_probes(
    suite: Suite, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = toy.data("generation", [toy.example(f"a{n}:", "b") for n in range(4)], metrics=["exact_match"])
    load = task_data.load
    monkeypatch.setattr(task_data, "load", lambda name, *rest: data if name == "toy" else load(name, *rest))
    monkeypatch.setattr("harness.experiment.experiment.models.load", lambda *_args, **_kwargs: base())
    records, losses = [], []
    for probes in ([], ["retention"]):
        budget = {"train_examples": 4, "batch_size": 2, "max_length": 32, "probes": probes}
        run = Experiment("toy", "toy", "sft", budget, learning_rate=1e-2)
        run.apply("full")
        losses.append([step.loss for step in run.fit().steps])
        run.evaluate()
        records.append(run.record())
    silent, probed = records
    assert losses[0] == losses[1]
    assert not {"forgetting", "forgetting_stderr"} & silent.columns.keys()
    columns: dict[str, Any] = probed.columns
    assert columns["forgetting"] != 0 and columns["forgetting_stderr"] > 0
    assert probed.columns["test_score"] == silent.columns["test_score"]
    extra = [row for row in probed.tables["scores"] if row["split"].startswith("retention")]
    assert len(extra) == len(probed.tables["scores"]) - len(silent.tables["scores"]) == 10
    assert len(probed.tables["example_scores"]) - len(silent.tables["example_scores"]) == 4

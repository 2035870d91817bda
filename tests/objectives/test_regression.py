"""Regression on a tiny encoder: the loss by hand, a toy task that is learnt, what untrained heads say."""

from __future__ import annotations

import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import checkpoints
from helpers import toy_tasks as toy

from harness import methods, objectives
from harness.models import load as models
from harness.models.load import Base
from harness.objectives import sft
from harness.tasks.data import TaskData
from harness.tasks.evaluate import evaluate, head_outputs

pytestmark = pytest.mark.slow

#: A text of n letters stands for the number 100 + 10 n: far from what a fresh head says.
EXAMPLES = [replace(toy.example("b" * n, str(100 + 10 * n)), target=100.0 + 10 * n) for n in range(1, 9)]
DATA = toy.data("regression", EXAMPLES, label="l", completion="{number}", metrics=["pearson", "spearman", "mse"])


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    place: Path = checkpoints.save(tmp_path_factory.mktemp("encoder") / "bert", "bert")
    return models.load(str(place), labels=DATA.head_words, device="cpu")


def test_the_head_has_one_output(base: Base) -> None:
    assert base.has_head and base.learns_number and base.config().num_labels == 1
    assert not replace(base, labels=("yes", "no")).learns_number
    assert not toy.base(labels=("number",)).learns_number, "a decoder says its number"


@pytest.mark.parametrize(("method", "args"), [("full", {}), ("head", {}), ("lora", {"r": 2})])
def test_the_loss_is_the_squared_error_in_standard_deviations(base: Base, method: str, args: dict[str, Any]) -> None:
    tuned = methods.apply(method, base, **args)
    said = head_outputs(tuned, EXAMPLES, 48)[:, 0].tolist()
    targets = [e.target or 0.0 for e in EXAMPLES]
    mean, deviation = statistics.fmean(targets), statistics.pstdev(targets)
    expected = statistics.fmean((one - (y - mean) / deviation) ** 2 for one, y in zip(said, targets, strict=True))
    settings = toy.settings(1e-3, batch_size=8, train_examples=8)
    for module in tuned.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    history = objectives.fit("regression", tuned, DATA, settings)
    assert history.steps[0].loss == pytest.approx(expected, rel=1e-3)


def test_numbers_of_any_unit_are_learnt(base: Base) -> None:
    tuned = methods.apply("full", base)
    before = evaluate(tuned, DATA, "test", 48).scores
    objectives.fit("regression", tuned, DATA, toy.settings(3e-3, train_examples=8, batch_size=8, epochs=60))
    after = {one.metric: one.value for one in evaluate(tuned, DATA, "test", 48).scores}
    assert after["pearson"] is not None and after["pearson"] > 0.9
    error = before[2].value
    assert error is not None and after["mse"] is not None and after["mse"] < 0.2 * error


def test_an_encoder_that_was_not_trained_says_the_mean(base: Base) -> None:
    found = evaluate(methods.apply("baseline", base), DATA, "test", 48)
    by_name = {one.metric: one for one in found.scores}
    assert by_name["mse"].value == pytest.approx(statistics.pvariance([e.target or 0.0 for e in EXAMPLES]))
    assert by_name["pearson"].reason == "all predictions are equal, so nothing varies with them"
    assert {float(answer.output) for answer in found.answers} == {statistics.fmean(e.target or 0.0 for e in EXAMPLES)}


def test_a_decoder_learns_the_text_of_the_number(monkeypatch: pytest.MonkeyPatch) -> None:
    taught: list[TaskData] = []
    monkeypatch.setattr(sft, "fit", lambda tuned, data, settings: taught.append(data))
    objectives.fit("regression", methods.apply("full", toy.base()), DATA, toy.settings())
    assert taught == [DATA]

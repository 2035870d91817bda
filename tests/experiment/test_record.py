"""What a trial hands over: every number under its own name, from its own split, phase and variant."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import toy_tasks as toy

from harness.experiment import experiment as module
from harness.experiment.experiment import Experiment
from harness.measure.latency import Latencies, Latency
from harness.measure.memory import Peak
from harness.measure.roofline import Roofline
from harness.measure.training import Step
from harness.results import ownership
from harness.sources.fetch import LocalSource
from harness.tasks.evaluate import Answer, Evaluation
from harness.tasks.metrics import Score, score
from harness.training.proof import Proof
from harness.training.trainer import History, Point
from harness.trial import Budget

pytestmark = pytest.mark.slow

BUDGET = {"train_examples": 4, "batch_size": 2, "max_length": 32}
STEPS = tuple(
    Step(number, seconds, 100 * number, 1.0 / number, 1e-3 * number, 0.5 * number, 200 * number)
    for number, seconds in enumerate([9.0, 8.0, 1.0, 3.0, 2.0], start=1)
)
HISTORY = History(
    steps=STEPS,
    train_s=77.0,
    peak_train_bytes=1000,
    weights_bytes=400,
    gradients_bytes=40,
    optimizer_bytes=80,
    activations_bytes=300,
    first_step_flops=2_000_000,
    energy_j=5.0,
    peak_reserved_bytes=1100,
    process_bytes=1200,
    curves=(Point(2, "reward_margin", 0.25),),
    cut_share=0.125,
    first_step_repeated_flops=500_000,
    proof=Proof({}, {}, needed_flops_per_token=1000.0),
)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Experiment:
    """A trial on toy data whose measurements are given."""
    data = toy.data("generation", [toy.example("a:", "b")] * 4, metrics=["rouge_l", "exact_match"])
    monkeypatch.setattr("harness.experiment.experiment.tasks.load", lambda *_: data)
    stored = toy.base().spec.model_copy(update={"source": LocalSource(local="toy")})
    monkeypatch.setattr("harness.experiment.experiment.models.load", lambda *_args, **_kwargs: toy.base(spec=stored))
    monkeypatch.setattr(module, "roofline", lambda *_: Roofline("cpu", "float32", 5e6, 1.0, processor_share=1.0))
    made = Experiment("toy", "toy", "sft", BUDGET, seed=3, learning_rate=1e-3)
    made.apply("bitfit")
    made.history = HISTORY
    made.evaluations = {
        "validation": Evaluation(
            "validation", (Score("rouge_l", 0.7, 0.07, 10), Score("exact_match", 0.1, 0.01, 10)), ()
        ),
        "test": Evaluation(
            "test",
            (Score("rouge_l", 0.6, 0.06, 20), Score("exact_match", 0.2, 0.02, 20)),
            (Answer("a:", "said", ("right", "also right")),),
        ),
    }
    rows = [("plain", 1, "prefill", 0.5), ("plain", 1, "decode", 0.25), ("merged", 1, "prefill", 0.4),
            ("merged", 1, "decode", 0.2), ("plain", 8, "prefill", 1.5), ("plain", 8, "decode", 0.75)]  # fmt: skip
    made.latency = Latencies(
        Latency(variant=variant, batch_size=size, prompt_tokens=8, new_tokens=4, phase=phase, p50_s=p50, p95_s=2 * p50,
                tokens_per_s=1 / p50)
        for variant, size, phase, p50 in rows
    )  # fmt: skip
    made.checkpoint_bytes, made.peak_inference_bytes, made.eval_s = 123, 900, 6.0
    return made


def test_scores_are_those_of_their_split(run: Experiment) -> None:
    columns = run.record().columns
    expected = {
        "primary_metric": "rouge_l",
        "higher_is_better": True,
        "valid_score": 0.7,
        "test_score": 0.6,
        "test_stderr": 0.06,
        "test_examples": 20,
    }
    assert {name: columns[name] for name in expected} == expected


def test_costs_of_training(run: Experiment) -> None:
    """The first two steps warm up and count for nothing but the tokens."""
    columns = run.record().columns
    expected = {
        "train_steps": 5,
        "train_s": 77.0,
        "train_tokens": 1500,
        "train_tokens_per_s": (300 + 400 + 500) / 6,
        "train_step_s_median": 2.0,
        "train_step_s_p95": pytest.approx(2.9),
        "padding_share": 0.5,
        "example_tokens_cut": 0.125,
        "train_flops": 10_000 * 600,
        "recomputed_flops": 10_000 * 600 / 4,
        "needed_flops": 1000 * 300,
        "mfu": 10_000 * (600 + 800 + 1000) / 6 / 5e6,
        "peak_train_bytes": 1000,
        "gradients_bytes": 40,
        "optimizer_bytes": 80,
        "activations_bytes": 300,
        "energy_j": 5.0,
        "checkpoint_bytes": 123,
        "peak_inference_bytes": 900,
        "eval_s": 6.0,
    }
    assert {name: columns[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("measured", "share", "by_sheet", "expected"),
    [
        (5e6, 1.0, 8e6, {"mfu_of_measured_peak": 0.04, "mfu_of_data_sheet": 0.025}),
        (5e6, 0.5, 8e6, {"mfu_of_data_sheet": 0.025}),
        (5e6, 1.0, None, {"mfu_of_measured_peak": 0.04}),
        (1e5, 1.0, 2e5, {"mfu_of_data_sheet": 1.0}),
    ],
    ids=["both peaks", "others disturbed the measured one", "not in the list", "a peak that training exceeds is none"],
)
def test_needed_flops_are_a_share_of_each_peak(
    run: Experiment,
    monkeypatch: pytest.MonkeyPatch,
    measured: float,
    share: float,
    by_sheet: float | None,
    expected: dict[str, float],
) -> None:
    """The last three steps have 1200 tokens in 6 s, and a token needs 1000 FLOPs."""
    monkeypatch.setattr(module, "roofline", lambda *_: Roofline("a card", "float32", measured, 1.0, share))
    monkeypatch.setattr(module, "accelerator", lambda _: "a card")
    monkeypatch.setattr(module, "data_sheet_flops_per_s", lambda *card: {("a card", "float32"): by_sheet}[card])
    columns = run.record().columns
    found = {name: columns.get(name) for name in ("mfu_of_measured_peak", "mfu_of_data_sheet")}
    assert {name: value for name, value in found.items() if value is not None} == pytest.approx(expected)
    assert ("mfu" in columns) == (share == 1.0 and measured == 5e6)


@pytest.mark.parametrize(
    ("training", "latency", "expected"),
    [(1.0, 0.99, False), (0.5, 1.0, True), (1.0, 0.5, True), (None, 0.5, True), (None, None, None)],
)
def test_a_row_is_disturbed_where_one_of_its_timed_regions_was(
    run: Experiment, monkeypatch: pytest.MonkeyPatch, training: float | None, latency: float | None, expected: bool
) -> None:
    monkeypatch.setattr(module, "undisturbed", lambda _: ([], latency))
    run.history = dataclasses.replace(HISTORY, processor_share=training)
    run.measure_inference()
    assert run.record().columns["disturbed"] is expected


def test_latency_is_measured_at_the_batch_sizes_of_the_budget(run: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a method that can be folded into the weights, both ways."""
    asked: list[tuple[Any, ...]] = []

    def measure(_network: Any, *_place: Any, variant: str, batch_size: int, new_tokens: int) -> list[Latency]:
        asked.append((variant, batch_size, new_tokens))
        return []

    monkeypatch.setattr(module, "generation_latency", measure)
    # Once each, also where other work disturbs this test.
    monkeypatch.setattr(module, "undisturbed", lambda act: (act(), 1.0))
    run.budget = Budget.model_validate({**BUDGET, "latency_batches": [4]})
    run.apply("lora")
    run.measure_inference(new_tokens=3)
    assert asked == [(variant, size, 3) for variant in ("plain", "merged") for size in (1, 4)]
    asked.clear()
    run.measure_inference(new_tokens=3, batch_size=2)
    assert asked == [("plain", 2, 3), ("merged", 2, 3)]


def test_sizes_of_the_network(run: Experiment) -> None:
    columns: dict[str, Any] = run.record().columns
    assert columns["total_params"] == sum(p.numel() for p in run.applied().model.parameters())
    trainable = sum(p.numel() for p in run.applied().model.parameters() if p.requires_grad)
    assert 0 < columns["trainable_params"] == trainable < columns["total_params"]
    assert columns["trainable_share"] == trainable / columns["total_params"]
    buffers = sum(buffer.numel() for buffer in run.applied().model.buffers())
    assert columns["weights_bytes"] == 4 * (columns["total_params"] + buffers)


@pytest.mark.parametrize(("method", "expected"), [("bitfit", "float32"), ("full", "float32"), ("baseline", None)])
def test_what_trains_in_sixteen_bits_is_held_in_thirty_two(
    run: Experiment, monkeypatch: pytest.MonkeyPatch, method: str, expected: str | None
) -> None:
    monkeypatch.setattr(run, "base", toy.base(dtype=torch.bfloat16, spec=run.base.spec))
    run.apply(method)
    assert run.record().columns["trainable_dtype"] == expected


def test_latency_of_a_row_is_that_of_the_plain_model_at_batch_one(run: Experiment) -> None:
    columns = run.record().columns
    assert columns["prefill_s_p50"] == 0.5
    assert columns["decode_s_per_token_p50"] == 0.25
    assert columns["decode_tokens_per_s"] == 4.0
    assert len(run.record().tables["latency"]) == 6


def test_the_long_tables(run: Experiment) -> None:
    run.add_scores("base", Score("reward", 0.9, None, 1))
    tables = run.record().tables
    scores = {(row["split"], row["metric"]): row["value"] for row in tables["scores"]}
    assert scores == {
        ("validation", "rouge_l"): 0.7,
        ("validation", "exact_match"): 0.1,
        ("test", "rouge_l"): 0.6,
        ("test", "exact_match"): 0.2,
        ("base", "reward"): 0.9,
    }
    assert tables["generations"] == [
        {"example": 0, "prompt": "a:", "output": "said", "reference": "right ||| also right"}
    ]
    curves = {(row["metric"], row["step"]): row["value"] for row in tables["curves"]}
    assert curves["loss", 4] == 0.25 and curves["learning_rate", 4] == 4e-3 and curves["grad_norm", 4] == 2.0
    assert curves["step_s", 4] == 3.0 and curves["tokens", 4] == 400 and curves["slots", 4] == 800
    assert curves["reward_margin", 2] == 0.25
    memory = {(row["phase"], row["category"]): row["bytes"] for row in tables["memory"]}
    assert {place: size for place, size in memory.items() if place[0] == "train"} == {
        ("train", "weights"): 400,
        ("train", "gradients"): 40,
        ("train", "optimizer"): 80,
        ("train", "activations"): 300,
        ("train", "peak"): 1000,
        ("train", "reserved"): 1100,
        ("train", "process"): 1200,
        ("train", "other"): 180,
    }
    assert memory["evaluate", "peak"] == 900


def test_the_peak_of_inference_is_the_largest_of_all_evaluations(
    run: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = iter([950, 920])

    @contextlib.contextmanager
    def peak_memory(_device: Any) -> Any:
        yield Peak(next(sizes))

    monkeypatch.setattr(module, "peak_memory", peak_memory)
    monkeypatch.setattr(module, "evaluate_splits", lambda *_: {"test": run.evaluations["test"]})
    run.evaluate("test")
    run.evaluate("test")
    assert run.record().columns["peak_inference_bytes"] == 950


def test_random_weights_have_no_quality(run: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    base = toy.base(checkpoint=None)
    assert base.spec.is_random
    monkeypatch.setattr(run, "base", base)
    outcome = run.record()
    assert outcome.columns.get("valid_score") is None and outcome.columns.get("test_score") is None
    assert outcome.tables["scores"] == []


def test_a_peak_that_training_exceeds_gives_no_utilisation(run: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "utilisation", lambda *_: 1.2)
    assert run.record().columns.get("mfu") is None


def test_evaluation_runs_validation_then_test(run: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def scored(_tuned: Any, _data: Any, splits: tuple[str, ...], max_length: int) -> dict[str, Evaluation]:
        asked.append((splits, max_length))
        values = {"validation": 0.9, "test": 0.1}
        return {split: Evaluation(split, (Score("rouge_l", values[split], None, 1),), ()) for split in splits}

    monkeypatch.setattr(module, "evaluate_splits", scored)
    assert run.evaluate().split == "test"
    assert asked == [(("validation", "test"), 32)]
    columns = run.record().columns
    assert (columns["valid_score"], columns["test_score"]) == (0.9, 0.1)


def test_a_checkpoint_is_kept_by_its_own_trial_and_where_a_person_says(
    run: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(ownership.VARIABLE, raising=False)
    of_trial, of_person = tmp_path / "s" / "artifacts" / "a1", tmp_path / "mine"
    assert run.save_and_reload(str(of_trial)) > 0
    assert not of_trial.exists(), "another process ran that trial"
    assert run.save_and_reload(str(of_person)) > 0
    assert of_person.is_dir()
    monkeypatch.setenv(ownership.VARIABLE, str(tmp_path / "s" / "trials" / "a1"))
    assert run.save_and_reload(str(of_trial)) > 0
    assert of_trial.is_dir()


@torch.no_grad()
def test_a_reload_that_answers_differently_is_an_error(run: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run.save_and_reload() > 0

    def changed(base: Any, folder: Any) -> Any:
        other = toy.base().build()
        other.lm_head.weight += 0.1
        return dataclasses.replace(run.applied(), model=other)

    monkeypatch.setattr(module, "load", changed)
    with pytest.raises(AssertionError):
        run.save_and_reload()


def test_what_each_example_adds_is_recorded_under_the_name_of_its_score(run: Experiment) -> None:
    """The judge's accuracy on the same pairs is another metric than the policy's; another split's scores have no id."""
    accuracy = score("accuracy", ["a", "b"], ["a", "a"])
    perplexity = score("perplexity", [2.0, 3.0], [1, 1])
    run.evaluations = {"test": Evaluation("test", (accuracy, perplexity), (), ("x-1", "y-2"))}
    run.add_scores("test", dataclasses.replace(accuracy, metric="reward_accuracy"), Score("kl", 0.5, None, 2))
    run.add_scores("base", accuracy)
    rows = run.record().tables["example_scores"]
    assert {row["split"] for row in rows} == {"test"}
    found = {(row["metric"], row["example"]): row["value"] for row in rows}
    assert len(found) == len(rows) == 10
    for metric, values in {
        "accuracy": (1, 0),
        "reward_accuracy": (1, 0),
        "perplexity.nats": (2, 3),
        "perplexity.tokens": (1, 1),
    }.items():
        assert (found[metric, "x-1"], found[metric, "y-2"]) == values

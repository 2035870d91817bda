"""Known numbers give known titles."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from helpers.trials_table import trials
from matplotlib.figure import Figure

from harness.figures import FIGURES
from harness.figures.grids import half_intervals
from harness.figures.learning_rate_regret import _regrets
from harness.results.schema import TABLES


def titles(name: str, *rows: dict[str, Any], **long: list[dict[str, Any]]) -> list[str]:
    """The titles of our own panels of a figure, of trials and long tables with these rows."""
    usual = {"primary_metric": "accuracy", "model_params": 1e6, "test_examples": 100, "test_stderr": 0.01}
    frames = {
        table: pd.DataFrame(long.get(table, []), columns=[column.name for column in TABLES[table].columns])
        for table in TABLES
    }
    numbered = [{"trial_id": f"t{place}", **usual, **row} for place, row in enumerate(rows)]
    figure = FIGURES[name]({**frames, "trials": trials(*numbered)})
    assert isinstance(figure, Figure), figure
    ours = [axes for axes in figure.axes if axes.get_facecolor() == (1, 1, 1, 1)]
    return [" ".join(axes.get_title(loc="left").split()) for axes in ours]


def tuned(method: str, score: float, seconds: float, base: float | None = 0.2) -> dict[str, Any]:
    return {"method": method, "test_score": score, "chain_train_s": seconds, "base_score": base}


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (
            [tuned("full", 0.8, 100), tuned("lora", 0.771, 40), tuned("head", 0.76, 10)],
            "lora is cheapest within 95 % of full’s gain (0.800): 40 s (one run each)",
        ),
        (
            [tuned("full", 0.8, 100, None), tuned("lora", 0.8, 100, None), tuned("head", 0.799, 1, None)],
            "full and lora are cheapest of those no worse than full (0.800): 100 s (one run each)",
        ),
        (
            [tuned("lora", -0.5, 30, -0.4), tuned("head", -0.6, 1, -0.4)],
            "lora is cheapest of those no worse than lora (-0.500): 30 s (one run each)",
        ),
    ],
    ids=["a gain", "a tie without a base", "a loss"],
)
def test_the_cheapest_that_reaches_the_target(rows: list[dict[str, Any]], said: str) -> None:
    assert titles("time_to_target", *rows) == [said]


def test_on_a_processor_the_tensors_count_and_not_the_interpreter() -> None:
    held = {"weights_bytes": 50, "gradients_bytes": 20, "optimizer_bytes": None, "activations_bytes": 10}
    row = {"method": "lora", "peak_train_bytes": 1000, "estimated_bytes": 100, **held}
    unknown = {**row, "method": "full", "estimated_bytes": None}
    said = "What was measured is {0} of the estimate, in the median {0}"
    for device, share in (("cpu", "80 % to 80 %"), ("cuda:0", "1000 % to 1000 %")):
        (title,) = titles("estimated_memory", {**row, "device": device}, {**unknown, "device": device})
        assert said.split("{0}")[0] + share in title, title


def test_regret_is_what_the_rate_lost_against_the_best_of_its_method() -> None:
    rows: list[dict[str, object]] = [
        {"trial_id": f"{method}{rate}{seed}", "method": method, "learning_rate": rate, "valid_score": score,
         "seed": seed, "status": status, "selected": selected}
        for method, rate, scores, status, selected in (
            ("full", 1e-5, (0.7, 0.9), "ok", True),
            ("full", 1e-4, (0.5, 0.5), "ok", False),
            ("lora", 1e-4, (0.6, 0.6), "ok", True),
            ("lora", 1e-3, (None, None), "diverged", False),
            ("lora", 1e-5, (0.9,), "ok", False),
            ("head", 1e-2, (0.4, 0.4), "ok", True),
        )
        for seed, score in enumerate(scores)
    ]  # fmt: skip
    frame = _regrets(trials(*rows)).set_index("trial_id")
    assert frame.regret.round(9).to_dict() == pytest.approx(
        {"full1e-050": 0.0, "full1e-051": 0.0, "full0.00010": 0.2, "full0.00011": 0.4, "lora0.00010": 0.0,
         "lora0.00011": 0.0, "lora0.0010": float("nan"), "lora0.0011": float("nan"), "lora1e-050": -0.3},
        nan_ok=True,
    )  # fmt: skip
    assert frame.ratio["lora0.0010"] == pytest.approx(100), "the unit is the best rate of full fine-tuning"
    assert frame.ratio["lora1e-050"] == 1 and frame.best_rate["lora1e-050"] == 1e-4, "one seed is not the choice"


def test_half_of_an_interval_that_ends_at_the_range_is_its_longer_side() -> None:
    frame = pd.DataFrame({"test_score": [0.5, 0.9, 0.1, 0.5], "ci_low": [0.4, 0.5, 0.0, np.nan],
                          "ci_high": [0.6, 1.0, 0.5, np.nan]})  # fmt: skip
    assert half_intervals(frame).tolist() == pytest.approx([0.1, 0.4, 0.4, np.nan], nan_ok=True)


def test_lower_is_better_turns_regret_round() -> None:
    rows: list[dict[str, object]] = [
        {
            "trial_id": f"t{rate}",
            "learning_rate": rate,
            "valid_score": loss,
            "higher_is_better": False,
            "selected": rate == 1e-4,
        }
        for rate, loss in ((1e-4, 2.0), (1e-3, 3.5))
    ]
    frame = _regrets(trials(*rows))
    assert frame.regret.tolist() == [0.0, 1.5]
    assert frame.ratio.tolist() == pytest.approx([1.0, 10.0]), "without full fine-tuning, its own best rate"


def test_a_thousand_tasks_take_a_thousand_checkpoints() -> None:
    rows = [{"method": "full", "checkpoint_bytes": 538e6}, {"method": "lora", "checkpoint_bytes": 10e6}]
    rows = [{**row, "test_score": 0.5} for row in rows]
    assert titles("storage_by_tasks", *rows) == [
        "For 1000 tasks, lora is smallest with 10 GB, full is largest with 538 GB"
    ]


def test_a_delta_is_compared_with_the_fine_tune_that_it_compresses() -> None:
    rows = [
        {"method": "full", "checkpoint_bytes": 500, "learning_rate": 1e-5},
        {"method": "full", "checkpoint_bytes": 900, "learning_rate": 1e-4},
        {"method": "bitdelta", "checkpoint_bytes": 50, "parents": json.dumps({"full": "t0"})},
    ]
    assert titles("bitdelta_sizes", *rows) == ["The fine-tune is 10 times as large as its delta"]


def step(trial_id: str, variant: str, batch: int, p50: float, p95: float | None = None) -> dict[str, Any]:
    return {"trial_id": trial_id, "variant": variant, "batch_size": batch, "prompt_tokens": 64, "new_tokens": 8,
            "phase": "decode", "p50_s": p50, "p95_s": 1.1 * p50 if p95 is None else p95}  # fmt: skip


@pytest.mark.slow
def test_latency_says_what_unmerged_costs_and_nothing_when_it_is_unsteady() -> None:
    steady = [step("t0", "merged", 1, 0.02), step("t0", "unmerged", 1, 0.025),
              step("t0", "merged", 8, 0.04), step("t0", "unmerged", 8, 0.041)]  # fmt: skip
    (said,) = titles("latency_vs_batch", {"method": "lora"}, latency=steady)
    assert said == "At batch 1, lora takes 1.25 times as long unmerged as merged"
    (said,) = titles(
        "latency_vs_batch", {"method": "lora"}, latency=[*steady[:3], step("t0", "unmerged", 8, 0.04, 0.1)]
    )
    assert said.startswith("These times do not show which is faster: the 95th percentile of lora, unmerged at 8 is 2.5")


def test_speed_is_no_headline_when_a_step_was_disturbed() -> None:
    rows = [
        {"method": "full", "train_tokens_per_s": 100.0, "train_step_s_median": 1.0, "train_step_s_p95": 1.2},
        {"method": "lora", "train_tokens_per_s": 50.0, "train_step_s_median": 1.0, "train_step_s_p95": 3.0},
    ]
    (said,) = titles("training_speed", *rows)
    assert said == (
        "These speeds do not show which trains faster: the 95th percentile of a step of lora is 3.0 times the median"
    )
    rows[1]["train_step_s_p95"] = 1.1
    assert titles("training_speed", *rows)[0].startswith("full trains fastest, 100 tokens per second")
    assert titles("training_speed", rows[1]) == ["lora trains on 50 tokens per second"], "no other speed, no fastest"


def test_reward_is_the_mean_over_seeds_and_stands_against_the_sft_model() -> None:
    rows = [{"objective": "dpo", "seed": seed, "method": "full"} for seed in (0, 1)]
    scores = [
        {"trial_id": f"t{seed}", "split": split, "metric": metric, "value": value, "stderr": 0.1, "n": 10}
        for seed in (0, 1)
        for split, metric, value in (
            ("test", "reward", 1.0 + seed), ("test", "kl", 3.0 + 2 * seed), ("base", "reward", 0.25),
        )
    ]  # fmt: skip
    assert titles("reward_vs_kl", *rows, scores=scores) == [
        "dpo is highest in reward: 1.500, 4.000 nats away; the SFT model has 0.250"
    ]


def test_fewer_bits_are_compared_with_the_plain_model() -> None:
    untrained = {"learning_rate": None, "test_score": 0.5}
    rows = [
        {"method": "baseline", "weights_bytes": 400, **untrained},
        {"method": "baseline", "method_args": '{"shots": 4}', "weights_bytes": 400, **untrained, "test_score": 0.9},
        {
            "method": "quantized",
            "method_args": '{"scheme": "nf4"}',
            "weights_bytes": 100,
            **untrained,
            "test_score": 0.4,
        },
    ]
    (said,) = titles("score_by_bits", *rows)
    assert said.startswith("nf4 scores 0.400") and "in 25 % of the bytes; baseline scores 0.500" in said


def losses(*curves: list[float]) -> list[dict[str, Any]]:
    """The training losses of trials ``t0``, ``t1``, …, from step 1 on."""
    return [
        {"trial_id": f"t{place}", "split": "train", "metric": "loss", "step": step, "value": value}
        for place, curve in enumerate(curves)
        for step, value in enumerate(curve, 1)
    ]


@pytest.mark.parametrize(
    ("curves", "said"),
    [
        (([2.0, 1.0], [2.0, 1.8, 1.5]), "full ends lowest: loss 1.00 after 2 steps"),
        (([2.0, 1.0], [2.0, 1.001]), "full ends lowest: loss 1.00 after 2 steps, as another ends"),
    ],
)
def test_the_lowest_loss_is_after_the_steps_of_its_own_curve(curves: tuple[list[float], ...], said: str) -> None:
    rows = [{"method": method, "test_score": 0.5, "valid_score": 0.5} for method in ("full", "lora")]
    assert titles("training_curves", *rows, curves=losses(*curves)) == [said]


def test_no_reward_model_is_compared_with_policies() -> None:
    costs = {"test_score": 0.5, "trainable_params": 100.0, "base_score": 0.2}
    policies = [{**costs, "method": "lora", "objective": "dpo", "trainable_params": 10.0},
                {**costs, "method": "full", "objective": "dpo"}]  # fmt: skip
    judge = {**costs, "method": "full", "objective": "reward", "test_score": 0.9}
    assert titles("score_vs_params", *policies, judge) == titles("score_vs_params", *policies)
    assert "0.900" in titles("score_vs_params", judge)[0], "alone, reward models have their figure"

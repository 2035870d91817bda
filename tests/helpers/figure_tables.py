"""A test helper: made-up tables in which every figure has something to show. Nothing here was measured."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from harness.results.schema import TABLES
from helpers.trials_table import trials

SIZES = {"base-60m": 60e6, "base-250m": 250e6, "base-1b": 1.1e9}
#: Method -> (share of the parameters that train, usual score, rate, share of full's memory, share of full's step time).
METHODS: dict[str, tuple[float, float, float, float, float]] = {
    "full": (1.0, 0.84, 5e-5, 1.0, 1.0),
    "lora": (0.007, 0.83, 5e-4, 0.62, 0.68),
    "qlora": (0.007, 0.82, 5e-4, 0.35, 0.85),
    "bitfit": (0.0009, 0.78, 1e-3, 0.6, 0.6),
    "prompt": (0.0001, 0.66, 3e-2, 0.58, 0.62),
}
PREFERENCES = {"dpo": (0.9, 14.0), "ppo": (1.1, 22.0), "best_of_n": (0.7, 4.8), "kto": (0.6, 11.0)}


@dataclass
class _Rows:
    """What grows: the rows of each table."""

    seeds: int
    noise: random.Random
    trials: list[dict[str, Any]] = field(default_factory=list)
    scores: list[dict[str, Any]] = field(default_factory=list)
    latency: list[dict[str, Any]] = field(default_factory=list)
    curves: list[dict[str, Any]] = field(default_factory=list)
    example_scores: list[dict[str, Any]] = field(default_factory=list)

    def add(self, model: str, task: str, method: str, score: float, **columns: Any) -> Iterator[str]:
        """A trial per seed, with its costs; yields the ids."""
        share, _, rate, memory, step = METHODS.get(method, (0.0, 0.0, 1e-3, 0.5, 0.7))
        size = SIZES[model]
        for seed in range(self.seeds):
            trial_id = f"{len(self.trials):012x}"
            value = score + self.noise.gauss(0, 0.008)
            peak = 16 * size * memory
            self.trials.append(
                {
                    "trial_id": trial_id, "model": model, "task": task, "method": method, "seed": seed,
                    "notebook": f"methods/{method}", "learning_rate": rate if share else None, "model_params": size,
                    "primary_metric": "accuracy", "valid_score": value - 0.01, "test_score": value,
                    "test_stderr": 0.015, "test_examples": 500, "base_score": 0.52, "total_params": size,
                    "trainable_params": share * size, "trainable_share": share, "checkpoint_bytes": 4 * share * size,
                    "weights_bytes": 4 * size, "gradients_bytes": 4 * share * size, "optimizer_bytes": 8 * share * size,
                    "activations_bytes": 3 * size, "peak_train_bytes": peak if share else None,
                    "estimated_bytes": peak * self.noise.uniform(0.85, 1.1) if share else None,
                    "train_tokens_per_s": 2e11 / size / step if share else None, "train_step_s_median": step,
                    "chain_train_s": 40 * step * size / 1e8 if share else None, "train_steps": 32,
                    "chain_energy_j": 4e3 * step * size / 1e8 if share else None, "parents": "{}",
                    "forgetting": 0.15 * share + 0.02 * score + self.noise.gauss(0, 0.004) if share else None,
                    **columns,
                }
            )  # fmt: skip
            yield trial_id

    def score(self, trial_id: str, split: str, metric: str, value: float) -> None:
        """One score with its standard error."""
        self.scores.append(
            {"trial_id": trial_id, "split": split, "metric": metric, "value": value, "stderr": 0.03, "n": 200}
        )


def figure_tables(seeds: int = 3) -> Mapping[str, pd.DataFrame]:
    """Tables by name, those of the studies too; the same for the same number of seeds."""
    rows = _Rows(seeds, random.Random(7))  # noqa: S311 - numbers of a test
    for part in (_sizes, _examples, _lengths, _bits, _latency, _compressed, _preferences):
        part(rows)
    long = {
        "scores": rows.scores,
        "latency": rows.latency,
        "curves": rows.curves,
        "example_scores": rows.example_scores,
    }
    frames = {name: pd.DataFrame(long.get(name, []), columns=[c.name for c in TABLES[name].columns]) for name in TABLES}
    return {**frames, "trials": trials(*rows.trials), "serving": _serving(), "ways": _ways()}


def _sizes(rows: _Rows) -> None:
    for place, model in enumerate(SIZES):
        for task in ("sst2", "boolq"):
            list(rows.add(model, task, "baseline", 0.52))
            for method, (_, level, rate, *_) in METHODS.items():
                score = level - 0.06 * (2 - place) * (2.0 if method == "prompt" else 1.0)
                for factor in (1.0, 0.2, 5.0):
                    worse = 0.0 if factor == 1 else 0.03 if factor < 1 else 0.09
                    ids = list(rows.add(model, task, method, score - worse, learning_rate=rate * factor))
                    rows.trials[-1]["status"] = "diverged" if factor == 5 and method == "full" else "ok"
                    for trial_id in ids:
                        rows.curves += [
                            {"trial_id": trial_id, "step": step, "split": "train", "metric": "loss",
                             "value": 0.4 + 1.5 / step + (1 - score) + rows.noise.gauss(0, 0.02)}
                            for step in range(1, 17)
                        ]  # fmt: skip


def _examples(rows: _Rows) -> None:
    for examples in (64, 256, 1024, 4096):
        grown = 0.05 * (examples / 64) ** 0.3
        for method, start in (("full", 0.55), ("bitfit", 0.63)):
            list(rows.add("base-250m", "rte", method, start + (1.6 if method == "full" else 1.0) * grown,
                          train_examples=examples))  # fmt: skip
        for rank in (2, 8, 32):
            score = 0.58 + (1.0 + 0.12 * rank**0.5) * grown
            list(
                rows.add(
                    "base-250m", "rte", "lora", score, train_examples=examples, method_args=json.dumps({"r": rank})
                )
            )


def _lengths(rows: _Rows) -> None:
    for tokens in (1, 5, 20, 100):
        for method, level in (("prefix", 0.78), ("prompt", 0.6)):
            score = level + 0.03 * min(tokens, 20) ** 0.4
            list(rows.add("base-250m", "e2e_nlg", method, score, method_args=json.dumps({"num_virtual_tokens": tokens}),
                          learning_rate=1e-2))  # fmt: skip


def _bits(rows: _Rows) -> None:
    size = SIZES["base-1b"]
    for scheme, bits, score in (("int8", 8.5, 0.518), ("nf4", 4.5, 0.505), ("fp4", 4.5, 0.49)):
        list(rows.add("base-1b", "sst2", "quantized", score, method_args=json.dumps({"scheme": scheme}),
                      weights_bytes=size * bits / 8))  # fmt: skip


def _latency(rows: _Rows) -> None:
    variants = {"full": (("plain", 1.0),), "lora": (("merged", 1.0), ("unmerged", 1.25))}
    for method, of_method in variants.items():
        for trial_id in rows.add("base-250m", "xsum", method, METHODS[method][1]):
            for number in range(30):
                right = float((number * 7 + len(rows.example_scores)) % 30 < (24 if method == "full" else 20))
                rows.example_scores.append(
                    {"trial_id": trial_id, "split": "test", "example": f"{number:012x}", "metric": "accuracy",
                     "value": right}
                )  # fmt: skip
            for variant, slower in of_method:
                for batch in (1, 4, 16, 64):
                    step = 0.03 * (slower + 0.02 * batch) * rows.noise.uniform(0.98, 1.02)
                    rows.latency.append(
                        {"trial_id": trial_id, "variant": variant, "batch_size": batch, "prompt_tokens": 64,
                         "new_tokens": 16, "phase": "decode", "p50_s": step, "p95_s": 1.2 * step,
                         "tokens_per_s": batch / step}
                    )  # fmt: skip


def _compressed(rows: _Rows) -> None:
    for model, size in SIZES.items():
        whole = list(rows.add(model, "gsm8k", "full", 0.4, checkpoint_bytes=2 * size))
        list(rows.add(model, "gsm8k", "bitdelta", 0.39, checkpoint_bytes=2 * size / 10.9, learning_rate=1e-4,
                      parents=json.dumps({"full": whole[0]})))  # fmt: skip


def _preferences(rows: _Rows) -> None:
    about: dict[str, Any] = {"primary_metric": "rouge_l"}
    model, task = "base-250m", "hh"
    for trial_id in rows.add(model, task, "baseline", 0.12, objective="sft", **about):
        rows.score(trial_id, "test", "rouge_l", 0.12)
        rows.score(trial_id, "test", "reward", -0.6)
    for method, level in (("full", 0.30), ("lora", 0.28)):
        for trial_id in rows.add(model, task, method, level, objective="sft", **about):
            rows.score(trial_id, "test", "rouge_l", level + rows.noise.gauss(0, 0.01))
        for objective, (reward, distance) in PREFERENCES.items():
            less = 0.15 if method == "lora" else 0.0
            for trial_id in rows.add(model, task, method, level - 0.03, objective=objective, **about):
                rows.score(trial_id, "test", "rouge_l", level - 0.03 + rows.noise.gauss(0, 0.01))
                rows.score(trial_id, "test", "reward", reward - less + rows.noise.gauss(0, 0.05))
                rows.score(trial_id, "test", "kl", distance * (1 - less) + rows.noise.gauss(0, 0.3))
                rows.score(trial_id, "test", "win_rate", 0.5 + 0.15 * reward - less / 4)
                rows.score(trial_id, "base", "reward", 0.1)
        list(rows.add(model, task, method, level + 0.38, objective="reward", primary_metric="accuracy"))


def _serving() -> pd.DataFrame:
    strategies = (
        ("copies", "full", 1.0, 1.0),
        ("merged, swapped", "lora", 0.6, 0.02),
        ("batched LoRA", "lora", 0.02, 0.01),
        ("batched BitDelta", "bitdelta", 0.08, 0.09),
    )
    cases = [("distinct", tenants) for tenants in (1, 4, 16, 64)] + [("uniform", 16), ("zipf", 16), ("identical", 16)]
    asked = {"uniform": 0.7, "zipf": 0.4, "identical": 1 / 16}
    rows = [
        {
            "trial_id": f"{popularity}", "model": "base-250m", "strategy": strategy, "method": method,
            "tenants": tenants, "batch_size": tenants, "popularity": popularity, "phase": phase, "p50_s": seconds,
            "p95_s": 1.1 * seconds, "tokens_per_s": tenants / seconds, "disturbed": False,
            "memory_bytes": 1e9 * (1 + larger * (tenants - 1)),
        }
        for strategy, method, slower, larger in strategies
        for popularity, tenants in cases
        for phase, share in (("decode", 1.0), ("whole", 1.4))
        for seconds in [0.03 * share * (1 + slower * max(0, tenants * asked.get(popularity, 1) - 1))]
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=[column.name for column in TABLES["serving"].columns])


def _ways() -> pd.DataFrame:
    """The execution study: each way with its factor of speed, its share of the activations, and its two places."""
    ways: list[tuple[str, float, float, int | None, str | None]] = [
        ("baseline", 1.0, 1.0, 0, None),
        ("+ packing", 1.3, 0.85, 1, None),
        ("+ loss chunked", 1.25, 0.5, 2, "gradient checkpointing"),
        ("+ gradient checkpointing", 0.95, 0.12, 3, None),
        ("all without packing", 0.75, 0.16, None, "packing"),
        ("all without loss chunked", 0.98, 0.3, None, "loss chunked"),
    ]
    rows = [
        {
            "trial_id": "ways", "model": "base-250m", "method": "lora", "way": way, "execution": "{}", "added": added,
            "without": without, "repeat": repeat, "tokens_per_s": 800 * factor * (1 + 0.03 * repeat * (factor - 0.6)),
            "activations_bytes": int(4e8 * kept), "disturbed": False,
        }
        for way, factor, kept, added, without in ways
        for repeat in range(3)
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=[column.name for column in TABLES["ways"].columns])

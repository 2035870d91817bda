"""A test helper: sweeps of made-up records, the same for the same arguments. Nothing here was measured."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from harness.files import RECORD_FILE
from harness.results.record import Outcome, Record
from harness.trial import Budget, Trial

#: Method -> (share of the parameters that train, usual score, share of full's step time, learning rate).
METHODS: dict[str, tuple[float, float, float, float | None]] = {
    "baseline": (0.0, 0.31, 0.0, None),
    "full": (1.0, 0.86, 1.0, 5e-5),
    "lora": (0.0068, 0.845, 0.63, 5e-4),
    "qlora": (0.0068, 0.835, 0.71, 5e-4),
    "bitfit": (0.0009, 0.78, 0.55, 1e-3),
    "adapter": (0.011, 0.84, 0.66, 5e-4),
    "prompt": (0.0001, 0.58, 0.60, 3e-2),
    "prefix": (0.0015, 0.72, 0.61, 1e-2),
    "head": (0.00005, 0.52, 0.30, 1e-3),
    "ia3": (0.0004, 0.76, 0.56, 5e-3),
    "dora": (0.0072, 0.85, 0.92, 5e-4),
    "p_tuning": (0.002, 0.64, 0.62, 1e-3),
}
MODEL_PARAMS = {"smollm2-135m": 134_515_008, "gemma3-270m": 268_098_176, "minilm-l6-22m": 22_713_986}
FAMILIES = {"smollm2-135m": "llama", "gemma3-270m": "gemma", "minilm-l6-22m": "bert"}
EXAMPLES = 71
START = datetime(2025, 1, 1, tzinfo=UTC)


def method_names(n: int) -> list[str]:
    """``n`` method names: the known ones first, then invented ones."""
    known = list(METHODS)
    return (known + [f"peft_{i}" for i in range(max(0, n - len(known)))])[:n]


def records(
    n_methods: int = 6,
    seeds: int = 3,
    models: Sequence[str] = ("smollm2-135m",),
    tasks: Sequence[str] = ("factual_summary",),
    rates: int = 2,
    curve_steps: int = 32,
    generations: int = 5,
    endings: dict[str, str] | None = None,
    sweep: str = "fake",
) -> Iterator[Record]:
    """Every method x rate x seed on each model and task; ``endings`` gives methods another status."""
    moment = START
    for model in models:
        for task in tasks:
            for method in method_names(n_methods):
                rate = METHODS.get(method, (0.005, 0.7, 0.6, 5e-4))[3]
                factors = [1.0] if rate is None else [1.0, 0.2, 5.0, 0.04, 25.0][:rates]
                for factor in factors:
                    for seed in range(seeds):
                        trial = Trial(
                            notebook=f"methods/{method}",
                            method=method,
                            method_args={"r": 8} if "lora" in method else {},
                            objective="classification" if "class" in task else "sft",
                            model=model,
                            task=task,
                            seed=seed,
                            learning_rate=None if rate is None else rate * factor,
                            budget=Budget(train_examples=8 * curve_steps),
                            device="cpu",
                        )
                        status = (endings or {}).get(method, "ok")
                        moment += timedelta(minutes=2)
                        yield _record(trial, status, sweep, moment, factor, curve_steps, generations)


def make_sweep(folder: Path, **kwargs: Any) -> list[str]:
    """Write :func:`records` under ``folder/trials/``; returns the ids in order."""
    ids = []
    for record in records(**kwargs):
        place = folder / "trials" / record.trial_id
        place.mkdir(parents=True)
        (place / RECORD_FILE).write_text(record.model_dump_json(), encoding="utf-8")
        ids.append(record.trial_id)
    (folder / "plan.json").write_text(json.dumps({"trials": [{"trial_id": i} for i in ids]}), encoding="utf-8")
    return ids


def _record(
    trial: Trial, status: str, sweep: str, moment: datetime, factor: float, steps: int, generations: int
) -> Record:
    measured = status == "ok"
    return Record(
        trial_id=trial.trial_id,
        sweep=sweep,
        trial=trial,
        status=status,  # type: ignore[arg-type]
        reason=None if measured else _REASONS[status],
        failed_cell=4 if status in ("failed", "oom") else None,
        attempt=0 if status == "skipped" else 1,
        started_at=moment,
        duration_s=None if status == "skipped" else 60.0,
        task_kind="classification" if "class" in trial.task else "generation",
        model_family=FAMILIES.get(trial.model),
        environment={
            "hostname": "fakehost",
            "processor": "Made-up CPU",
            "accelerator": None,
            "torch_version": "2.13.0",
            "transformers_version": "5.23.0",
            "git_commit": "0" * 40,
            "git_dirty": False,
        },
        outcome=_outcome(trial, factor, steps, generations) if measured else None,
    )


_REASONS = {
    "oom": "out of memory: tried to allocate 2.00 GiB",
    "timeout": "longer than 600 s",
    "diverged": "the loss is not finite at step 7",
    "failed": "ValueError: <b>broken</b> & unescaped",
    "skipped": "prefix does not work on this model",
}


def _outcome(trial: Trial, factor: float, steps: int, generations: int) -> Outcome:
    # By the id of one version, so that the numbers stay when the protocol changes.
    noise = random.Random(trial.model_copy(update={"protocol_version": 3}).trial_id)  # noqa: S311
    share, level, pace, _ = METHODS.get(trial.method, (0.005, 0.7, 0.6, 5e-4))
    base = MODEL_PARAMS.get(trial.model, 100_000_000)
    added = 0 if share in (0.0, 1.0) else int(share * base)
    trainable = int(share * base)
    classification = "class" in trial.task
    score = level - 0.04 * abs(math.log10(factor)) + noise.gauss(0, 0.012)
    step_s = 3.4 * pace * base / 134_515_008 * noise.uniform(0.95, 1.05)
    trains = trial.learning_rate is not None
    weights, gradients = 4 * base, 4 * trainable
    activations = int((5.9 if share == 1.0 else 5.3) * base) if trains else 0
    optimizer = 8 * trainable
    peak = weights + gradients + optimizer + activations + 200_000_000
    metric = "accuracy" if classification else "rouge_l"
    columns: dict[str, Any] = {
        "model_params": base,
        "train_steps": steps if trains else 0,
        "setup_s": 4.0,
        "train_s": step_s * steps if trains else None,
        "eval_s": 20.0,
        "total_params": base + added,
        "trainable_params": trainable,
        "trainable_share": trainable / (base + added),
        "checkpoint_bytes": 4 * trainable,
        "primary_metric": metric,
        "higher_is_better": True,
        "valid_score": score + noise.gauss(0, 0.01),
        "test_score": score,
        "test_stderr": 0.03,
        "test_examples": EXAMPLES,
        "majority_score": 0.25 if classification else None,
        "peak_inference_bytes": weights + 100_000_000,
    }
    if trains:
        columns |= {
            "train_tokens": 400 * steps,
            "train_tokens_per_s": 400 / step_s,
            "train_step_s_median": step_s,
            "train_step_s_p95": step_s * 1.1,
            "train_flops": 4.13e11 * pace,
            "mfu": 0.5,
            "peak_train_bytes": peak,
            "weights_bytes": weights,
            "gradients_bytes": gradients,
            "optimizer_bytes": optimizer,
            "activations_bytes": activations,
        }
    latency = _latency(trial.method, base, classification)
    if not classification:
        decode = next(row for row in latency if row["phase"] == "decode")
        columns |= {
            "prefill_s_p50": latency[0]["p50_s"],
            "decode_s_per_token_p50": decode["p50_s"],
            "decode_tokens_per_s": 1 / decode["p50_s"],
        }
    curves = []
    for step in range(1, steps + 1) if trains else ():
        loss = 4.2 * math.exp(-step / (10 / pace)) + 1.6 - level + abs(noise.gauss(0, 0.05))
        curves += [
            {"step": step, "split": "train", "metric": "loss", "value": loss},
            {"step": step, "split": "train", "metric": "learning_rate", "value": trial.learning_rate},
        ]
    return Outcome(
        columns=columns,
        tables={
            "scores": [
                {"split": "validation", "metric": metric, "value": columns["valid_score"], "n": 64},
                {"split": "test", "metric": metric, "value": score, "stderr": 0.03, "n": EXAMPLES},
            ],
            "example_scores": _by_example(trial, metric, score, noise),
            "curves": curves,
            "memory": [
                {"phase": "train", "category": name, "bytes": size}
                for name, size in (
                    ("weights", weights),
                    ("gradients", gradients),
                    ("optimizer", optimizer),
                    ("activations", activations),
                    ("peak", peak),
                )
            ]
            if trains
            else [],
            "latency": latency,
            "generations": [
                {
                    "example": i,
                    "prompt": f"Summarise article {i}: <script>alert({i})</script>",
                    "output": f"{trial.method} says \u201cthe & of\u201d {i}\nsecond line",
                    "reference": f"the right answer {i}",
                }
                for i in range(generations)
            ],
        },
    )


def _by_example(trial: Trial, metric: str, score: float, noise: random.Random) -> list[dict[str, Any]]:
    """What each test example adds: some are hard for every method, and all together give ``score``."""
    hard = random.Random(trial.task)  # noqa: S311
    values = [hard.gauss(0, 0.22) + noise.gauss(0, 0.12) for _ in range(EXAMPLES)]
    shift = score - sum(values) / EXAMPLES
    return [
        {"split": "test", "example": f"{i:012x}-000000", "metric": metric, "value": value + shift}
        for i, value in enumerate(values)
    ]


def _latency(method: str, base: int, classification: bool) -> list[dict[str, Any]]:
    token = 0.059 * base / 134_515_008 * (1.15 if method in ("lora", "dora", "adapter") else 1.0)
    setting = {"variant": "plain", "batch_size": 1, "prompt_tokens": 64}
    if classification:
        row = {
            "new_tokens": 0,
            "phase": "predict",
            "p50_s": token,
            "p95_s": 1.2 * token,
            "tokens_per_s": 64 / token,
        }
        return [setting | row]
    return [
        setting | {"new_tokens": 32, "phase": phase, "p50_s": p50, "p95_s": 1.2 * p50, "tokens_per_s": tokens / p50}
        for phase, p50, tokens in (("prefill", 4 * token, 64), ("decode", token, 1))
    ]

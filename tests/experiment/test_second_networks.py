"""While a policy learns from preferences, no network is in memory that its loss does not need."""

from __future__ import annotations

import dataclasses
import gc
from collections import Counter
from pathlib import Path
from types import SimpleNamespace as Namespace
from typing import Any

import pytest
import torch
from helpers.lengths import long_after
from torch._subclasses.fake_tensor import is_fake
from transformers import LlamaModel

from harness import methods
from harness.experiment import Experiment, chain, untouched
from harness.networks.tuned import Tuned
from harness.sources import cache

pytestmark = pytest.mark.slow

BUDGET = {"train_examples": 4, "batch_size": 2, "max_length": 64, "eval_examples": 2, "max_new_tokens": 2}
METHODS: dict[str, dict[str, Any]] = {"full": {}, "lora": {"r": 2}}


@pytest.fixture(autouse=True)
def remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No answer of an earlier test is in the cache: the networks that give them have to be loaded."""
    of_test = Namespace(root=lambda: tmp_path / "cache", build_once=cache.build_once)
    monkeypatch.setattr(untouched, "cache", of_test)


def comparison(folder: Path, objective: str, method: str) -> tuple[Experiment, chain.Comparison]:
    run = Experiment("tiny-llama", "factual_preference", objective, BUDGET, learning_rate=1e-3)
    methods.apply("full", dataclasses.replace(run.base, scalar=True)).save(folder / "judge")
    methods.apply("full", run.base).save(folder / "opponent")
    run.apply(method, **METHODS[method])
    return run, chain.Comparison(run, folder / "judge", folder / "opponent")


def alive() -> tuple[int, Counter[torch.Size]]:
    """How many networks are in memory, and how many tensors of each shape."""
    gc.collect()
    everything = gc.get_objects()
    # Each network has one of these inside, whatever its output is.
    networks = [found for found in everything if isinstance(found, LlamaModel)]
    # What a compiler traced with has no data.
    real = [found for found in everything if isinstance(found, torch.Tensor) and not is_fake(found)]
    tensors = {found.data_ptr(): found.shape for found in real}
    return len(networks), Counter(tensors.values())


@pytest.mark.parametrize(
    ("objective", "method"),
    long_after(1, [("dpo", "full"), ("best_of_n", "full"), ("kto", "lora"), ("orpo", "lora"), ("rrhf", "lora")]),
)
def test_neither_judge_nor_opponent_nor_reference_is_alive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, objective: str, method: str
) -> None:
    # What other tests of this process left in memory is counted first: it is none of this run's.
    networks, others = alive()
    run, against = comparison(tmp_path, objective, method)
    embedding = run.applied().model.get_input_embeddings().weight.shape
    seen: list[tuple[int, int]] = []

    def look(*_: Any) -> None:
        now, tensors = alive()
        seen.append((now - networks, tensors[embedding] - others[embedding]))

    monkeypatch.setattr(run, "_on_step", look)
    sampled = {"reward": against.reward, "after_sampling": against.release_judge} if objective == "best_of_n" else {}
    run.fit(**sampled)
    assert len(seen) == 2
    # A full fine-tune has the embedding and the two states of AdamW; tied, it is the output layer too.
    tensors = 3 if method == "full" else 1
    assert seen == [(1, tensors)] * 2
    against.record()
    assert alive()[0] == networks + 1


def test_the_trials_that_share_a_judge_and_an_opponent_ask_them_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[str] = []
    load = chain.load_parent

    def counted(run: Experiment, objective: str, folder: str | Path) -> Tuned:
        loaded.append(objective)
        return load(run, objective, folder)

    monkeypatch.setattr(chain, "load_parent", counted)
    runs, comparisons = zip(*(comparison(tmp_path, objective, "lora") for objective in ("dpo", "kto")), strict=True)
    assert loaded == ["sft", "reward", "reward"], "the second time, the judge is there for the rewards alone"
    assert comparisons[0].before == comparisons[1].before
    assert runs[0].scores == runs[1].scores and {*runs[0].scores} == {"base", "test"}


@pytest.mark.long
def test_an_objective_that_trains_by_the_judge_has_it_until_the_record(tmp_path: Path) -> None:
    run, against = comparison(tmp_path, "ppo", "lora")
    without, _ = alive()
    run.fit(reward=against.reward)
    assert alive()[0] == without + 1
    against.record()
    assert alive()[0] == without

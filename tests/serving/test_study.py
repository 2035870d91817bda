"""Rows of the study: every strategy runs on tiny models, counts its bytes, and fits into the table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.tenants import trained
from torch import nn

from harness.errors import InputError
from harness.measure.memory import weights_bytes
from harness.models.load import Base
from harness.results.builder import TableBuilder
from harness.results.schema import TABLES
from harness.results.validate import validate
from harness.serving import study as room
from harness.serving.compare import compare, random_prompts
from harness.serving.strategies import BaseAlone, Batched
from harness.serving.study import STRATEGIES, study
from harness.serving.tenant import Tenant, made_up
from harness.serving.workshop import Workshop

pytestmark = pytest.mark.slow

SIZES = {"r": 2, "bottleneck": 3, "num_virtual_tokens": 4}


def rows(base: Base, **settings: Any) -> dict[tuple[str, str], dict[str, Any]]:
    usual: dict[str, Any] = {"tenants": [3], "new_tokens": 3, "prompt_tokens": 4, "rounds": 1, "r": 2}
    return {(row["strategy"], row["phase"]): row for row in study(base, **{**usual, **settings})}


def test_every_strategy_gives_rows_that_fit_into_the_table(base: Base) -> None:
    measured = rows(base, virtual_tokens=4, bottleneck=3)
    builder = TableBuilder(TABLES["serving"])
    builder.extend(list(measured.values()), trial_id="0" * 12)
    validate(TABLES["serving"], builder.finish())
    assert {strategy for strategy, _ in measured} == set(STRATEGIES)
    weights = 4 * 106816
    lora = 4 * 2 * 2 * sum(i + o for i, o in ((64, 64), (64, 32), (64, 32), (64, 64), (64, 128), (64, 128), (128, 64)))
    cache = 4 * 2 * 2 * 2 * 16 * 3 * (4 + 2)
    assert measured["base alone", "decode"]["memory_bytes"] == measured["base alone", "decode"]["base_bytes"] + cache
    assert measured["copies", "decode"]["tenants_bytes"] >= 3 * weights
    assert measured["batched LoRA", "decode"]["tenants_bytes"] == 3 * lora
    assert measured["PEFT's mixed batch", "decode"]["tenants_bytes"] == 3 * lora
    assert measured["batched LoRA", "decode"]["cache_bytes"] == cache
    assert measured["batched prefixes", "decode"]["virtual_cache_bytes"] == cache // 6 * 4
    assert measured["batched prompts", "decode"]["virtual_cache_bytes"] == cache // 6 * 4
    assert measured["batched LoRA", "decode"]["virtual_cache_bytes"] == 0
    assert {strategy for strategy, phase in measured if phase == "swap"} == {
        "copies", "merged, swapped", "unmerged, one at a time",
    }  # fmt: skip
    assert {strategy for strategy, phase in measured if phase == "load"} == set(STRATEGIES) - {"base alone"}
    assert measured["base alone", "decode"]["tenants_from"] is None
    assert measured["copies", "decode"]["tenants_from"] == "made up"
    whole = measured["batched LoRA", "whole"]
    assert whole["tokens_per_s"] == pytest.approx(3 * 3 / whole["p50_s"])


def test_what_does_not_fit_is_a_row_with_its_size(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "free_bytes", lambda _device: 10**6)
    measured = rows(base, strategies=["base alone", "copies"])
    row = measured["copies", "decode"]
    assert row.get("p50_s") is None and "needs 0.0 GB" in str(row["reason"])
    assert row["tenants_bytes"] == 3 * weights_bytes(base.build())


def test_batches_and_popularities(base: Base) -> None:
    measured = rows(base, strategies=["batched LoRA"], requests=[5], popularity="identical")
    row = measured["batched LoRA", "decode"]
    assert (row["batch_size"], row["batch_tenants"], row["tenants"], row["popularity"]) == (5, 1, 3, "identical")


def test_tenants_come_from_trials_as_far_as_they_go(base: Base, tmp_path: Path) -> None:
    trained(base, "lora", 5, r=2).save(tmp_path / "a" / "x")
    trained(base, "dora", 6, r=2).save(tmp_path / "b")
    workshop = Workshop(base, SIZES, tmp_path, 0.02)
    own = workshop.tenants("lora", 3)
    assert [tenant.name for tenant in own] == ["x", "made-up lora 1", "made-up lora 2"]
    assert workshop.origin("lora") == "1 from trials, 2 made up"
    with pytest.raises(InputError, match="there is no folder"):
        Workshop(base, SIZES, tmp_path / "nowhere", 0.02)


def test_a_tenant_is_read_as_it_was_written(tenants: list[Tenant], tmp_path: Path) -> None:
    for place, tenant in enumerate(tenants):
        tenant.write(tmp_path / str(place))
        again = made_up(tenant, 1).read(tmp_path / str(place))
        for read, written in zip(again.tensors(), tenant.tensors(), strict=True):
            assert torch.equal(read, written)


def test_strategies_of_one_name_are_refused(network: nn.Module, tenants: list[Tenant]) -> None:
    ids = random_prompts(1, 3, 200, torch.device("cpu"))
    with pytest.raises(ValueError, match="one name"):
        compare([BaseAlone(network, "a"), Batched(network, tenants, "a")], [0], ids, new_tokens=2, rounds=1)


def test_an_unknown_strategy_is_one_line(base: Base) -> None:
    with pytest.raises(InputError, match="strategies: unknown name 'batched Lora'; did you mean 'batched LoRA'"):
        list(study(base, strategies=["batched Lora"]))  # type: ignore[list-item]

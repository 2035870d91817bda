"""float16 trains with a scaled loss and says which updates overflowed; tf32 is proven or skipped, never assumed."""

from __future__ import annotations

import dataclasses
import json
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers import toy_tasks as toy

from harness import methods, objectives
from harness.estimate.estimate import estimate
from harness.execution import Execution, NotActive
from harness.experiment import rows
from harness.models import formats
from harness.models.load import load
from harness.networks.tuned import Tuned
from harness.training.loss_scale import Diverged, LossScale, Scaling, finite
from harness.training.proof import Proof, require
from harness.training.schedule import share_of_peak
from harness.training.trainer import History

CPU = torch.device("cpu")


def trained(
    dtype: torch.dtype, spoilt: tuple[int, ...] = (), objective: str = "sft", **how: Any
) -> tuple[History, Tuned, list[dict[str, torch.Tensor]]]:
    """Four steps of the toy network, of which the ``spoilt`` ones overflow; with the gradients of each update."""
    tuned = methods.apply("full", toy.base(dtype=dtype))
    seen: list[dict[str, torch.Tensor]] = []
    calls = iter(range(1, 1000))

    def spoil(gradient: torch.Tensor) -> torch.Tensor:
        return gradient * torch.inf if next(calls) in spoilt else gradient

    norm = tuned.model.model.norm.weight
    norm.register_hook(spoil)
    watched = dataclasses.replace(
        tuned,
        after_step=lambda _: seen.append({n: p.grad.clone() for n, p in tuned.trainable.items()}),
    )
    settings = dataclasses.replace(toy.settings(1e-2, epochs=2), execution=Execution(**how))
    history = objectives.fit(objective, watched, toy.data("preference", toy.PAIRS), settings)
    return history, tuned, seen


@pytest.mark.slow
def test_losses_and_gradients_of_float16_are_those_of_float32_within_its_digits() -> None:
    exact, _, gradients = trained(torch.float32)
    coarse, tuned, others = trained(torch.float16)
    assert coarse.losses[0] == pytest.approx(exact.losses[0], rel=1e-3)
    assert coarse.losses == pytest.approx(exact.losses, rel=0.05)
    assert coarse.losses[-1] < coarse.losses[0]
    assert (exact.scaling, coarse.scaling) == (None, Scaling(4096.0, 4096.0, 4, 0))
    assert tuned.trainable_formats == "float32"
    for name, gradient in gradients[0].items():  # without the scale, and clipped at the same norm
        torch.testing.assert_close(others[0][name], gradient, rtol=0, atol=0.02 * float(gradient.abs().max()))
    proofs = [history.proof for history in (exact, coarse)]
    assert [proof.active["dtype"] for proof in proofs if proof] == ["float32", "float16"]
    columns = rows.execution(coarse)
    assert (columns["active_dtype"], columns["skipped_updates"]) == ("float16", 0)
    told = json.loads(columns["execution_evidence"])["dtype"]
    assert told.endswith("% of FLOPs in float16; loss scale 4096, 0 of 4 updates left out")
    assert rows.execution(exact)["skipped_updates"] is None


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adamw", "adafactor"])
def test_an_update_that_overflows_is_left_out_and_the_scale_halved(optimizer: str) -> None:
    history, _, acted = trained(torch.float16, spoilt=(2,), optimizer=optimizer)
    assert history.scaling == Scaling(4096.0, 2048.0, 4, 1)
    assert history.scaling is not None
    assert history.scaling.remark == "1 of 4 updates left out: overflow of float16"
    assert len(acted) == 3, "a method does nothing after an update that there was not"
    assert [step.grad_norm is None for step in history.steps] == [False, True, False, False]
    rates = [step.learning_rate for step in history.steps]
    assert rates == pytest.approx([1e-2 * share_of_peak(step, 4) for step in (1, 2, 3, 4)])
    assert rows.execution(history)["skipped_updates"] == 1
    assert "loss scale 4096, 2048 at the end, 1 of 4 updates left out" in rows.execution(history)["execution_evidence"]


@pytest.mark.slow
def test_a_step_that_is_left_out_changes_no_parameter() -> None:
    before = {name: p.detach().clone() for name, p in methods.apply("full", toy.base()).trainable.items()}
    with pytest.raises(Diverged, match=r"in every step: loss scale 4096, 256 at the end, 4 of 4 updates left out"):
        trained(torch.float16, spoilt=(1, 2, 3, 4))
    _, once, _ = trained(torch.float16, spoilt=(2, 3, 4))
    _, never, _ = trained(torch.float16)
    assert all(not torch.equal(p, before[name].half().float()) for name, p in never.trainable.items())
    first = [float((p.detach() - before[name].half().float()).abs().max()) for name, p in once.trainable.items()]
    assert max(first) == pytest.approx(1e-2, rel=1e-3), "the first update of AdamW alone: the rate itself"


@pytest.mark.slow
def test_ppo_scales_its_losses_too() -> None:
    def fitted(dtype: torch.dtype) -> History:
        tuned = methods.apply("full", toy.base(dtype=dtype))
        prompts = toy.data("preference", toy.PAIRS)
        settings = toy.settings(1e-3)
        return objectives.fit("ppo", tuned, prompts, settings, reward=lambda _, texts: torch.ones(len(texts)))

    history = fitted(torch.float16)
    assert history.scaling == Scaling(4096.0, 4096.0, 8, 0)
    assert json.loads(rows.execution(history)["execution_evidence"]) == {
        "dtype": "loss scale 4096, 0 of 8 updates left out"
    }
    assert fitted(torch.float32).scaling is None


def on(dtype: torch.dtype) -> Any:
    return SimpleNamespace(base=SimpleNamespace(dtype=dtype, device=CPU))


def test_the_scale_by_hand() -> None:
    weight = torch.nn.Parameter(torch.tensor([1.0]))
    optimizer = torch.optim.SGD([weight], lr=0.5)
    scale = LossScale(on(torch.float16))
    for loss_of in (lambda: 3 * weight.sum(), lambda: torch.inf * weight.sum(), lambda: 2 * weight.sum()):
        optimizer.zero_grad()
        scale.backward(loss_of())  # type: ignore[no-untyped-call]
        scale.unscale(optimizer)
        scale.step(optimizer)
    assert weight.item() == 1 - 0.5 * 3 - 0.5 * 2
    assert scale.outcome() == Scaling(4096.0, 2048.0, 3, 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_other_formats_are_not_scaled(dtype: torch.dtype) -> None:
    weight = torch.nn.Parameter(torch.tensor([1.0]))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    scale = LossScale(on(dtype))
    scale.backward(2 * weight.sum())
    assert weight.grad is not None and weight.grad.item() == 2.0
    scale.unscale(optimizer)
    scale.step(optimizer)
    assert (weight.item(), scale.outcome(), scale.watch) == (-1.0, None, [])


def test_norms_that_are_no_numbers_are_missing() -> None:
    assert [finite(norm) for norm in (None, float("inf"), float("nan"), 2.0)] == [None, None, None, 2.0]


def test_tf32_on_a_cpu_is_skipped_with_its_reason() -> None:
    with pytest.raises(NotActive, match=r"dtype: tf32 is a format of NVIDIA's GPUs since Ampere, .* runs on cpu$"):
        load("tiny-llama", dtype="tf32", device="cpu")
    assert not formats.rounds_products(CPU), "products of float32 are exact here"


@pytest.mark.parametrize(("capability", "works"), [((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_tf32_needs_a_card_that_has_it(monkeypatch: pytest.MonkeyPatch, capability: Any, works: bool) -> None:
    asked: list[str] = []
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    monkeypatch.setattr(torch, "set_float32_matmul_precision", asked.append)
    if works:
        formats.use("tf32", torch.device("cuda:0"))
    else:
        with pytest.raises(NotActive):
            formats.use("tf32", torch.device("cuda:0"))
    formats.use("float32", torch.device("cuda:0"))
    assert asked == ["high", "highest"][-1 - works :]


def test_a_product_tells_tf32_from_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    rounded = torch.tensor(formats._BELOW_TF32).view(torch.int32).add(0x1000).bitwise_and(~0x1FFF).view(torch.float32)
    assert rounded.item() == 1.0, "10 bits behind the point"
    monkeypatch.setattr(formats, "_BELOW_TF32", 1 + 2.0**-10)
    assert not formats.rounds_products(CPU)


def test_a_format_that_was_not_active_is_no_row_under_its_name() -> None:
    seen = Proof({"dtype": "float32"}, {"dtype": "100.0% of FLOPs in float32"})
    require(Execution(), "float32", seen)
    require(Execution(), "bfloat16", Proof({"dtype": "bfloat16"}, {}))
    for wanted in ("tf32", "bfloat16", "float16"):
        with pytest.raises(NotActive, match=f'^dtype: "{wanted}" was asked for, and "float32" was active \\(100'):
            require(Execution(), wanted, seen)


@pytest.mark.slow
def test_the_estimate_knows_the_formats() -> None:
    sizes = {
        name: estimate(
            "tiny-llama", "lora", {"r": 2}, dtype=name, optimizer_dtype=None, batch_size=2, length=16
        ).total_bytes
        for name in ("float32", "tf32", "bfloat16", "float16")
    }
    assert sizes["tf32"] == sizes["float32"] > sizes["bfloat16"] == sizes["float16"]

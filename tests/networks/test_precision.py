"""One rule of precision: what trains has 32 bits in every method, and no update of a usual size is rounded away."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import checkpoints
from peft.tuners.lora import LoraLayer
from torch.utils._python_dispatch import TorchDispatchMode

from harness import methods
from harness.errors import InputError
from harness.measure.memory import saved_activations
from harness.models.load import Base, load
from harness.networks.precision import as_served
from harness.networks.tuned import Tuned

pytestmark = pytest.mark.slow

METHODS: dict[str, dict[str, Any]] = {
    "full": {},
    "full_top_k": {"k": 1},
    "head": {},
    "bitfit": {},
    "adapter": {"bottleneck": 4},
    "lora": {"r": 2},
    "dora": {"r": 2},
    "ia3": {},
    "prompt": {"num_virtual_tokens": 3},
    "p_tuning": {"num_virtual_tokens": 3, "encoder_hidden_size": 8},
    "prefix": {"num_virtual_tokens": 3},
    "llama_adapter": {"adapter_len": 3},
    "qlora": {"r": 2},
    "peft": {"peft_type": "LN_TUNING", "config": {"target_modules": ".*[nN]orm.*"}},
}
FAMILIES = ("llama", "gpt2", "bert", "distilbert")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("checkpoints")
    return {name: checkpoints.save(place / name, name) for name in FAMILIES}


def based(folders: dict[str, Path], family: str, dtype: str = "bfloat16") -> Base:
    labels = ("a", "b", "c") if family in checkpoints.ENCODERS else None
    return load(str(folders[family]), labels=labels, device="cpu", dtype=dtype)


def applied(method: str, base: Base) -> Tuned:
    try:
        return methods.apply(method, base, **METHODS[method])
    except InputError as error:
        pytest.skip(str(error))


def batch(base: Base) -> dict[str, torch.Tensor]:
    ids = torch.randint(3, 250, (4, 12), generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 2, 1, 0]) if base.has_head else ids
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}


@torch.no_grad()
def logits(tuned: Tuned) -> torch.Tensor:
    found: torch.Tensor = tuned.model(**{n: t for n, t in batch(tuned.base).items() if n != "labels"}).logits
    return found.float()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_small_step_changes_what_trains(folders: dict[str, Path], family: str, method: str, tmp_path: Path) -> None:
    tuned = applied(method, based(folders, family))
    assert {p.dtype for p in tuned.trainable.values()} == {torch.float32}
    before = {name: p.detach().clone() for name, p in tuned.trainable.items()}
    tuned.model.train()
    torch.manual_seed(0)
    loss = tuned.model(**batch(tuned.base)).loss
    loss.backward()
    assert torch.isfinite(loss)
    torch.optim.AdamW(tuned.trainable.values(), lr=2e-5, weight_decay=0.0).step()
    learnt = {name: p.grad != 0 for name, p in tuned.trainable.items() if p.grad is not None}
    changed = sum(int((tuned.trainable[name] != before[name])[where].sum()) for name, where in learnt.items())
    assert changed > 0.99 * sum(int(where.sum()) for where in learnt.values()) > 0
    tuned.model.eval()
    after = logits(tuned)
    tuned.save(tmp_path)
    again = methods.load(tuned.base, tmp_path)
    torch.testing.assert_close(logits(again), after, rtol=0, atol=1e-3)
    assert {p.dtype for p in again.trainable.values()} == {torch.float32}
    with as_served(tuned) as served:
        assert {p.dtype for p in served.parameters() if p.is_floating_point()} == {torch.bfloat16}
        torch.testing.assert_close(logits(tuned), after, rtol=0, atol=0.1 * float(after.abs().max()))
    assert torch.equal(logits(tuned), after)


class _Draws(TorchDispatchMode):
    """The formats in which normal numbers are drawn."""

    def __init__(self) -> None:
        super().__init__()
        self.formats: set[torch.dtype] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.normal_.default and args[0].device.type == "cpu":  # shapes alone draw nothing
            self.formats.add(args[0].dtype)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_fresh_weights_are_those_of_32_bits_rounded(folders: dict[str, Path], dtype: str) -> None:
    coarse, exact = based(folders, "bert", dtype), based(folders, "bert", "float32")
    assert "classifier.weight" in coarse.missing_keys
    with _Draws() as seen:
        drawn = dict(coarse.build().named_parameters())
    assert seen.formats == {torch.float32}, "whatever a version of PyTorch does with other formats"
    for name, parameter in exact.build().named_parameters():
        assert torch.equal(drawn[name], parameter.to(drawn[name].dtype)), name


@pytest.mark.parametrize("method", ["full", "bitfit", "adapter", "lora"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_answers_are_those_of_32_bits_within_the_format(folders: dict[str, Path], family: str, method: str) -> None:
    coarse, exact = (logits(applied(method, based(folders, family, dtype))) for dtype in ("bfloat16", "float32"))
    assert 0 < float((coarse - exact).abs().max()) < 0.1 * float(exact.abs().max())


@pytest.mark.parametrize("method", ["full", "lora", "prompt"])
def test_generation_too_runs_in_the_format_of_the_base(folders: dict[str, Path], method: str) -> None:
    tuned = applied(method, based(folders, "llama"))
    ids = batch(tuned.base)["input_ids"]
    answers = tuned.model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=4)
    assert answers.shape == (4, 16)
    assert not torch.is_autocast_enabled("cpu"), "what a call enters it leaves"


def test_an_error_leaves_no_autocast_behind(folders: dict[str, Path]) -> None:
    tuned = applied("full", based(folders, "llama"))
    with pytest.raises(IndexError):
        tuned.model(input_ids=torch.tensor([[10_000]]))
    assert not torch.is_autocast_enabled("cpu")


def test_in_32_bits_nothing_is_added(folders: dict[str, Path]) -> None:
    tuned = applied("full", based(folders, "llama", "float32"))
    assert not tuned.model._forward_hooks and not tuned.model._forward_pre_hooks


@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_layers_that_read_one_tensor_keep_one_copy_of_it(folders: dict[str, Path], method: str) -> None:
    def step(cast: bool) -> tuple[int, torch.Tensor, list[torch.Tensor]]:
        tuned = applied(method, based(folders, "llama"))
        for module in tuned.model.modules():
            if isinstance(module, LoraLayer):
                assert not module.cast_input_dtype_enabled
                module.cast_input_dtype_enabled = cast
        with saved_activations(tuned.model.train()) as saved:
            loss = tuned.model(**batch(tuned.base)).loss
        kept = saved.bytes
        loss.backward()
        return kept, loss.detach(), [p.grad for p in tuned.trainable.values() if p.grad is not None]

    (few, loss, gradients), (many, same_loss, same_gradients) = step(False), step(True)
    assert torch.equal(loss, same_loss)
    assert all(torch.equal(a, b) for a, b in zip(gradients, same_gradients, strict=True))
    shape = load(str(folders["llama"]), device="cpu").build().config
    # Queries, keys and values read one tensor, and so do gate and up: three copies fewer, and with the output's, which
    # is what attention keeps anyway, four; the last projection's input is that of the product before it, in any case.
    assert many - few == shape.num_hidden_layers * 4 * (4 * 12) * shape.hidden_size * 2


def test_a_variant_that_computes_norms_keeps_the_cast(folders: dict[str, Path]) -> None:
    tuned = applied("dora", based(folders, "llama"))
    assert {m.cast_input_dtype_enabled for m in tuned.model.modules() if isinstance(m, LoraLayer)} == {True}

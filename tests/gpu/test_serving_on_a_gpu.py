"""On a CUDA device: what serves many tenants there gives what each of them gives alone, with kernels of its own."""

from __future__ import annotations

import importlib
from collections.abc import Sequence

import pytest
import torch
from helpers.tenants import alone, trained
from torch import Tensor, nn

from harness.methods.bitdelta import pack_signs
from harness.models.load import Base, load
from harness.networks.tuned import Tuned
from harness.serving import low_ranks, stacks
from harness.serving.routing import route
from harness.serving.serve import begin
from harness.serving.stacks import OneBits, Place
from harness.serving.strategies import Batched
from harness.serving.tenant import OneBit, tenant_of

pytestmark = [pytest.mark.gpu, pytest.mark.slow]

CUDA = torch.device("cuda:0")
KINDS: tuple[tuple[str, dict[str, int | bool]], ...] = (
    ("lora", {"r": 2}),
    ("lora", {"r": 8}),
    ("adapter", {"bottleneck": 3}),
    ("prefix", {"num_virtual_tokens": 5}),
    ("prompt", {"num_virtual_tokens": 3}),
    ("bitdelta", {"embeddings": False}),
    ("bitdelta", {"embeddings": False}),
)


def apart(got: Tensor, wanted: Tensor) -> float:
    """The distance of two tensors as a share of the second."""
    return float((got.double() - wanted.double()).norm() / wanted.double().norm())


@pytest.mark.parametrize(("dtype", "close"), [("float32", 1e-6), ("float16", 1e-3), ("bfloat16", 6e-3)])
@pytest.mark.parametrize(("tokens", "inputs", "outputs"), [(1, 64, 128), (1, 37, 70), (21, 130, 9), (150, 2048, 300)])
def test_the_kernel_multiplies_by_packed_signs_as_by_unpacked_ones(
    dtype: str, close: float, tokens: int, inputs: int, outputs: int
) -> None:
    index = torch.tensor([2, 0, 2, 1, 0], device=CUDA)
    deltas = torch.randn(3, outputs, inputs, device=CUDA)
    signs = torch.stack([pack_signs(delta) for delta in deltas])
    x = torch.randn(5, tokens, inputs, device=CUDA).to(getattr(torch, dtype))
    alpha = torch.rand(3, device=CUDA).to(x)
    dense = torch.where(deltas > 0, 1.0, -1.0).double()[index]
    wanted = alpha.double()[index, None, None] * (x.double() @ dense.mT)
    packed_signs = importlib.import_module("harness.serving.packed_signs")  # needs Triton, which is not everywhere
    assert apart(packed_signs.products(x, signs, index, alpha), wanted) < close


def test_rows_of_a_mixed_batch_get_the_kernels_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same with it as without it, also where a row belongs to no tenant."""
    parts = [OneBit(pack_signs(torch.randn(48, 40, device=CUDA)), torch.tensor(0.1 + n, device=CUDA)) for n in range(3)]
    place = Place({})
    stack = OneBits(place, parts, torch.zeros((), device=CUDA))
    place.route = route([2, None, 0, 2], CUDA)
    x, plain = torch.randn(4, 3, 40, device=CUDA), torch.randn(4, 3, 48, device=CUDA)
    assert stacks.has_sign_kernel(x)
    served = stack(nn.Identity(), (x,), plain.clone())
    monkeypatch.setattr(stacks, "has_sign_kernel", lambda _x: False)
    unpacked = stack(nn.Identity(), (x,), plain.clone())
    assert served is not None and unpacked is not None
    assert torch.equal(served[1], plain[1]) and apart(served, unpacked) < 1e-6


@pytest.mark.parametrize(("rank", "grouped"), [(3, False), (4, False), (8, True), (64, True)])
def test_grouped_products_are_used_where_ranks_allow_and_give_the_same(
    rank: int, grouped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = route([2, 0, 2, 0], CUDA)
    assert rows is not None
    x = torch.randn(4, 40, 256, device=CUDA, dtype=torch.bfloat16)
    down = torch.randn(3, rank, 256, device=CUDA, dtype=torch.bfloat16).mT
    up = torch.randn(3, rank, 512, device=CUDA, dtype=torch.bfloat16)
    assert [low_ranks.has_grouped_products(x, matrices) for matrices in (down, up)] == [grouped, grouped]
    hidden = low_ranks.products_of_runs(rows, x, down)
    served = low_ranks.products_of_runs(rows, hidden, up)
    monkeypatch.setattr(low_ranks, "has_grouped_products", lambda _x, _matrices: False)
    one_by_one = low_ranks.products_of_runs(rows, low_ranks.products_of_runs(rows, x, down), up)
    assert apart(served, one_by_one) < 6e-3


def answers(network: nn.Module, base: Base, tuned: Sequence[Tuned], rows: list[int | None]) -> tuple[Tensor, Tensor]:
    """Logits of the next token of a mixed batch, and of each row's tenant alone."""
    ids = torch.randint(3, 250, (len(rows), 40), generator=torch.Generator().manual_seed(0)).to(CUDA)
    tenants = [tenant_of(one, network, f"{one.method} {place}") for place, one in enumerate(tuned)]
    served = begin(Batched(network, tenants, "all"), rows, ids).logits
    models = [network if row is None else tuned[row].model for row in rows]
    return served, torch.cat([alone(model, own, 1) for model, own in zip(models, ids, strict=True)])


def test_every_kind_in_one_batch_answers_as_it_does_alone() -> None:
    base = load("tiny-llama", device="cuda", seed=3)
    network = base.build()
    tuned = [trained(base, method, seed, **args) for seed, (method, args) in enumerate(KINDS)]
    served, wanted = answers(network, base, tuned, [3, None, *range(len(tuned)), 0, 5, None, 4])
    torch.testing.assert_close(served, wanted, rtol=1e-5, atol=1e-5)


def test_in_16_bits_a_mixed_batch_is_as_near_as_rounding() -> None:
    base = load("tiny-llama", dtype="bfloat16", device="cuda", seed=3)
    network = base.build()
    tuned = [trained(base, method, seed, **args) for seed, (method, args) in enumerate(KINDS)]
    served, wanted = answers(network, base, tuned, [1, None, *range(len(tuned)), 6])
    assert apart(served, wanted) < 0.03

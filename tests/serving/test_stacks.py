"""Stacks of tenants: padding is exact, both ways of a low-rank product agree, packed signs multiply as signs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some
from torch import Tensor, nn

from harness.errors import InputError
from harness.measure.memory import storage_bytes
from harness.methods.bitdelta import pack_signs
from harness.models.load import load as load_base
from harness.serving import low_ranks, routing
from harness.serving.low_ranks import LowRanks
from harness.serving.requests import tenants_of
from harness.serving.routing import Route, route
from harness.serving.siblings import read_together
from harness.serving.stacks import Bottlenecks, Place, normalised, times_signs
from harness.serving.tenant import Bottleneck, LowRank

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")


def test_a_route_puts_the_rows_of_a_tenant_side_by_side() -> None:
    chosen = route([2, None, 0, 2], CPU)
    assert chosen is not None and chosen.rows is not None
    assert (chosen.rows.tolist(), chosen.slots, chosen.runs) == ([2, 0, 3], (0, 2, 2), ((0, 0, 1), (2, 1, 3)))
    everyone = route([0, 0, 1], CPU)
    assert everyone is not None and everyone.rows is None, "rows that lie in order are not moved"
    assert route([None, None], CPU) is None


def test_a_layer_that_sees_no_rows_is_refused() -> None:
    chosen = route([0, 1], CPU)
    assert chosen is not None
    with pytest.raises(RuntimeError, match=r"2 rows of tokens are needed, and this layer reads \(6, 4\)"):
        chosen.take(torch.zeros(6, 4))


@settings(deadline=None, max_examples=40)
@given(
    slots=some.lists(some.sampled_from([None, 0, 1, 2]), min_size=1, max_size=7),
    tokens=some.integers(1, 4),
    threshold=some.sampled_from([1, 3, 10**6]),
    seed=some.integers(0, 99),
)
def test_both_ways_add_each_rows_own_product(slots: list[int | None], tokens: int, threshold: int, seed: int) -> None:
    """``threshold`` chooses the way: one product for each run, or one matrix for each row."""
    draw = torch.Generator().manual_seed(seed)
    parts = [LowRank(torch.randn(4, r, generator=draw), torch.randn(r, 6, generator=draw)) for r in (1, 3, 2)]
    place = Place({})
    stack = LowRanks(place, parts, torch.zeros(()))
    x, plain = torch.randn(len(slots), tokens, 4, generator=draw), torch.randn(len(slots), tokens, 6, generator=draw)
    place.route = route(slots, CPU)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(routing, "TOKENS_OF_A_RUN", threshold)
        changed = stack(nn.Identity(), (x,), plain.clone())
    for row, slot in enumerate(slots):
        added = 0 if slot is None else x[row] @ parts[slot].down @ parts[slot].up
        got = plain[row] if changed is None else changed[row]
        torch.testing.assert_close(got, plain[row] + added)


def test_what_is_gathered_for_a_batch_is_not_taken_for_the_next() -> None:
    parts = [LowRank(torch.randn(4, 2), torch.randn(2, 6)) for _ in range(3)]
    place = Place({})
    stack = LowRanks(place, parts, torch.zeros(()))
    for slots in ([2, 0], [0, 1], [1, 2]):
        x = torch.randn(2, 1, 4)
        place.route = route(slots, CPU)
        changed = stack(nn.Identity(), (x,), torch.ones(2, 1, 6))
        assert changed is not None
        for row, slot in enumerate(slots):
            torch.testing.assert_close(changed[row], 1 + x[row] @ parts[slot].down @ parts[slot].up)


def test_grouped_products_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """The call that a GPU gets; on a CPU torch does it product by product."""
    parts = [LowRank(torch.randn(8, 4), torch.randn(4, 16)) for _ in range(3)]
    place = Place({})
    stack = LowRanks(place, parts, torch.zeros(()))
    place.route = route([2, 0, 2, 0], CPU)
    x, plain = torch.randn(4, 40, 8), torch.zeros(4, 40, 16)
    usual = stack(nn.Identity(), (x,), plain.clone())
    monkeypatch.setattr(low_ranks, "has_grouped_products", lambda _x, _matrices: True)
    torch.testing.assert_close(stack(nn.Identity(), (x,), plain.clone()), usual)


def test_units_of_an_adapter_are_padded_exactly() -> None:
    """Even where the activation of 0 is not 0."""

    def part(units: int) -> Bottleneck:
        shapes: tuple[Any, ...] = ((4, units), (units,), (units, 4), (4,))
        down, down_bias, up, up_bias = (torch.randn(shape) for shape in shapes)
        return Bottleneck(down, down_bias, up, up_bias, torch.sigmoid)

    parts = [part(2), part(5)]
    place = Place({})
    stack = Bottlenecks(place, parts, torch.zeros(()))
    place.route = route([1, 0], CPU)
    hidden = torch.randn(2, 3, 4)
    changed = stack(nn.Identity(), (hidden,), hidden.clone())
    assert changed is not None
    for row, one in ((0, parts[1]), (1, parts[0])):
        own = hidden[row] + torch.sigmoid(hidden[row] @ one.down + one.down_bias) @ one.up + one.up_bias
        torch.testing.assert_close(changed[row], own)


@pytest.mark.parametrize("block_bytes", [1, 100, 2**22])
def test_packed_signs_multiply_as_signs_in_blocks_of_any_size(block_bytes: int) -> None:
    delta, x = torch.randn(7, 13), torch.randn(2, 3, 13)
    signs = torch.where(delta > 0, 1.0, -1.0)
    torch.testing.assert_close(times_signs(x, pack_signs(delta), block_bytes), x @ signs.T)


def test_what_a_norm_scales_does_not_depend_on_its_weight() -> None:
    norm = nn.LayerNorm(6)
    with torch.no_grad():
        norm.weight.normal_()
        norm.bias.normal_()
    x = torch.randn(2, 3, 6)
    torch.testing.assert_close(normalised(norm, x) * norm.weight + norm.bias, norm(x))


class OneMore(nn.Module):
    """A norm as Gemma has it: the weight counts from 1."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([0.5, -0.25]))

    def forward(self, x: Tensor) -> Tensor:
        return x / x.norm(dim=-1, keepdim=True) * (1 + self.weight)


def test_a_norm_whose_weight_counts_from_one_is_scaled_too() -> None:
    x = torch.tensor([[[3.0, 4.0]]])
    torch.testing.assert_close(normalised(OneMore(), x), torch.tensor([[[0.6, 0.8]]]))


def test_popularities() -> None:
    assert tenants_of("distinct", 3, 5) == [0, 1, 2, 0, 1]
    assert tenants_of("identical", 3, 4) == [0, 0, 0, 0]
    drawn = tenants_of("uniform", 4, 4000)
    assert [drawn.count(t) / 4000 for t in range(4)] == pytest.approx([0.25] * 4, abs=0.03)
    weights = [k**-1.5 for k in (1, 2, 3, 4)]
    drawn = tenants_of("zipf", 4, 4000)
    shares = [w / sum(weights) for w in weights]
    assert [drawn.count(t) / 4000 for t in range(4)] == pytest.approx(shares, abs=0.03)
    assert tenants_of("zipf", 4, 9, seed=1) == tenants_of("zipf", 4, 9, seed=1) != tenants_of("zipf", 4, 9, seed=2)
    with pytest.raises(InputError, match="valid: distinct, identical, uniform, zipf"):
        tenants_of("usual", 4, 9)  # type: ignore[arg-type]


@settings(deadline=None, max_examples=30)
@given(
    slots=some.lists(some.sampled_from([None, 0, 1]), min_size=1, max_size=6),
    order=some.lists(some.integers(0, 2), min_size=1, max_size=6),
    tokens=some.integers(1, 3),
    threshold=some.sampled_from([1, 10**6]),
)
def test_layers_that_share_a_product_add_what_each_adds_alone(
    slots: list[int | None], order: list[int], tokens: int, threshold: int
) -> None:
    """In whatever ``order`` they run, however often, and where one of them reads another tensor after all."""
    draw = torch.Generator().manual_seed(7)
    layers = [
        [LowRank(torch.randn(4, r, generator=draw), torch.randn(r, 5, generator=draw)) for r in ranks]
        for ranks in ((2, 1), (1, 3), (2, 2))
    ]
    place = Place({})
    shared = LowRanks.side_by_side(place, layers, torch.zeros(()))
    place.route = route(slots, CPU)
    x, other = (torch.randn(len(slots), tokens, 4, generator=draw) for _ in range(2))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(routing, "TOKENS_OF_A_RUN", threshold)
        for turn, number in enumerate(order):
            read = other if turn == 2 else x
            plain = torch.randn(len(slots), tokens, 5, generator=draw)
            alone = LowRanks(place, layers[number], torch.zeros(()))(nn.Identity(), (read,), plain.clone())
            together = shared[number](nn.Identity(), (read,), plain.clone())
            assert (alone is None) == (together is None) == (place.route is None)
            if together is not None:
                torch.testing.assert_close(together, alone)


def test_layers_that_share_a_product_multiply_once_and_keep_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    layers = [[LowRank(torch.randn(4, 2), torch.randn(2, 5)) for _ in range(2)] for _ in range(3)]
    place = Place({})
    shared = LowRanks.side_by_side(place, layers, torch.zeros(()))
    place.route = route([1, 0, 1], CPU)
    products: list[Tensor] = []
    product = low_ranks.Downs._product

    def counted(downs: low_ranks.Downs, way: Route, x: Tensor) -> Tensor:
        products.append(product(downs, way, x))
        return products[-1]

    monkeypatch.setattr(low_ranks.Downs, "_product", counted)
    x = torch.randn(3, 1, 4)
    for stack in shared:
        stack(nn.Identity(), (x,), torch.zeros(3, 1, 5))
    assert len(products) == 1
    assert shared[0]._downs._latest is None, "the inputs are free behind the last layer"  # type: ignore[attr-defined]
    of_a_tenant = 4 * 3 * (4 * 2 + 2 * 5)
    assert storage_bytes(tensor for stack in shared for tensor in stack.held()) == (2 + 3) * of_a_tenant
    for stack in shared:
        stack.forget()
    assert storage_bytes(tensor for stack in shared for tensor in stack.held()) == 2 * of_a_tenant


def test_layers_that_read_the_same_tensor_are_seen() -> None:
    network = load_base("tiny-llama", device="cpu").build()
    layers = [name for name, module in network.named_modules() if name.endswith("_proj")]
    names = [[layer.rsplit(".", 1)[1] for layer in group] for group in read_together(network, layers[::-1])]
    assert names == [["q_proj", "k_proj", "v_proj"], ["o_proj"], ["gate_proj", "up_proj"], ["down_proj"]] * 2
    assert read_together(network, ["model.layers.1.mlp.up_proj"]) == [["model.layers.1.mlp.up_proj"]]
    assert not any(module._forward_pre_hooks for module in network.modules())


def test_a_layer_that_the_pass_leaves_out_stands_alone() -> None:
    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused, self.again = (nn.Linear(2, 2) for _ in range(3))

        def forward(self, input_ids: Tensor) -> Tensor:
            x = input_ids.new_zeros(1, 1, 2, dtype=torch.float32)
            return self.again(self.again(x)) + self.used(x)

    assert read_together(Gated(), ["unused", "used", "again"]) == [["again", "used"], ["unused"]]

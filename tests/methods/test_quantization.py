"""Quantisation: the paper's data type, what double quantisation saves, and plain absmax by its own definition."""

from __future__ import annotations

import math
from typing import get_args

import pytest
import torch
from helpers.lengths import long_after
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.stats import norm
from torch import nn

from harness import methods
from harness.measure.memory import weights_bytes
from harness.methods import qlora
from harness.methods.quantized import (
    AbsmaxLinear,
    Granularity,
    Scheme,
    pack_nibbles,
    quantize_absmax,
    unpack_nibbles,
)
from harness.models.load import Base
from harness.models.load import load as load_base
from harness.training.trainer import Settings, train
from harness.trial import Budget

pytestmark = pytest.mark.slow

#: Dettmers et al. 2023, appendix E.
NF4 = [
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635),
    *(-0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725),
    *(0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
]

matrices = arrays.arrays(
    "float32",
    st.tuples(st.integers(1, 6), st.integers(1, 21)),
    elements=st.floats(-100, 100, width=32, allow_subnormal=False),
).map(torch.from_numpy)


@pytest.fixture
def llama() -> Base:
    return load_base("tiny-llama", device="cpu", seed=3)


# --- four bits -------------------------------------------------------------------------------------------------------


def test_nf4_has_the_papers_sixteen_levels(llama: Base) -> None:
    model = methods.apply("quantized", llama, scheme="nf4").model
    code = model.model.layers[0].mlp.down_proj.weight.quant_state.code
    torch.testing.assert_close(code, torch.tensor(NF4), rtol=0, atol=1e-7)


def test_the_levels_are_quantiles_of_the_normal_distribution() -> None:
    # Eight quantiles of the upper half and seven of the lower, zero between them, scaled to one (section 3).
    offset = (1 - 1 / (2 * 15) + 1 - 1 / (2 * 16)) / 2
    upper = norm.ppf(torch.linspace(offset, 0.5, 9)[:-1])
    lower = -norm.ppf(torch.linspace(offset, 0.5, 8)[:-1])
    levels = sorted([*lower, 0.0, *upper])
    assert [level / max(levels) for level in levels] == pytest.approx(NF4, abs=2e-4)


def test_double_quantisation_saves_0_373_bits_a_parameter() -> None:
    from bitsandbytes.functional import quantize_4bit

    weight = torch.randn(512, 512, generator=torch.Generator().manual_seed(0))

    def scale_bits(double: bool) -> float:
        _, state = quantize_4bit(weight, blocksize=64, quant_type="nf4", compress_statistics=double)
        scales = [state.absmax, *([state.state2.absmax] if double else [])]
        return 8 * sum(s.numel() * s.element_size() for s in scales) / weight.numel()

    assert scale_bits(double=False) == 32 / 64
    assert scale_bits(double=True) == 8 / 64 + 32 / (64 * 256)
    assert round(scale_bits(double=False) - scale_bits(double=True), 3) == 0.373


def test_values_on_the_levels_survive_four_bits_exactly() -> None:
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    block = torch.tensor(NF4 * 4) * 3.0
    packed, state = quantize_4bit(block, blocksize=64, quant_type="nf4")
    torch.testing.assert_close(dequantize_4bit(packed, state).flatten(), block, rtol=0, atol=1e-6)


# --- absmax ----------------------------------------------------------------------------------------------------------


@given(matrices, st.sampled_from([4, 8]), st.sampled_from(get_args(Granularity)), st.integers(1, 9))
def test_no_weight_is_further_off_than_half_a_step(
    matrix: torch.Tensor, bits: int, granularity: str, group: int
) -> None:
    codes, scales = quantize_absmax(matrix, bits, granularity, group)
    largest = 2 ** (bits - 1) - 1
    assert int(codes.abs().max()) <= largest
    back = (codes.double() * scales.double()).flatten(1)[:, : matrix.shape[1]]
    steps = scales.double().expand(codes.shape).flatten(1)[:, : matrix.shape[1]]
    assert bool(((matrix.double() - back).abs() <= steps / 2 * (1 + 1e-5) + 1e-12).all())


@given(matrices, st.sampled_from([4, 8]))
def test_a_finer_granularity_never_has_a_larger_step(matrix: torch.Tensor, bits: int) -> None:
    def steps(granularity: str) -> torch.Tensor:
        codes, scales = quantize_absmax(matrix, bits, granularity, group_size=4)
        return scales.expand(codes.shape).flatten(1)[:, : matrix.shape[1]]

    assert bool((steps("per_channel") <= steps("per_tensor")).all())
    assert bool((steps("per_group") <= steps("per_channel")).all())


@given(st.lists(st.integers(-8, 7), min_size=1))
def test_nibbles_survive_packing(codes: list[int]) -> None:
    packed = pack_nibbles(torch.tensor(codes, dtype=torch.int8))
    assert packed.numel() == math.ceil(len(codes) / 2)
    assert unpack_nibbles(packed, len(codes)).tolist() == codes


def test_codes_by_hand() -> None:
    codes, scales = quantize_absmax(torch.tensor([[0.7, -0.2, 0.04], [0.0, 0.0, 0.0]]), 4, "per_channel", 64)
    assert codes.squeeze(1).tolist() == [[7, -2, 0], [0, 0, 0]]
    torch.testing.assert_close(scales.flatten(), torch.tensor([0.1, 0.0]))


@pytest.mark.parametrize(("bits", "granularity"), [(b, g) for b in (4, 8) for g in get_args(Granularity)])
def test_a_layer_takes_the_bytes_that_arithmetic_says(bits: int, granularity: str) -> None:
    rows, columns, group = 48, 256, 64
    layer = AbsmaxLinear(nn.Linear(columns, rows, bias=False), bits, granularity, group)
    scales = {"per_tensor": 1, "per_channel": rows, "per_group": rows * columns // group}[granularity]
    assert weights_bytes(layer) == rows * columns * bits // 8 + 4 * scales


def test_eight_bits_answer_nearly_like_the_layer_that_they_replace() -> None:
    layer = nn.Linear(128, 16)
    x = torch.randn(4, 128)
    for bits, tolerance in ((8, 0.02), (4, 0.3)):
        quantised = AbsmaxLinear(layer, bits, "per_channel", 64)
        torch.testing.assert_close(quantised(x), layer(x), rtol=0, atol=tolerance)
        assert not torch.equal(quantised(x), layer(x))


# --- whole models ----------------------------------------------------------------------------------------------------


@torch.no_grad()
def logits(model: nn.Module) -> torch.Tensor:
    found: torch.Tensor = model(input_ids=torch.arange(3, 40).unsqueeze(0)).logits
    return found


@pytest.mark.parametrize("scheme", get_args(Scheme))
def test_every_scheme_shrinks_the_weights_and_stays_near_the_model(llama: Base, scheme: str) -> None:
    plain = llama.build()
    quantised = methods.apply("quantized", llama, scheme=scheme)
    assert weights_bytes(quantised.model) < weights_bytes(plain)
    assert quantised.total_params == sum(p.numel() for p in plain.parameters())
    assert quantised.trainable_params == 0
    error = float((logits(quantised.model) - logits(plain)).abs().mean())
    assert 0 < error < (0.01 if "int8" in scheme else 0.1)


def test_eight_bits_of_bitsandbytes_take_a_byte_and_a_float32_scale_for_each_output(llama: Base) -> None:
    plain = llama.build()
    inside = [module for module in plain.model.modules() if isinstance(module, nn.Linear)]
    saved = sum(3 * module.weight.numel() - 4 * module.out_features for module in inside)
    model = methods.apply("quantized", llama, scheme="int8").model
    assert weights_bytes(plain) - weights_bytes(model) == saved
    logits(model)  # the first pass moves the scales elsewhere
    assert weights_bytes(plain) - weights_bytes(model) == saved


@pytest.mark.parametrize("optimizer", long_after(2, get_args(qlora.Optimizer)))
def test_every_optimizer_of_qlora_learns_here(llama: Base, optimizer: str) -> None:
    tuned = methods.apply("qlora", llama, optimizer=optimizer)
    ids = torch.randint(3, 250, (8, 12), generator=torch.Generator().manual_seed(0))
    examples = [{"ids": row} for row in ids]

    def collate(rows: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        stacked = torch.stack([row["ids"] for row in rows])
        return {"input_ids": stacked, "attention_mask": torch.ones_like(stacked), "labels": stacked}

    budget = Budget(train_examples=8, batch_size=4, epochs=4, max_length=12)
    history = train(tuned, examples, collate, Settings(budget, learning_rate=1e-2))
    assert history.losses[-1] < history.losses[0]

"""The FLOPs that a step needs, by hand."""

from __future__ import annotations

import dataclasses

import pytest
from helpers import toy_tasks as toy

from harness import methods, objectives
from harness.execution import Execution
from harness.measure.data_sheet import data_sheet_flops_per_s
from harness.measure.flops import FlopCounter
from harness.measure.needed import needed_flops


def counted(**numbers: int) -> FlopCounter:
    counter = FlopCounter()
    for name, number in numbers.items():
        setattr(counter, name, number)
    return counter


def test_padding_repetition_and_masked_pairs_are_left_out() -> None:
    """Examples of 3 and 1 tokens in two rows of 4: half is padding, and 7 of 32 pairs are needed in each layer."""
    step = counted(
        flops=1000, repeated_flops=100, attention_forward_flops=200, attention_backward_flops=500, pairs=2 * 32
    )
    examples = [range(3), range(1)]
    assert needed_flops(step, examples, 8, layers=2, causal=True) == pytest.approx(200 * 0.5 + 600 * 7 / 32)
    assert needed_flops(step, examples, 8, layers=2, causal=False) == pytest.approx(200 * 0.5 + 600 * 10 / 32)
    products = counted(flops=1000, batched_flops=600)
    assert needed_flops(products, examples, 8, layers=2, causal=True) == pytest.approx(400 * 0.5 + 600 * 7 / 32)


def test_what_is_read_once_for_two_examples_is_needed_once() -> None:
    """Examples of 4 and 5 tokens share 2, in a row of 7: the second one's own three tokens see 3, 4 and 5 tokens."""
    step = counted(flops=1000, attention_forward_flops=200, attention_backward_flops=500, pairs=2 * (10 + 15))
    found = needed_flops(step, [range(4), range(2, 5)], 7, layers=2, causal=True)
    assert found == pytest.approx(300 + 600 * 2 * (10 + 12) / (2 * 25))


@pytest.mark.slow
@pytest.mark.parametrize(
    "how", [{"attention": "eager"}, {"packing": True}, {"gradient_checkpointing": True}, {"loss": "chunked"}]
)
def test_a_step_needs_the_same_however_it_runs(how: dict[str, object]) -> None:
    examples = [toy.example("say it:", letter * 5) for letter in "abcdefgh"]

    def needed(method: str, **execution: object) -> float:
        asked = Execution.model_validate(execution)
        settings = dataclasses.replace(toy.settings(), execution=asked)
        tuned = methods.apply(method, toy.base(attention=asked.attention))
        history = objectives.fit("sft", tuned, toy.data("generation", examples), settings)
        assert history.proof is not None and history.proof.needed_flops_per_token is not None
        return history.proof.needed_flops_per_token

    usual = needed("full")
    assert needed("full", **how) == pytest.approx(usual, rel=1e-6)


@pytest.mark.slow
def test_frozen_weights_need_two_thirds() -> None:
    """Two layers: 32 x 32 twice, 32 x 16 twice, 32 x 64 three times; the vocabulary at the answer; causal attention."""
    length, answer, size, vocabulary = 13, 7, 32, 259
    examples = [toy.example("say it", "abcde") for _ in range(8)]
    layer = 2 * size * size + 2 * size * size // 2 + 3 * size * 64
    matrices = 2 * length * (2 * layer) + 2 * answer * size * vocabulary
    attention = 4 * 2 * size * (length * (length + 1) // 2)
    history = objectives.fit("sft", methods.apply("full", toy.base()), toy.data("generation", examples), toy.settings())
    assert history.steps[0].tokens == 4 * length
    assert history.proof is not None and history.proof.needed_flops_per_token is not None
    assert history.proof.needed_flops_per_token * length == pytest.approx(3 * (matrices + attention), rel=0.01)
    tuned = methods.apply("bitfit", toy.base())
    frozen = objectives.fit("sft", tuned, toy.data("generation", examples), toy.settings())
    assert frozen.proof is not None and frozen.proof.needed_flops_per_token is not None
    assert frozen.proof.needed_flops_per_token * length == pytest.approx(2 * matrices + 3 * attention, rel=0.05)


@pytest.mark.parametrize(
    ("name", "dtype", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", "bfloat16", 989e12),
        ("NVIDIA H100 PCIe", "bfloat16", 756e12),
        ("NVIDIA H200", "float32", 67e12),
        ("NVIDIA L40S", "float16", 362e12),
        ("NVIDIA L4", "float16", 121e12),
        ("NVIDIA L40", "bfloat16", 181e12),
        ("NVIDIA L40", "tf32", 90.5e12),
        ("NVIDIA L40G", "bfloat16", None),
        ("NVIDIA A100-SXM4-80GB", "bfloat16", 312e12),
        ("NVIDIA A100 80GB PCIe", "float32", 19.5e12),
        ("NVIDIA A100-PCIE-40GB", "tf32", 156e12),
        ("NVIDIA GH200 480GB", "bfloat16", None),
        ("some other card", "bfloat16", None),
        ("NVIDIA H100 80GB HBM3", "tf32", 494e12),
        (None, "float32", None),
    ],
)
def test_data_sheets(name: str | None, dtype: str, peak: float | None) -> None:
    assert data_sheet_flops_per_s(name, dtype) == peak

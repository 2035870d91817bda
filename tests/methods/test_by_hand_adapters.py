"""Methods that stand beside frozen matrices, against their papers' equations computed by hand on a tiny Llama."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from bitsandbytes.nn import Linear4bit
from helpers import toy_tasks as toy
from torch import nn
from transformers.pytorch_utils import Conv1D

from harness import methods
from harness.methods.adapter import VARIANTS, Bottleneck
from harness.methods.quantized import AbsmaxLinear
from harness.models.load import Base
from harness.models.load import load as load_base
from harness.networks.tuned import Tuned

pytestmark = pytest.mark.slow

WIDTH, INNER = 32, 64  # of the toy network, which has two layers of seven matrices
PLACES = {
    f"layers.{layer}.{place}"
    for layer in (0, 1)
    for place in (
        *(f"self_attn.{name}_proj" for name in "qkvo"),
        *(f"mlp.{name}_proj" for name in ("gate", "up", "down")),
    )
}


@pytest.fixture(scope="module")
def base() -> Base:
    return toy.base()


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def module(tuned: Tuned, name: str) -> nn.Module:
    (only,) = (m for path, m in tuned.model.named_modules() if path.endswith(name))
    assert isinstance(only, nn.Module)
    return only


def part(layer: nn.Module, name: str) -> nn.Parameter:
    """A matrix of LoRA, with random values from now on."""
    weight: nn.Parameter = getattr(layer, name)["default"].weight
    with torch.no_grad():
        weight.copy_(numbers(*weight.shape, seed=len(name)) * 0.1)
    return weight


# --- LoRA ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "args", "scale"),
    [
        ("lora", {"r": 4, "alpha": 6}, 1.5),
        ("lora", {"r": 4, "alpha": 6, "use_rslora": True}, 3.0),
        ("lora", {"r": 9}, 16 / 9),
        ("lora", {"r": 9, "use_rslora": True}, 16 / 3),
        ("lora", {}, 2.0),
        ("qlora", {"r": 4, "alpha": 6}, 1.5),
    ],
)
@torch.no_grad()
def test_lora_adds_the_product_scaled_by_alpha_over_r(
    base: Base, method: str, args: dict[str, Any], scale: float
) -> None:
    layer = module(methods.apply(method, base, **args), "layers.1.mlp.up_proj")
    x = numbers(3, WIDTH)
    plain = layer(x)
    a, b = part(layer, "lora_A"), part(layer, "lora_B")
    assert (a.shape, b.shape) == ((args.get("r", 8), WIDTH), (INNER, args.get("r", 8)))
    torch.testing.assert_close(layer(x), plain + scale * (x @ a.T @ b.T), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_a_starts_within_kaimings_bound_and_b_at_zero(base: Base) -> None:
    tuned = methods.apply("lora", base, r=4)
    for name, parameter in tuned.trainable.items():
        if "lora_B" in name:
            assert not parameter.any()
        else:
            # Uniform up to one over the root of the inputs: the largest of 128 or more comes near it.
            bound = parameter.shape[1] ** -0.5
            assert 0.9 * bound < float(parameter.abs().max()) <= bound


@torch.no_grad()
def test_another_start_is_taken_when_asked_for(base: Base) -> None:
    gaussian = methods.apply("lora", base, r=4, init="gaussian").trainable
    values = torch.cat([p.flatten() for name, p in gaussian.items() if "lora_A" in name])
    assert float(values.std()) == pytest.approx(1 / 4, rel=0.1)
    pissa = methods.apply("lora", base, r=4, init="pissa").trainable
    assert all(bool(p.any()) for p in pissa.values())


@pytest.mark.parametrize("method", ["lora", "dora", "qlora"])
def test_every_linear_layer_of_the_body_is_adapted_or_those_that_are_named(base: Base, method: str) -> None:
    def places(**args: Any) -> set[str]:
        names = methods.apply(method, base, r=2, **args).trainable
        return {name.partition("model.model.model.")[2].partition(".lora_")[0] for name in names}

    assert places() == PLACES
    assert places(target_modules=["q_proj", "v_proj"]) == {p for p in PLACES if p[-6] in "qv" and "self_attn" in p}


@pytest.mark.parametrize("method", ["lora", "dora", "qlora"])
def test_dropout_is_on_the_adapters_input_in_training_alone(base: Base, method: str) -> None:
    without = module(methods.apply(method, base, r=2), "layers.0.mlp.up_proj")
    assert isinstance(without.lora_dropout["default"], nn.Identity)
    layer = module(methods.apply(method, base, r=2, dropout=0.25), "layers.0.mlp.up_proj")
    assert layer.lora_dropout["default"].p == 0.25
    part(layer, "lora_B")
    x = numbers(3, WIDTH)
    assert torch.equal(layer(x), layer(x))
    layer.train()
    assert not torch.equal(layer(x), layer(x))


@torch.no_grad()
def test_dora_normalises_each_outputs_row_and_gives_it_a_magnitude(base: Base) -> None:
    layer = module(methods.apply("dora", base, r=4, alpha=6), "layers.1.mlp.up_proj")
    frozen, magnitude = layer.base_layer.weight, layer.lora_magnitude_vector["default"].weight
    torch.testing.assert_close(magnitude, frozen.norm(dim=1))
    a, b = part(layer, "lora_A"), part(layer, "lora_B")
    magnitude.copy_(numbers(INNER, seed=3))
    moved = frozen + 1.5 * b @ a
    by_hand = magnitude.unsqueeze(1) * moved / moved.norm(dim=1, keepdim=True)
    x = numbers(3, WIDTH)
    torch.testing.assert_close(layer(x), x @ by_hand.T, rtol=1e-5, atol=1e-5)


def test_doras_magnitudes_train(base: Base) -> None:
    names = methods.apply("dora", base, r=2).trainable
    assert sum("lora_magnitude_vector" in name for name in names) == len(PLACES)
    assert not any("lora_magnitude_vector" in name for name in methods.apply("lora", base, r=2).trainable)


@pytest.mark.parametrize(("method", "args"), [("lora", {"alpha": 6}), ("dora", {"alpha": 6}), ("ia3", {})])
@torch.no_grad()
def test_a_merged_weight_is_the_frozen_one_with_the_change_in_it(base: Base, method: str, args: dict[str, Any]) -> None:
    tuned = methods.apply(method, base, **args)
    for number, parameter in enumerate(tuned.trainable.values()):
        parameter.add_(numbers(*parameter.shape, seed=number) * 0.1)
    ids = torch.arange(3, 12).unsqueeze(0)
    unmerged, frozen = tuned.model(input_ids=ids).logits, base.build()
    before = {name: p.clone() for name, p in tuned.model.named_parameters()}
    assert tuned.merge is not None
    with tuned.merge() as plain:
        assert {name for name, _ in plain.named_parameters()} == {name for name, _ in frozen.named_parameters()}
        weight = plain.model.layers[0].self_attn.v_proj.weight
        assert float((weight - frozen.model.layers[0].self_attn.v_proj.weight).abs().max()) > 1e-3
        torch.testing.assert_close(plain(input_ids=ids).logits, unmerged, rtol=1e-4, atol=1e-4)
    assert all(torch.equal(p, before[name]) for name, p in tuned.model.named_parameters())
    assert torch.equal(tuned.model(input_ids=ids).logits, unmerged)


# --- four bits -------------------------------------------------------------------------------------------------------


def packed(base: Base, method: str = "qlora", **args: Any) -> list[nn.Module]:
    """The layers that are held in four bits."""
    model = methods.apply(method, base, **args).model
    return [m for m in model.modules() if isinstance(m, Linear4bit)]


@pytest.mark.parametrize(
    ("method", "kind"), [("qlora", "quant_type"), ("quantized", "scheme")], ids=["qlora", "quantized"]
)
def test_nf4_and_fp4_are_two_data_types_in_blocks_of_64(base: Base, method: str, kind: str) -> None:
    codes = {}
    for name in ("nf4", "fp4"):
        layers = packed(base, method, **{kind: name, "double_quant": False})
        assert len(layers) == len(PLACES)
        for layer in layers:
            state = layer.weight.quant_state
            assert (state.quant_type, state.blocksize) == (name, 64)
            assert state.absmax.numel() == state.shape.numel() // 64 and state.absmax.dtype == torch.float32
        codes[name] = sorted(layers[0].weight.quant_state.code.tolist())
    # QLoRA, appendix E: no two steps of NF4 alike. FP4 has a sign, two bits of exponent and one of mantissa.
    assert codes["nf4"][1] == pytest.approx(-0.6961928)
    assert codes["fp4"][-3:] == pytest.approx([0.5, 2 / 3, 1.0], abs=1e-3)


def test_double_quantisation_is_qloras_default_and_quantizeds_choice(base: Base) -> None:
    def nested(method: str, **args: Any) -> set[bool]:
        return {layer.weight.quant_state.nested for layer in packed(base, method, **args)}

    assert nested("qlora") == {True} and nested("qlora", double_quant=False) == {False}
    assert nested("quantized") == {False} and nested("quantized", double_quant=True) == {True}
    state = packed(base)[0].weight.quant_state
    assert state.absmax.dtype == torch.uint8 and state.state2.blocksize == 256


def test_four_bit_layers_compute_in_the_bases_format_and_the_output_layer_stays_whole(base: Base) -> None:
    assert {layer.compute_dtype for layer in packed(base)} == {torch.float32}
    half = toy.base(dtype=torch.bfloat16)
    assert {layer.compute_dtype for layer in packed(half)} == {torch.bfloat16}
    model = methods.apply("qlora", base).model
    assert model.get_output_embeddings().weight.dtype == torch.float32
    assert all(p.dtype == torch.float32 for p in model.parameters() if p.requires_grad)


def test_qlora_takes_the_optimiser_that_it_is_given(base: Base) -> None:
    assert methods.apply("qlora", base).optimizer == "adamw_torch_fused"
    assert methods.apply("qlora", base, optimizer="paged_adamw_32bit").optimizer == "paged_adamw_32bit"
    assert all(not layer.support_avx512bf16_for_cpu for layer in packed(base))


@torch.no_grad()
def test_the_plain_schemes_have_as_many_levels_as_their_names_say(base: Base) -> None:
    def layer(scheme: str, **args: Any) -> Any:
        return module(methods.apply("quantized", base, scheme=scheme, **args), "layers.0.mlp.up_proj")

    plain = base.build().model.layers[0].mlp.up_proj.weight
    for scheme, largest in (("absmax_int8", 127), ("absmax_int4", 7)):
        step = plain.abs().amax(1, keepdim=True) / largest
        torch.testing.assert_close(layer(scheme).dequantized(), (plain / step).round() * step)
        whole = plain.abs().max() / largest
        torch.testing.assert_close(
            layer(scheme, granularity="per_tensor").dequantized(), (plain / whole).round() * whole
        )
    assert layer("absmax_int8", granularity="per_group", group_size=8).scales.shape == (INNER, WIDTH // 8, 1)


@torch.no_grad()
def test_a_transposed_matrix_is_quantised_by_its_outputs() -> None:
    layer = Conv1D(3, 2)  # from two inputs to three outputs
    layer.weight.copy_(torch.tensor([[1.0, 100.0, 2.0], [127.0, 12700.0, 254.0]]))
    layer.bias.copy_(torch.tensor([1.0, 2.0, 3.0]))
    quantised = AbsmaxLinear(layer, 8, "per_channel", 64)
    # The steps of the three outputs are 1, 100 and 2, so that nothing is rounded.
    assert quantised.scales.flatten().tolist() == [1.0, 100.0, 2.0]
    x = torch.tensor([[1.0, 2.0]])
    assert quantised(x).tolist() == layer(x).tolist() == [[256.0, 25502.0, 513.0]]


# --- bottlenecks -----------------------------------------------------------------------------------------------------


@torch.no_grad()
def opened(tuned: Tuned) -> Tuned:
    """With values in place of the zeros that adapters start with."""
    for number, parameter in enumerate(tuned.trainable.values()):
        parameter.copy_(numbers(*parameter.shape, seed=number) * 0.3)
    return tuned


def change(bottleneck: nn.Module, hidden: torch.Tensor) -> torch.Tensor:
    """``up(gelu(down(h)))`` by hand."""
    inner = nn.functional.gelu(hidden @ bottleneck.down.weight.T + bottleneck.down.bias)
    product: torch.Tensor = inner @ bottleneck.up.weight.T + bottleneck.up.bias
    return product


@pytest.mark.parametrize("place", ["self_attn.o_proj", "mlp.down_proj"])
@torch.no_grad()
def test_houlsbys_adapter_adds_its_change_behind_both_projections(base: Base, place: str) -> None:
    tuned = opened(methods.apply("adapter", base, bottleneck=5, layer_norm=False))
    layer = module(tuned, f"layers.1.{place}")
    assert layer.adapter.down.weight.shape == (5, WIDTH)
    x = numbers(3, layer.in_features)
    h = x @ layer.weight.T
    torch.testing.assert_close(layer(x), h + change(layer.adapter, h))


@torch.no_grad()
def test_lins_adapter_reads_the_normalised_state(base: Base) -> None:
    layer = module(opened(methods.apply("adapter", base, variant="lin", bottleneck=5)), "layers.0.mlp.down_proj")
    x = numbers(3, INNER)
    h = x @ layer.weight.T
    normalised = nn.functional.layer_norm(h, (WIDTH,)) * layer.adapter.norm.weight + layer.adapter.norm.bias
    torch.testing.assert_close(layer(x), h + change(layer.adapter, normalised))


def test_where_the_bottlenecks_of_each_variant_stand(base: Base) -> None:
    def places(variant: str) -> set[str]:
        names = (name for name, _ in methods.apply("adapter", base, variant=variant).model.named_modules())
        return {name.split(".")[-2] for name in names if name.endswith(".adapter")}

    assert {variant: places(variant) for variant in VARIANTS} == {
        "houlsby": {"o_proj", "down_proj"},
        "pfeiffer": {"down_proj"},
        "parallel": {"down_proj"},
        "lin": {"down_proj"},
    }


def test_the_default_bottleneck_has_64_units(base: Base) -> None:
    adapter = module(methods.apply("adapter", base), "layers.0.mlp.down_proj").adapter
    assert adapter.down.weight.shape == (64, WIDTH)


@torch.no_grad()
def test_a_bottleneck_starts_near_zero_and_changes_nothing() -> None:
    torch.manual_seed(0)
    bottleneck = Bottleneck(64, 128, "gelu", torch.zeros(()))
    assert float(bottleneck.down.weight.std()) == pytest.approx(1e-2, rel=0.05)
    assert not bottleneck.down.bias.any() and not bottleneck.up.weight.any() and not bottleneck.up.bias.any()
    assert not bottleneck(numbers(3, 64)).any()


@torch.no_grad()
def test_a_bottleneck_has_the_activation_that_it_is_given() -> None:
    bottleneck = Bottleneck(4, 4, "relu", torch.zeros(()))
    for layer in (bottleneck.down, bottleneck.up):
        layer.weight.copy_(torch.eye(4))
    hidden = torch.tensor([-1.0, 2.0, -3.0, 4.0])
    assert bottleneck(hidden).tolist() == [0, 2, 0, 4]


def test_the_seed_of_an_adapter_is_the_bases() -> None:
    first, second, other = (
        next(iter(methods.apply("adapter", toy.base(seed=seed), bottleneck=4).trainable.values())) for seed in (4, 4, 5)
    )
    assert torch.equal(first, second) and not torch.equal(first, other)


# --- vectors and biases ----------------------------------------------------------------------------------------------


@torch.no_grad()
def test_ia3_scales_keys_and_values_behind_their_layer_and_inner_activations_before_theirs(base: Base) -> None:
    tuned = methods.apply("ia3", base)
    for name in ("k_proj", "v_proj"):
        layer = module(tuned, f"layers.0.self_attn.{name}")
        scale = layer.ia3_l["default"]
        scale.copy_(numbers(*scale.shape, seed=1))
        x = numbers(3, WIDTH)
        torch.testing.assert_close(layer(x), scale.flatten() * (x @ layer.base_layer.weight.T))
    layer = module(tuned, "layers.0.mlp.down_proj")
    scale = layer.ia3_l["default"]
    scale.copy_(numbers(*scale.shape, seed=2))
    x = numbers(3, INNER)
    torch.testing.assert_close(layer(x), (scale.flatten() * x) @ layer.base_layer.weight.T)


def test_bitfit_trains_every_bias_that_is_there_and_no_matrix() -> None:
    bert = load_base("tiny-bert", labels=("a", "b", "c"), device="cpu", seed=3)
    tuned = methods.apply("bitfit", bert)
    head = {"classifier.weight", "classifier.bias"}
    everything = {name for name, _ in tuned.model.named_parameters()}
    fresh = {name for name in tuned.trainable if not name.endswith("bias")}
    assert fresh <= {"classifier.weight", "bert.pooler.dense.weight"}
    assert {n for n in everything if n.endswith("bias")} | head <= set(tuned.trainable)
    assert tuned.note is None


def test_added_biases_start_at_zero_on_every_linear_layer_of_the_body(base: Base) -> None:
    tuned = methods.apply("bitfit", base)
    assert {name.removeprefix("model.").removesuffix(".bias") for name in tuned.trainable} == PLACES
    assert not any(bool(p.any()) for p in tuned.trainable.values())
    assert tuned.note == "14 zero-initialised biases added"
    rated = methods.apply("bitfit", replace(base, scalar=True))  # a reward model: its output layer is no body
    assert rated.note == tuned.note and rated.model.score.bias is None


@pytest.mark.parametrize(("args", "layers"), [({"k": 1}, {1}), ({}, {0, 1})])
def test_full_top_k_trains_the_last_k_layers_and_the_norm_behind_them(
    base: Base, args: dict[str, int], layers: set[int]
) -> None:
    tuned = methods.apply("full_top_k", base, **args)
    expected = {name for name, _ in tuned.model.named_parameters() if name.startswith("model.layers.")}
    expected = {name for name in expected if int(name.split(".")[2]) in layers}
    assert set(tuned.trainable) == expected | {"model.norm.weight"}


def test_full_top_k_trains_the_output_layer_when_asked_to() -> None:
    base = toy.base()
    names = set(methods.apply("full_top_k", base, k=1, output_layer=True).trainable)
    assert names - set(methods.apply("full_top_k", base, k=1).trainable) == {"lm_head.weight"}


def test_layer_norm_tuning_trains_the_norms_alone(base: Base) -> None:
    tuned = methods.apply("peft", base)  # its default
    # Two in each of the two layers, and the one behind them.
    assert tuned.trainable_params == 5 * WIDTH
    assert all("norm" in name for name in tuned.trainable)


def test_a_schedules_length_is_the_trainings_unless_it_is_given(base: Base) -> None:
    def steps(**args: Any) -> int:
        config: Any = methods.apply("peft", base, peft_type="ADALORA", **args).model.peft_config["default"]
        return int(config.total_step)

    assert steps(train_steps=30) == 30
    assert steps(train_steps=30, config={"total_step": 7}) == 7


def test_full_trains_everything_and_the_baseline_nothing(base: Base) -> None:
    full, untrained = methods.apply("full", base), methods.apply("baseline", base)
    assert full.trainable_params == full.total_params == untrained.total_params
    assert untrained.trainable_params == 0
    assert "(100.00 %)" in repr(full) and "(0 %)" in repr(untrained)

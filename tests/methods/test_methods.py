"""Known answers about the methods, on tiny random models: what trains, what stays, what is saved."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from harness import catalog, methods
from harness.errors import InputError
from harness.measure.memory import saved_activations, weights_bytes
from harness.methods import load
from harness.methods.adapter import VARIANTS
from harness.models.load import Base
from harness.models.load import load as load_base
from harness.networks.fresh import fresh_parameters
from harness.networks.tuned import Tuned

pytestmark = pytest.mark.slow

#: Every method that trains with the settings that make another network of it; ``bitdelta`` needs a parent and has tests
#: of its own.
CASES: list[tuple[str, dict[str, Any]]] = [
    ("full", {}),
    ("full_top_k", {"k": 1}),
    ("full_top_k", {"k": 1, "output_layer": True}),
    ("head", {}),
    ("bitfit", {}),
    *[("adapter", {"variant": variant, "bottleneck": 4}) for variant in VARIANTS],
    *[("prompt", {"num_virtual_tokens": 3, "init": init, "text": "a b"}) for init in ("random", "vocabulary", "text")],
    ("prefix", {"num_virtual_tokens": 3}),
    ("prefix", {"num_virtual_tokens": 3, "prefix_projection": True}),
    ("p_tuning", {"num_virtual_tokens": 3, "encoder_hidden_size": 8}),
    ("p_tuning", {"num_virtual_tokens": 3, "encoder_hidden_size": 8, "encoder": "mlp"}),
    ("llama_adapter", {"adapter_len": 3}),
    ("lora", {}),
    ("lora", {"init": "pissa", "use_rslora": True}),
    ("dora", {}),
    ("ia3", {}),
    ("qlora", {}),
    ("peft", {"peft_type": "LN_TUNING", "config": {"target_modules": ".*[nN]orm.*"}}),
    ("peft", {"peft_type": "ADALORA", "train_steps": 10}),
    ("peft", {"peft_type": "VERA"}),
]
#: Cases whose first forward pass is that of the base model.
IDENTITY_AT_START = [
    case for case in CASES if case[0] in ("bitfit", "adapter", "lora", "dora", "ia3", "llama_adapter", "peft")
]
MERGEABLE = [case for case in CASES if case[0] in ("lora", "dora", "ia3", "peft")]


def case_id(case: tuple[str, dict[str, Any]]) -> str:
    name, args = case
    return "-".join([name, *(str(args[key]) for key in ("variant", "init", "encoder", "peft_type") if key in args)])


@pytest.fixture(params=["tiny-llama", "tiny-bert"])
def base(request: pytest.FixtureRequest) -> Base:
    labels = ("animal", "place", "number") if request.param == "tiny-bert" else None
    return load_base(request.param, labels=labels, device="cpu", seed=3)


def applied(case: tuple[str, dict[str, Any]], base: Base) -> Tuned:
    name, args = case
    entry = catalog.method(name)
    if entry.families and base.spec.architecture not in entry.families:
        with pytest.raises(InputError, match=base.spec.architecture):
            methods.apply(name, base, **args)
        pytest.skip(f"{name} works on {', '.join(entry.families)}")
    return methods.apply(name, base, **args)


@pytest.fixture
def llama() -> Base:
    return load_base("tiny-llama", device="cpu", seed=3)


def batch(base: Base) -> dict[str, torch.Tensor]:
    ids = torch.randint(3, 250, (2, 9), generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 2]) if base.has_head else ids
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}


def train(tuned: Tuned, steps: int = 1) -> None:
    """Optimiser steps on everything that has requires_grad."""
    tuned.model.train()
    optimizer = torch.optim.AdamW(tuned.trainable.values(), lr=1e-2, weight_decay=0.0)
    for number in range(1, steps + 1):
        optimizer.zero_grad()
        tuned.model(**batch(tuned.base)).loss.backward()
        optimizer.step()
        if tuned.after_step is not None:
            tuned.after_step(number)
    tuned.model.eval()


@torch.no_grad()
def logits(tuned: Tuned) -> torch.Tensor:
    inputs = {name: value for name, value in batch(tuned.base).items() if name != "labels"}
    found: torch.Tensor = tuned.model(**inputs).logits
    return found


def test_catalog_and_files_agree() -> None:
    for name in catalog.METHODS:
        module = __import__(f"harness.methods.{name}", fromlist=["apply"])
        assert isinstance(module.apply, Callable) and module.__doc__, name  # type: ignore[arg-type]


def test_the_cases_leave_no_method_out() -> None:
    trained = {name for name, entry in catalog.METHODS.items() if entry.trains}
    assert {name for name, _ in CASES} == trained - {"bitdelta"}


@pytest.mark.parametrize("case", IDENTITY_AT_START, ids=case_id)
def test_outputs_are_unchanged_at_the_start(base: Base, case: tuple[str, dict[str, Any]]) -> None:
    untouched = logits(Tuned(base, base.build()))
    torch.testing.assert_close(logits(applied(case, base)), untouched, rtol=0, atol=2e-6)


@pytest.mark.parametrize("case", CASES, ids=case_id)
def test_steps_move_what_is_declared_and_nothing_else(base: Base, case: tuple[str, dict[str, Any]]) -> None:
    tuned = applied(case, base)
    before = {name: p.detach().clone() for name, p in tuned.model.named_parameters()}
    buffers = {name: b.clone() for name, b in tuned.model.named_buffers()}
    # Two steps: what stands behind a matrix or a gate of zeros gets no gradient before.
    train(tuned, steps=2)
    after = dict(tuned.model.named_parameters())
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved <= set(tuned.trainable), "a frozen parameter moved"
    still = {name for name in set(tuned.trainable) - moved if "ranknum" not in name}
    assert not still, "a declared one did not"
    for name, value in buffers.items():
        assert torch.equal(value, dict(tuned.model.named_buffers())[name]), name


@pytest.mark.parametrize("case", [*CASES, ("baseline", {}), ("quantized", {})], ids=case_id)
def test_saved_and_reloaded_equals(base: Base, case: tuple[str, dict[str, Any]], tmp_path: Path) -> None:
    tuned = applied(case, base)
    if tuned.trainable:
        untrained = logits(tuned)
        train(tuned, steps=2)
        assert not torch.equal(untrained, logits(tuned)), "training changed nothing, so the check would prove nothing"
    stored = tuned.save(tmp_path)
    assert (stored > 0) == bool(tuned.trainable)
    reloaded = load(base, tmp_path)
    torch.testing.assert_close(logits(reloaded), logits(tuned), rtol=0, atol=2e-6)
    # What was loaded can be trained on, the head of a classifier included.
    assert bool(reloaded.trainable) == bool(tuned.trainable)
    head = [p for p in fresh_parameters(base, reloaded.model) if p.requires_grad]
    assert not (base.has_head and tuned.trainable) or head or any("classifier" in n for n in reloaded.trainable)


@pytest.mark.parametrize("case", MERGEABLE, ids=case_id)
def test_merged_equals_unmerged_and_afterwards_all_is_as_before(base: Base, case: tuple[str, dict[str, Any]]) -> None:
    tuned = applied(case, base)
    train(tuned, steps=2)
    unmerged, state = logits(tuned), {name: t.clone() for name, t in tuned.model.state_dict().items()}
    assert tuned.merge is not None
    with tuned.merge() as plain:
        assert not [name for name, _ in plain.named_parameters() if "lora_" in name]
        torch.testing.assert_close(logits(replace(tuned, model=plain)), unmerged, rtol=0, atol=1e-5)
    assert all(torch.equal(tensor, state[name]) for name, tensor in tuned.model.state_dict().items())
    assert torch.equal(logits(tuned), unmerged)


@pytest.mark.parametrize("method", ["full", "bitfit", "adapter", "prompt", "prefix", "qlora"])
def test_what_cannot_be_folded_without_loss_is_not_offered_to(llama: Base, method: str) -> None:
    assert methods.apply(method, llama).merge is None


def test_a_checkpoint_that_is_not_where_the_notebook_says_is_one_line(base: Base, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "moved", tmp_path / "empty"):
        with pytest.raises(InputError) as caught:
            load(base, folder)
        assert str(caught.value) == (
            f"there is no folder with a checkpoint at {folder}; "
            "set parent_dirs to where the parent's checkpoint lies now, or to {} to train a parent in the notebook "
            "(a sweep with 'keep_artifacts: true' keeps all checkpoints)"
        )


def test_a_checkpoint_of_another_model_is_refused(llama: Base, tmp_path: Path) -> None:
    methods.apply("lora", llama).save(tmp_path)
    other = load_base("tiny-bert", labels=("a", "b"), device="cpu")
    with pytest.raises(ValueError, match="trained on tiny-llama, not on tiny-bert"):
        load(other, tmp_path)


def test_bitfit_moves_biases_only_and_adds_them_where_there_are_none(llama: Base) -> None:
    tuned = methods.apply("bitfit", llama)
    assert all(name.endswith("bias") for name in tuned.trainable)
    linears = 7 * llama.spec.transformers_config().num_hidden_layers  # q, k, v, o, gate, up, down
    assert tuned.note == f"{linears} zero-initialised biases added"
    assert len(tuned.trainable) == linears


def test_head_of_a_tied_language_model_leaves_the_embedding_alone(llama: Base) -> None:
    tuned = methods.apply("head", llama)
    embedding = tuned.model.get_input_embeddings().weight
    before = embedding.detach().clone()
    train(tuned)
    assert torch.equal(embedding, before)
    assert list(tuned.trainable) == ["lm_head.weight"]


@pytest.mark.parametrize(
    ("variant", "places", "own"), [("houlsby", 2, 0), ("pfeiffer", 1, 0), ("parallel", 1, 0), ("lin", 1, 1)]
)
def test_adapter_has_the_papers_number_of_parameters(llama: Base, variant: str, places: int, own: int) -> None:
    config = llama.spec.transformers_config()
    d, m, layers = config.hidden_size, 16, config.num_hidden_layers
    tuned = methods.apply("adapter", llama, variant=variant, bottleneck=m, layer_norm=False)
    # Houlsby et al. 2019, section 2.1: 2md + d + m parameters for an adapter; Lin's has a layer norm of its own.
    assert tuned.trainable_params == layers * places * (2 * m * d + d + m + own * 2 * d)


def test_only_houlsbys_adapters_train_the_layer_norms_unless_asked(llama: Base) -> None:
    def norms(**args: Any) -> int:
        return sum("norm" in name for name in methods.apply("adapter", llama, **args).trainable)

    layers = llama.spec.transformers_config().num_hidden_layers
    assert norms() == 2 * layers + 1
    assert norms(variant="pfeiffer") == norms(layer_norm=False) == 0


def test_a_parallel_adapter_adds_what_it_makes_of_the_feed_forwards_input(llama: Base) -> None:
    tuned = methods.apply("adapter", llama, variant="parallel", bottleneck=4, scale=3.0)
    train(tuned)
    block = tuned.model.model.layers[0].mlp
    seen: dict[str, torch.Tensor] = {}
    block.register_forward_pre_hook(lambda _m, inputs: seen.update(x=inputs[0]))
    block.register_forward_hook(lambda _m, _i, output: seen.update(y=output))
    logits(tuned)
    adapter = block.down_proj.adapter
    x = seen["x"]
    by_hand = torch.nn.functional.gelu(x @ adapter.down.weight.T + adapter.down.bias) @ adapter.up.weight.T
    plain = (block.act_fn(x @ block.gate_proj.weight.T) * (x @ block.up_proj.weight.T)) @ block.down_proj.weight.T
    torch.testing.assert_close(seen["y"], plain + 3.0 * (by_hand + adapter.up.bias), rtol=0, atol=1e-6)


def test_a_copied_model_uses_its_own_adapters(llama: Base) -> None:
    tuned = methods.apply("adapter", llama, bottleneck=4)
    copied = replace(tuned, model=copy.deepcopy(tuned.model))
    before = logits(copied)
    train(tuned)
    assert torch.equal(logits(copied), before)
    assert not torch.equal(logits(tuned), before)


def test_full_top_k_trains_the_last_layers_and_the_norm_behind_them(llama: Base) -> None:
    tuned = methods.apply("full_top_k", llama, k=1)
    last = llama.spec.transformers_config().num_hidden_layers - 1
    assert {name for name in tuned.trainable if not name.startswith(f"model.layers.{last}.")} == {"model.norm.weight"}
    with pytest.raises(InputError, match="not between 1 and the model's 2 layers"):
        methods.apply("full_top_k", llama, k=3)


def test_ia3_scales_keys_values_and_inner_activations_and_nothing_else(llama: Base) -> None:
    config = llama.spec.transformers_config()
    tuned = methods.apply("ia3", llama)
    width = config.hidden_size // config.num_attention_heads * config.num_key_value_heads
    # Liu et al. 2022, section 3.3: d_k + d_v + d_ff for each layer.
    assert tuned.trainable_params == config.num_hidden_layers * (2 * width + config.intermediate_size)
    assert {name.split(".")[-3] for name in tuned.trainable} == {"k_proj", "v_proj", "down_proj"}
    assert all(bool((p == 1).all()) for p in tuned.trainable.values())


def test_the_gates_of_llama_adapter_start_shut_and_open(llama: Base) -> None:
    tuned = methods.apply("llama_adapter", llama, adapter_layers=1)
    gates = {name: p for name, p in tuned.trainable.items() if name.endswith("adaption_gate")}
    assert len(gates) == 1 and all(float(gate.detach().abs().sum()) == 0 for gate in gates.values())
    train(tuned)
    assert all(float(gate.detach().abs().sum()) > 0 for gate in gates.values())
    with pytest.raises(InputError, match="not between 1 and the model's 2 layers"):
        methods.apply("llama_adapter", llama, adapter_layers=3)


def test_a_prompt_starts_from_the_embeddings_of_its_text(llama: Base) -> None:
    tuned = methods.apply("prompt", llama, num_virtual_tokens=5, init="text", text="ab")
    ids = llama.tokenizer("ab", add_special_tokens=False)["input_ids"]
    expected = tuned.model.get_input_embeddings()(torch.tensor([ids[0], ids[1], ids[0], ids[1], ids[0]]))
    assert torch.equal(tuned.model.prompt_encoder["default"].embedding.weight, expected)
    with pytest.raises(InputError, match="needs a text"):
        methods.apply("prompt", llama, init="text")


def test_adalora_gives_up_ranks_as_its_schedule_says(llama: Base) -> None:
    config = {"init_r": 4, "target_r": 1, "tinit": 1, "tfinal": 1}
    tuned = methods.apply("peft", llama, peft_type="ADALORA", config=config, train_steps=6)
    train(tuned, steps=6)
    values = [p for name, p in tuned.trainable.items() if "lora_E" in name]
    assert sum(int((p != 0).sum()) for p in values) == len(values) * config["target_r"]


@pytest.mark.parametrize(
    ("method", "args", "message"),
    [
        ("adapter", {"variant": "houlsbi"}, "adapter.variant: unknown name 'houlsbi'; did you mean 'houlsby'"),
        ("adapter", {"activation": "gelo"}, "did you mean 'gelu'"),
        ("prompt", {"init": "vocab"}, "did you mean 'vocabulary'"),
        ("p_tuning", {"encoder": "lsm"}, "did you mean 'lstm'"),
        ("peft", {"peft_type": "ADALORAA"}, "did you mean 'ADALORA'"),
        ("peft", {"peft_type": "VERA", "config": {"rr": 1}}, r"peft.config \(VERA\): unknown name 'rr'"),
        ("qlora", {"optimizer": "paged_adamw"}, "did you mean 'paged_adamw_"),
        ("quantized", {"scheme": "nf5"}, "did you mean 'nf4'"),
        ("quantized", {"granularity": "per_row"}, "quantized.granularity: unknown name 'per_row'"),
        ("peft", {"peft_type": "LORA", "config": {"target_modules": ["nowhere"]}}, "peft: PEFT's LORA on llama"),
    ],
)
def test_a_wrong_argument_is_told_in_one_line(llama: Base, method: str, args: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        methods.apply(method, llama, **args)
    assert "\n" not in str(caught.value)


def test_lora_has_the_papers_number_of_parameters(llama: Base) -> None:
    config = llama.spec.transformers_config()
    tuned = methods.apply("lora", llama, r=4, target_modules=["q_proj"])
    # Hu et al. 2021, section 4.2: 2 x layers x d_model x r for one square matrix in every layer.
    assert tuned.trainable_params == 2 * config.num_hidden_layers * config.hidden_size * 4


def test_the_same_seed_gives_the_same_adapter() -> None:
    first, second, other = (
        methods.apply("lora", load_base("tiny-llama", device="cpu", seed=seed)).trainable for seed in (1, 1, 2)
    )
    name = next(n for n in first if "lora_A" in n)
    assert torch.equal(first[name], second[name])
    assert not torch.equal(first[name], other[name])


def test_qlora_gradients_equal_those_of_lora_on_the_dequantised_weights_even_after_an_evaluation(llama: Base) -> None:
    from bitsandbytes.functional import dequantize_4bit
    from bitsandbytes.nn import Linear4bit

    quantised = methods.apply("qlora", llama, r=4)
    reference = methods.apply("lora", llama, r=4)
    plain = dict(reference.model.named_modules())
    with torch.no_grad():
        for name, module in quantised.model.named_modules():
            if isinstance(module, Linear4bit):
                plain[name].weight.copy_(dequantize_4bit(module.weight.data, module.weight.quant_state))
        for name, parameter in reference.trainable.items():
            parameter.normal_(std=0.05, generator=torch.Generator().manual_seed(len(name)))
            quantised.trainable[name].copy_(parameter)
    logits(quantised)  # the evaluation that would repack the weights
    for tuned in (quantised, reference):
        tuned.model.train()
        tuned.model(**batch(llama)).loss.backward()
    for name, parameter in reference.trainable.items():
        torch.testing.assert_close(quantised.trainable[name].grad, parameter.grad, rtol=1e-4, atol=1e-6)


def test_four_bit_weights_count_their_scales(llama: Base) -> None:
    quantised, full = methods.apply("qlora", llama), methods.apply("lora", llama)
    assert weights_bytes(quantised.model) < weights_bytes(full.model)
    assert quantised.total_params == full.total_params
    single = methods.apply("qlora", llama, double_quant=False)
    assert weights_bytes(single.model) != weights_bytes(quantised.model)


def test_full_fine_tuning_keeps_more_activations_than_the_head_alone(llama: Base) -> None:
    def kept(method: str) -> int:
        tuned = methods.apply(method, llama)
        tuned.model.train()
        with saved_activations(tuned.model) as saved:
            loss = tuned.model(**batch(llama)).loss
        kept = saved.bytes
        loss.backward()
        return kept

    assert 0 < kept("head") < kept("full")

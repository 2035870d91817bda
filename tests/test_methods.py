"""Known answers about the methods, on tiny random models: what trains, what stays, what is saved."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from harness import catalog, methods
from harness.measure.memory import saved_activations, weights_bytes
from harness.methods.tuned import Tuned, load
from harness.models.load import Base
from harness.models.load import load as load_base

TRAINED = [name for name, entry in catalog.METHODS.items() if entry.trains]
#: Methods whose first forward pass is that of the base model.
IDENTITY_AT_START = ["bitfit", "adapter", "lora"]


@pytest.fixture(params=["tiny-llama", "tiny-bert"])
def base(request: pytest.FixtureRequest) -> Base:
    labels = ("animal", "place", "number") if request.param == "tiny-bert" else None
    return load_base(request.param, labels=labels, device="cpu", seed=3)


@pytest.fixture
def llama() -> Base:
    return load_base("tiny-llama", device="cpu", seed=3)


def batch(base: Base) -> dict[str, torch.Tensor]:
    ids = torch.randint(3, 250, (2, 9), generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 2]) if base.has_head else ids
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}


def step(tuned: Tuned) -> None:
    """One optimiser step on everything that has requires_grad."""
    tuned.model.train()
    optimizer = torch.optim.AdamW(tuned.trainable.values(), lr=1e-2, weight_decay=0.0)
    tuned.model(**batch(tuned.base)).loss.backward()
    optimizer.step()
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


@pytest.mark.parametrize("method", IDENTITY_AT_START)
def test_outputs_are_unchanged_at_the_start(base: Base, method: str) -> None:
    untouched = logits(Tuned(base, "none", {}, base.build()))
    torch.testing.assert_close(logits(methods.apply(method, base)), untouched, rtol=0, atol=1e-6)


@pytest.mark.parametrize("method", TRAINED)
def test_a_step_moves_what_is_declared_and_nothing_else(base: Base, method: str) -> None:
    tuned = methods.apply(method, base)
    before = {name: p.detach().clone() for name, p in tuned.model.named_parameters()}
    buffers = {name: b.clone() for name, b in tuned.model.named_buffers()}
    step(tuned)
    after = dict(tuned.model.named_parameters())
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved <= set(tuned.trainable), "a frozen parameter moved"
    # LoRA's A gets no gradient while B is zero; every other declared parameter must move.
    still = {name for name in set(tuned.trainable) - moved if "lora_A" not in name and "down" not in name}
    assert not {name for name in still if not name.endswith("position_embeddings.weight")}, "a declared one did not"
    for name, value in buffers.items():
        assert torch.equal(value, dict(tuned.model.named_buffers())[name]), name


@pytest.mark.parametrize("method", [*TRAINED, "baseline"])
def test_saved_and_reloaded_equals(base: Base, method: str, tmp_path) -> None:  # type: ignore[no-untyped-def]
    tuned = methods.apply(method, base)
    if tuned.trainable:
        untrained = logits(tuned)
        step(tuned)
        assert not torch.equal(untrained, logits(tuned)), "the step changed nothing, so the check would prove nothing"
    stored = tuned.save(tmp_path)
    assert (stored > 0) == bool(tuned.trainable)
    torch.testing.assert_close(logits(load(base, tmp_path)), logits(tuned), rtol=0, atol=1e-6)


def test_a_checkpoint_of_another_model_is_refused(llama: Base, tmp_path) -> None:  # type: ignore[no-untyped-def]
    methods.apply("lora", llama).save(tmp_path)
    other = load_base("tiny-bert", labels=("a", "b"), device="cpu")
    with pytest.raises(ValueError, match="trained on tiny-llama, not on tiny-bert"):
        load(other, tmp_path)


def test_merged_lora_equals_unmerged(llama: Base) -> None:
    tuned = methods.apply("lora", llama, r=4)
    step(tuned)
    unmerged = logits(tuned)
    merged = Tuned(llama, "lora", {}, tuned.model.merge_and_unload())
    torch.testing.assert_close(logits(merged), unmerged, rtol=0, atol=1e-5)


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
    step(tuned)
    assert torch.equal(embedding, before)
    assert list(tuned.trainable) == ["lm_head.weight"]


def test_adapter_has_the_papers_number_of_parameters(llama: Base) -> None:
    config = llama.spec.transformers_config()
    d, m, layers = config.hidden_size, 16, config.num_hidden_layers
    tuned = methods.apply("adapter", llama, bottleneck=m, layer_norm=False)
    # Houlsby et al. 2019, section 2.1: 2md + d + m parameters for each of two adapters in every layer.
    assert tuned.trainable_params == layers * 2 * (2 * m * d + d + m)


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
            tuned.model(**batch(llama))
        return saved.bytes

    assert kept("head") < kept("full")

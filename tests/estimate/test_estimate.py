"""The estimate against the tensors themselves, on models small enough to be built, and against published sizes."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.lengths import long_after

from harness import catalog, methods
from harness.errors import InputError
from harness.estimate.estimate import estimate
from harness.estimate.fits import parse_bytes, what_fits
from harness.measure.flops import FlopCounter
from harness.measure.memory import gradients_bytes, optimizer_bytes, saved_activations, weights_bytes
from harness.models.load import load
from harness.models.spec import load_spec

pytestmark = pytest.mark.slow

TRAINED = [name for name, entry in catalog.METHODS.items() if entry.trains]
MODELS = {"tiny-llama": None, "tiny-bert": ("0", "1"), "tiny-t5": None, "tiny-bart": None}
#: The LSTM of p-tuning is left to oneDNN on CPU, whose FLOPs no counter sees; it has a test of its own.
ARGS: dict[str, dict[str, object]] = {"p_tuning": {"encoder": "mlp"}}
GB = 10**9


def real(model: str, method: str, batch: int, length: int, dtype: str = "float32", **args: object) -> dict[str, int]:
    """One real training step, every tensor counted."""
    tuned = methods.apply(method, load(model, labels=MODELS[model], dtype=dtype, device="cpu"), **args)
    weights = weights_bytes(tuned.model)
    ids = torch.randint(3, 250, (batch, length), generator=torch.Generator().manual_seed(0))
    labels = torch.zeros(batch, dtype=torch.long) if tuned.base.has_head else ids
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}
    if tuned.base.reads_apart:
        answers = ids[:, : length // 2].contiguous()
        inputs |= {"decoder_input_ids": answers, "labels": answers}
    tuned.model.train()
    with FlopCounter() as flops:
        with saved_activations(tuned.model) as saved:
            loss = tuned.model(**inputs).loss
        kept = saved.bytes
        loss.backward()
    optimizer = torch.optim.AdamW(tuned.trainable.values(), fused=True)
    optimizer.step()
    return {
        "total_params": tuned.total_params,
        "trainable_params": tuned.trainable_params,
        "weights_bytes": weights,
        "gradients_bytes": gradients_bytes(tuned.model),
        "optimizer_bytes": optimizer_bytes(optimizer),
        "activations_bytes": kept,
        "flops": flops.flops,
    }


@pytest.mark.parametrize("model", long_after(3, MODELS))
@pytest.mark.parametrize("method", TRAINED)
def test_estimate_equals_the_tensors_of_a_real_step(model: str, method: str) -> None:
    args = ARGS.get(method, {})
    try:
        measured = real(model, method, 2, 24, **args)
    except InputError as error:
        pytest.skip(str(error))
    found = estimate(model, method, args, batch_size=2, length=24, dtype="float32", optimizer_dtype=None)
    activations = measured.pop("activations_bytes")
    assert {name: getattr(found, name) for name in measured} == measured
    assert found.activations_bytes == pytest.approx(activations, rel=0.03)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("method", ["full", "head", "bitfit", "adapter", "lora", "qlora"])
@pytest.mark.long
def test_16_bit_tensors_too(model: str, method: str) -> None:
    measured = real(model, method, 2, 24, dtype="bfloat16")
    found = estimate(model, method, batch_size=2, length=24, dtype="bfloat16", optimizer_dtype=None)
    if method in ("bitfit", "adapter"):
        # A norm with 32-bit parameters that reads 16 bits: the real kernel keeps its two statistics in another format.
        assert found.activations_bytes == pytest.approx(measured.pop("activations_bytes"), rel=0.006)
    assert {name: getattr(found, name) for name in measured} == measured
    # What trains is held in 32 bits, with its gradients; the papers count 16 for both.
    assert found.gradients_bytes == 4 * found.trainable_params
    if method == "full":
        papers = estimate(model, method, batch_size=2, length=24, dtype="bfloat16")
        assert found.weights_bytes - papers.weights_bytes == 2 * found.total_params


@pytest.mark.parametrize("model", MODELS)
def test_the_workspace_of_an_lstm_is_counted(model: str) -> None:
    settings: dict[str, Any] = {"batch_size": 2, "length": 24, "dtype": "float32", "optimizer_dtype": None}
    found = estimate(model, "p_tuning", **settings).activations_bytes
    assert found == pytest.approx(real(model, "p_tuning", 2, 24)["activations_bytes"], rel=0.03)
    # It is most of what so small a model keeps: the MLP, which has none, keeps far less.
    assert found - estimate(model, "p_tuning", {"encoder": "mlp"}, **settings).activations_bytes > 0.03 * found


def test_llama_65b_takes_the_papers_memory() -> None:
    # QLoRA's abstract and LoRA's tables: 16-bit weights and gradients, two 32-bit states: 12 bytes a parameter.
    found = estimate("llama-65b")
    assert found.total_params == found.trainable_params == 65_285_660_672
    assert found.weights_bytes - 2 * found.total_params < 10**4  # buffers of the rotary embedding
    assert found.gradients_bytes == 2 * found.total_params
    assert 0 <= found.optimizer_bytes - 8 * found.total_params < 10**4  # step counters
    assert 780 * GB < found.total_bytes < 800 * GB


def test_qlora_65b_fits_a_48_gb_card() -> None:
    found = estimate("llama-65b", "qlora", {"r": 64}, gradient_checkpointing=True, batch_size=1, length=512)
    assert 40 * GB < found.total_bytes < 48 * GB
    assert found.total_bytes < estimate("llama-65b").total_bytes / 16


@pytest.mark.parametrize(("double", "bits"), [(True, 4.127), (False, 4.5)])
def test_four_bit_weights_take_the_papers_bits(double: bool, bits: float) -> None:
    # Dettmers et al. 2023, section 3: 32/64 bits for a block's scale, or 8/64 + 32/(64 * 256) with double quantisation.
    plain = estimate("llama-7b", "lora", {"r": 8}, dtype="bfloat16")
    packed = estimate("llama-7b", "qlora", {"r": 8, "double_quant": double}, dtype="bfloat16")
    elements = 32 * (4 * 4096 * 4096 + 3 * 4096 * 11008)
    assert 8 * (packed.weights_bytes - (plain.weights_bytes - 2 * elements)) / elements == pytest.approx(bits, abs=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "checkpointing"),
    [("full", False), ("full", True), ("lora", False), ("qlora", False), ("qlora", True), ("prefix", False)],
)
@pytest.mark.long
def test_a_deep_model_lies_on_the_line_through_shallow_ones(
    method: str, checkpointing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"batch_size": 2, "length": 32, "gradient_checkpointing": checkpointing}
    model = "pythia-160m"  # twelve layers
    along = estimate(model, method, **settings)  # type: ignore[arg-type]
    monkeypatch.setattr("harness.estimate.estimate._shallow", lambda *_: None)
    assert along == estimate(model, method, **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(("method", "args"), [("llama_adapter", {}), ("full_top_k", {"k": 3})])
def test_methods_that_treat_some_layers_in_their_own_way_do_so_in_the_shallow_copies(
    method: str, args: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    # All layers but the first two, and the last three: copies of two layers and of four have another share of them.
    along = estimate("smollm2-135m", method, args, length=32)
    monkeypatch.setattr("harness.estimate.estimate._shallow", lambda *_: None)
    whole = estimate("smollm2-135m", method, args, length=32)
    assert along == whole


def test_a_method_on_nearly_every_layer_is_traced_whole() -> None:
    assert estimate("tiny-llama", "llama_adapter", {"adapter_layers": 2}, length=16).trainable_params > 0
    with pytest.raises(InputError, match="not between 1 and the model's 2 layers"):
        estimate("tiny-llama", "llama_adapter", {"adapter_layers": 3})


def test_checkpointing_keeps_what_enters_each_layer() -> None:
    plain = estimate("llama-7b", "lora", batch_size=4)
    sparing = estimate("llama-7b", "lora", batch_size=4, gradient_checkpointing=True)
    entering = 32 * 4 * 512 * 4096 * 2
    head = 4 * 512 * 32000 * 4  # the probabilities that the loss keeps
    assert entering + head < sparing.activations_bytes < 1.2 * (entering + head)
    assert sparing.activations_bytes < plain.activations_bytes / 10
    assert sparing.total_bytes < plain.total_bytes
    assert 1.3 < sparing.flops / plain.flops < 1.6  # the layers' forward pass runs twice


def test_the_peak_is_never_below_what_is_there_at_once() -> None:
    found = estimate("pythia-70m", batch_size=4, length=64)
    assert found.total_bytes >= found.weights_bytes + found.optimizer_bytes + found.activations_bytes
    assert found.total_bytes >= found.weights_bytes + found.optimizer_bytes + found.gradients_bytes


def test_a_config_file_is_enough(tmp_path: Path) -> None:
    config = load_spec("tiny-llama").transformers_config()
    config.save_pretrained(tmp_path)
    named = dataclasses.asdict(estimate("tiny-llama"))
    for path in (tmp_path, tmp_path / "config.json"):
        assert dataclasses.asdict(estimate(str(path))) == {**named, "model": str(path)}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"model": "llama-65"}, "did you mean 'llama-65b'"),
        ({"model": "tiny-llama", "method": "lorra"}, "did you mean 'lora'"),
        ({"model": "tiny-llama", "method": "lora", "method_args": {"rank": 8}}, "unknown name 'rank'"),
        ({"model": "tiny-llama", "dtype": "bf16"}, "dtype: unknown name 'bf16'"),
        ({"model": "tiny-llama", "batch_size": 0}, "batch: 0 is not a number from 1 to"),
        (
            {"model": "tiny-llama", "method": "prefix", "gradient_checkpointing": True},
            "prefix: does not work with gradient checkpointing",
        ),
        ({"model": "tiny-bert", "length": 513}, "length: 513 are more than the 512 positions of tiny-bert"),
        (
            {"model": "tiny-bert", "method": "prompt", "length": 500},
            "length: 500 and 16 virtual tokens are more than the 512 positions of tiny-bert",
        ),
    ],
)
def test_bad_input_is_told_in_one_line(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        estimate(**given)


def test_sizes_of_memory() -> None:
    assert parse_bytes("24GB") == 24 * GB
    assert parse_bytes(" 1.5 gib") == 3 * 2**29
    for bad in ("24", "GB", "24 apples", "-1GB"):
        with pytest.raises(InputError, match="write it like 24GB"):
            parse_bytes(bad)


def test_what_fits_names_the_smallest_card_and_why_a_method_is_out() -> None:
    found = {fit.method: fit for fit in what_fits("tiny-bert", batch_size=1, length=16)}
    assert set(found) == set(TRAINED)
    assert found["full"].smallest_gb() == 8
    assert found["llama_adapter"].estimate is None and found["llama_adapter"].reason
    assert estimate("llama-7b").fits(80 * GB) is False
    assert estimate("llama-7b", "qlora").fits(24 * GB) is True


@pytest.mark.gpu
@pytest.mark.parametrize("method", ["full", "lora", "qlora", "adapter", "prefix"])
@pytest.mark.parametrize("model", ["llama-1b", "llama-7b"])
def test_the_total_is_within_7_percent_of_what_a_gpu_allocates(model: str, method: str) -> None:
    bench = Path(__file__).parents[2] / "benchmarks" / "estimate.py"
    settings = ["--batches", "4", "--lengths", "512", "--dtype", "bfloat16", "--device", "cuda"]
    command = [sys.executable, str(bench), "--models", model, "--methods", method, *settings]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr

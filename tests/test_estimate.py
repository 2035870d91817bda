"""The estimate against the tensors themselves, on models small enough to be built, and against published sizes."""

from __future__ import annotations

import pytest
import torch

from harness import catalog, methods
from harness.errors import InputError
from harness.estimate.estimate import estimate
from harness.measure.flops import FlopCounter
from harness.measure.memory import gradients_bytes, optimizer_bytes, saved_activations, weights_bytes
from harness.models.load import load

TRAINED = [name for name, entry in catalog.METHODS.items() if entry.trains]
MODELS = {"tiny-llama": None, "tiny-bert": ("0", "1")}
#: The LSTM of p-tuning is left to oneDNN on CPU, which keeps a workspace of its own (0.7 MB here) that no trace sees.
ARGS: dict[str, dict[str, object]] = {"p_tuning": {"encoder": "mlp"}}
GB = 10**9


def real(model: str, method: str, batch: int, length: int, **args: object) -> dict[str, int]:
    """One real training step, every tensor counted."""
    tuned = methods.apply(method, load(model, labels=MODELS[model], device="cpu"), **args)
    weights = weights_bytes(tuned.model)
    ids = torch.randint(3, 250, (batch, length), generator=torch.Generator().manual_seed(0))
    labels = torch.zeros(batch, dtype=torch.long) if tuned.base.has_head else ids
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}
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


@pytest.mark.parametrize("model", MODELS)
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

"""What is lost where a tuned model is merged: against the unmerged one, in weights of every format.

"Merged models lose their quality" is a usual complaint. A merge rounds the sum of weight and change to the format of
the weights. In 32 bits that is nothing, in 16 bits the small part of a change falls off, and a base that is quantised
again rounds change and weight alike. LoRA on a base in 4 bits (QLoRA) is merged into that base dequantised, because it
learnt beside its rounded weights and not beside those of the checkpoint.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import torch
from bitsandbytes.nn import Linear4bit
from peft import PeftModel
from peft.utils.integrations import dequantize_module_weight
from torch import Tensor, nn
from torch.nn import functional

from harness import methods
from harness.arguments import Once
from harness.errors import InputError
from harness.measure.memory import weights_bytes
from harness.models.load import Base, quiet
from harness.networks.tuned import Tuned
from harness.serving.strategies import merge, rows_first
from harness.serving.tenant import tenant_of
from harness.serving.workshop import checkpoints, generates

#: Formats of :mod:`harness.methods.quantized` that a merged model is stored in again.
QUANTISED = ("int8", "nf4")


#: Methods that fold into the weights from the base alone.
Merging = Literal["lora", "qlora", "dora", "ia3"]


def merge_rows(
    base: Base,
    texts: Sequence[str],
    merged_methods: Annotated[list[Merging], Once] | None = None,
    *,
    max_length: int = 64,
    new_tokens: int = 16,
    trained: str | None = None,
    scale: float = 0.02,
) -> Iterator[dict[str, Any]]:
    """Rows of :func:`fidelity` for each method, by default all, on prompts of at most ``max_length`` tokens.

    The first checkpoint of a method in the folder ``trained`` is merged; without one, a fresh adapter whose
    parameters got random numbers of the standard deviation ``scale``, and the rows say so.
    """
    batch = base.tokenizer(
        list(texts),
        padding=True,
        padding_side="left",
        truncation=True,
        max_length=max_length,
        add_special_tokens=base.tokenizer.chat_template is None,
        return_tensors="pt",
    ).to(base.device)
    found = checkpoints(base, Path(trained)) if trained else {}
    for method in get_args(Merging) if merged_methods is None else merged_methods:
        folders = [folder for folder in found.get(method, []) if generates(folder)]
        tuned = methods.load(base, folders[0]) if folders else moved(methods.apply(method, base), scale)
        origin = "from trials" if folders else "made up"
        for row in fidelity(tuned, batch["input_ids"], batch["attention_mask"], new_tokens):
            yield {**row, "tenants_from": origin}


@torch.no_grad()
def moved(tuned: Tuned, scale: float, seed: int = 0) -> Tuned:
    """``tuned`` after random numbers of the standard deviation ``scale`` were added to what trains."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in tuned.trainable.values():
        parameter.add_((torch.randn(parameter.shape, generator=generator) * scale).to(parameter))
    return tuned


def fidelity(tuned: Tuned, ids: Tensor, mask: Tensor, new_tokens: int) -> Iterator[dict[str, Any]]:
    """Rows of the table ``merge_fidelity``, without ``trial_id``: one for each format of the merged weights.

    ``ids`` (texts, tokens) are prompts, padded on the left where ``mask`` is 0. Raises
    :class:`harness.errors.InputError` for a method that cannot be merged.
    """
    if tuned.merge is None and not _stands_on_four_bits(tuned.model):
        raise InputError(f"fidelity: {tuned.method} cannot be merged; valid: a method that folds into the weights")
    wanted, answers = _logits(tuned.model, ids, mask), _answers(tuned.model, ids, mask, new_tokens)
    for name, merged in _merged(tuned):
        logits, again = _logits(merged, ids, mask), _answers(merged, ids, mask, new_tokens)
        yield {
            "model": tuned.base.spec.name,
            "method": tuned.method,
            "format": name,
            "kl": divergence(wanted, logits),
            "changed_tokens": float((wanted.argmax(-1) != logits.argmax(-1)).float().mean()),
            "changed_answers": float((answers != again).any(1).float().mean()),
            "answers": len(ids),
            "places": len(wanted),
            "weights_bytes": weights_bytes(merged),
        }


def divergence(wanted: Tensor, logits: Tensor) -> float:
    """Mean KL(wanted || other) over the places, in nats; logits of shape (places, vocabulary).

    Rounding can leave a sum a little below 0, which no divergence is: it is 0 then.
    """
    of_wanted, of_other = (functional.log_softmax(one.double(), -1) for one in (wanted, logits))
    mean = functional.kl_div(of_other, of_wanted, log_target=True, reduction="batchmean")
    return max(0.0, float(mean))


def _stands_on_four_bits(model: nn.Module) -> bool:
    return isinstance(model, PeftModel) and bool(_four_bit_layers(model))


def _four_bit_layers(model: PeftModel) -> dict[str, Linear4bit]:
    """The layers in 4 bits, by their names in the plain network."""
    layers = model.get_base_model().named_modules()
    return {name.removesuffix(".base_layer"): layer for name, layer in layers if isinstance(layer, Linear4bit)}


@torch.no_grad()
def merged_four_bits(tuned: Tuned) -> nn.Module:
    """A plain network with the dequantised weights of the 4-bit base under ``tuned``, and its LoRA merged into them.

    Raises :class:`harness.errors.InputError` for a change that is no plain LoRA.
    """
    network = tuned.base.build()
    tenant = tenant_of(tuned, network, tuned.method)
    for name, layer in _four_bit_layers(tuned.model).items():
        rows_first(network.get_submodule(name)).copy_(dequantize_module_weight(layer))
    return merge(network, tenant)


def _merged(tuned: Tuned) -> Iterator[tuple[str, nn.Module]]:
    """Format -> the merged network; each is gone when the next is asked for."""
    base = tuned.base
    own = str(base.dtype).removeprefix("torch.")
    with tempfile.TemporaryDirectory() as folder:
        with tuned.merge() if tuned.merge else contextlib.nullcontext(merged_four_bits(tuned)) as network:
            yield own, network
            with quiet():
                network.save_pretrained(folder)
        merged = replace(base, checkpoint=Path(folder), master_weights=False)
        if base.dtype != torch.bfloat16:
            yield "bfloat16", replace(merged, dtype=torch.bfloat16).build()
        for scheme in QUANTISED:
            yield scheme, _quantised(merged, scheme)


def _quantised(merged: Base, scheme: str) -> nn.Module:
    return methods.apply("quantized", merged, scheme=scheme).model


@torch.inference_mode()
def _logits(model: nn.Module, ids: Tensor, mask: Tensor) -> Tensor:
    """(places, vocabulary): at every real token of the texts."""
    places = (mask.cumsum(1) - 1).clamp(min=0)
    logits: Tensor = model(input_ids=ids, attention_mask=mask, position_ids=places).logits
    return logits[mask.bool()].float()


@torch.inference_mode()
def _answers(model: nn.Module, ids: Tensor, mask: Tensor, new_tokens: int) -> Tensor:
    """Greedy answers, (texts, new tokens)."""
    answers: Tensor = model.generate(
        input_ids=ids, attention_mask=mask, do_sample=False, min_new_tokens=new_tokens, max_new_tokens=new_tokens
    )
    return answers[:, ids.shape[1] :]

"""How a run trained, by what its first step shows.

:func:`require` compares that with what was asked for. What is not there ends the trial as a skipped row.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.execution import Execution, NotActive
from harness.measure.flops import FlopCounter
from harness.measure.needed import needed_flops
from harness.models import formats
from harness.models.attention import in_use
from harness.networks.structure import unwrapped
from harness.networks.tuned import Tuned
from harness.tasks.logprobs import Batch
from harness.training import optimizers
from harness.training.checkpointing import LAYER
from harness.training.compiling import Compilation
from harness.training.head_loss import CHUNK, CHUNKS
from harness.training.packing import positions_read


@dataclass(frozen=True)
class Proof:
    """What was active, by the fields of :class:`harness.execution.Execution`, and how that is known."""

    active: Mapping[str, Any]
    evidence: Mapping[str, str]
    needed_flops_per_token: float | None = None
    """What the step needs for each token (:mod:`harness.measure.needed`); None where its batch is not one of rows."""


def attention_of(tuned: Tuned) -> str:
    """transformers' name of the attention that the network of ``tuned`` uses."""
    # Of a packed row, each example is attended by itself: the same attention, on rows of another shape.
    return in_use(unwrapped(tuned.model)).removesuffix("_by_example")


def first_step(
    tuned: Tuned,
    counter: FlopCounter,
    optimizer: Any,
    parts: Sequence[Batch],
    loss: str | None,
    compilation: Compilation | None = None,
) -> Proof:
    """What the first step of a run shows.

    ``parts`` are its batches, ``loss`` is the name of the loss that its forward passes computed; None where that is not
    one of tokens.
    """
    # Packed rows are the only ones with positions.
    packed = [places for part in parts if "position_ids" in part for places in positions_read(part)]
    read_before = sum(places.start for places in packed)
    repeats = counter.repeats
    if loss == "chunked" and not repeats[CHUNKS]:
        loss = "plain"
    active = {
        "attention": attention_of(tuned),
        "packing": bool(packed),
        "shared_prompts": read_before > 0,
        "loss": loss,
        "gradient_checkpointing": repeats[LAYER] > 0,
        "accumulation": len(parts),
        "compile": compilation is not None,
        "optimizer": optimizers.active(optimizer),
        "dtype": _format(tuned, counter),
    }
    kernels = ", ".join(f"{name} x {count}" for name, count in sorted(counter.attention.items()))
    rows = sum(len(part["input_ids"]) for part in parts if "input_ids" in part)
    evidence = {
        "attention": kernels or "matrix products and a softmax",
        "packing": f"{len(packed)} examples in {rows} rows"
        if packed
        else f"{rows} rows without positions of their own",
        "shared_prompts": f"{read_before} tokens of {sum(places.stop for places in packed)} not read again"
        if packed
        else "no packed row",
        "gradient_checkpointing": f"{repeats[LAYER]} layers computed again",
        "accumulation": f"{len(parts)} forward and backward passes before the update",
        "optimizer": optimizers.evidence(optimizer),
        "dtype": _shares(counter) or "no products counted",
    }
    if compilation is not None:
        evidence["compile"] = (
            f"{compilation.graphs} graphs compiled for {compilation.layers} layers before the first step"
        )
    if loss is not None:
        chunks = f"logits of {CHUNK} tokens at a time, computed again {repeats[CHUNKS]} times"
        evidence["loss"] = chunks if repeats[CHUNKS] else "no logits computed again"
    return Proof(active, evidence, _needed(tuned, counter, parts))


def _format(tuned: Tuned, counter: FlopCounter) -> str | None:
    """The format of most of the step's products; None where none were counted."""
    most = max(counter.formats, key=lambda name: counter.formats[name], default=None)
    return "tf32" if most == "float32" and formats.rounds_products(tuned.base.device) else most


def _shares(counter: FlopCounter) -> str:
    """How the FLOPs of the products are shared by the formats of their numbers."""
    return ", ".join(f"{flops / counter.flops:.1%} of FLOPs in {name}" for name, flops in counter.formats.most_common())


def _needed(tuned: Tuned, counter: FlopCounter, parts: Sequence[Batch]) -> float | None:
    if any("input_ids" not in part or "decoder_input_ids" in part for part in parts):
        return None
    examples = [places for part in parts for places in positions_read(part)]
    tokens = sum(places.stop for places in examples)
    layers = getattr(unwrapped(tuned.model).config.get_text_config(), "num_hidden_layers", None)
    if layers is None or not tokens:
        return None
    slots = sum(part["input_ids"].numel() for part in parts)
    return needed_flops(counter, examples, slots, layers, tuned.base.kind == "decoder") / tokens


def require(execution: Execution, number_format: str, proof: Proof) -> None:
    """Raise :class:`harness.execution.NotActive` unless all that was asked for is active."""
    asked = {f"execution.{field}": (field, value) for field, value in execution.asked.items()}
    if number_format != "float32":  # the usual one
        asked["dtype"] = ("dtype", number_format)
    for place, (field, value) in asked.items():
        seen = proof.active.get(field)
        if seen != value:
            told = f"{json.dumps(seen)} was active ({proof.evidence.get(field, 'no evidence')})"
            raise NotActive(f"{place}: {json.dumps(value)} was asked for, and {told}")

"""Which layers a task adds to a checkpoint: they hold nothing yet, so every method trains and stores them whole.

- What stands outside the body of a network with a head, by the architecture's class: the head itself and what it reads
  through, such as DeBERTa's pooler, DistilBERT's ``pre_classifier`` or RoBERTa's ``classifier.dense``. That is so
  whether or not a checkpoint brings them: they belong to the task that it was trained for.
- What the checkpoint lacks inside the body, such as BERT's pooler after masked language modelling, or the output
  projection of a decoder that was saved without it. Without a checkpoint nothing counts as lacking.

This is the one place that knows. Names are those of the plain network, as PEFT's ``modules_to_save`` wants them.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from harness.models.load import Base
from harness.networks.structure import body, unwrapped


def fresh_modules(base: Base, network: nn.Module) -> tuple[str, ...]:
    """Names of the outermost fresh modules of ``network``, which :meth:`Base.build` or :meth:`Base.skeleton` made.

    No name is inside another one.
    """
    names = [*(_outside_body(network) if base.has_head else ()), *_lacking(base, network)]
    unique = dict.fromkeys(names)
    return tuple(name for name in unique if not any(name.startswith(f"{other}.") for other in unique))


def fresh_parameters(base: Base, model: nn.Module) -> list[nn.Parameter]:
    """Parameters of the fresh modules of ``model``, a network of ``base``, with PEFT's wrapper or without."""
    network = unwrapped(model)
    return [p for name in fresh_modules(base, network) for p in network.get_submodule(name).parameters()]


def full_precision_modules(base: Base) -> list[str]:
    """Names of the layers to leave unquantised: fresh layers, which train, and the output projection.

    The projection may be tied to the embedding, and that is not quantised either.
    """
    skeleton = base.skeleton()
    projection = skeleton.get_output_embeddings()
    output = [name for name, module in skeleton.named_modules() if module is projection and projection is not None]
    return [*fresh_modules(base, skeleton), *output]


def _outside_body(network: nn.Module) -> Iterator[str]:
    inner = body(network)
    for name, child in network.named_children():
        if child is not inner and any(True for _ in child.parameters()):
            yield name


def _lacking(base: Base, network: nn.Module) -> Iterator[str]:
    modules = dict(network.named_modules())
    for parameter in sorted(base.missing_keys):
        owner = parameter.rpartition(".")[0]
        # A probe on the body alone has other names, and does not use what the body lacks.
        if owner in modules:
            yield owner

"""Make a network with one answer per text give the same one alone and in a padded batch.

Transformers finds the last token of a text by comparing ids with the padding id. That fails in three cases: the two are
the same token, soft prompts enter as embeddings without ids, or the configuration names another padding than the
tokenizer. Learned positions count padding on the left, and PEFT puts virtual tokens in front of it.

So here the mask alone decides. Padding moves behind the text, and a decoder's head reads the state of the last real
token.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import nn

#: Inputs that have a place for each token.
_PER_TOKEN = ("input_ids", "inputs_embeds", "token_type_ids", "position_ids")


def padding_behind_text(model: nn.Module) -> None:
    """Have ``model``, whose outputs have no places of tokens, move what the mask leaves out behind the text."""
    model.register_forward_pre_hook(_move_padding, with_kwargs=True)


def read_last_token(body: nn.Module) -> None:
    """Give every layer behind ``body`` the state of each text's last real token, at every place."""
    body.register_forward_hook(_last_state_everywhere, with_kwargs=True)


# Functions without a state of their own: a copy of a network takes its hooks along.


def _named(module: nn.Module, args: tuple[Any, ...], inputs: dict[str, Any]) -> dict[str, Any]:
    """All inputs by name."""
    return {**dict(zip(inspect.signature(module.forward).parameters, args, strict=False)), **inputs} if args else inputs


def _width(inputs: dict[str, Any]) -> int | None:
    """Number of token places; None if there is no text."""
    texts = (inputs.get(name) for name in ("input_ids", "inputs_embeds"))
    return next((int(text.shape[1]) for text in texts if text is not None), None)


def _move_padding(module: nn.Module, args: tuple[Any, ...], inputs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    named = _named(module, args, inputs)
    width, mask = _width(named), named.get("attention_mask")
    if width is None or mask is None or mask.dim() != 2:
        return args, inputs
    # A prefix of keys and values lengthens the mask in front; it has no places here.
    before, real = mask[:, : mask.shape[1] - width], mask[:, mask.shape[1] - width :]
    order = (real == 0).int().argsort(dim=1, stable=True)

    def moved(tensor: torch.Tensor) -> torch.Tensor:
        index = order.view(*order.shape, *[1] * (tensor.dim() - 2))
        return tensor.gather(1, index.expand(-1, -1, *tensor.shape[2:]))

    places = {name: value for name in _PER_TOKEN if (value := named.get(name)) is not None}
    settled = {name: moved(value) for name, value in places.items() if value.shape[:2] == order.shape}
    return (), {**named, **settled, "attention_mask": torch.cat([before, moved(real)], dim=1)}


def _last_state_everywhere(body: nn.Module, args: tuple[Any, ...], inputs: dict[str, Any], output: Any) -> Any:
    named = _named(body, args, inputs)
    states, mask = output[0], named.get("attention_mask")
    width = states.shape[1]
    if mask is None or mask.dim() != 2:
        last = torch.full((len(states),), width - 1, device=states.device)
    else:
        real = mask[:, mask.shape[1] - width :] != 0
        last = (real * torch.arange(1, width + 1, device=real.device)).argmax(1)
    chosen = states[torch.arange(len(states), device=states.device), last]
    everywhere = chosen.unsqueeze(1).expand(-1, width, -1)
    if isinstance(output, tuple):
        return (everywhere, *output[1:])
    output.last_hidden_state = everywhere
    return output

"""What PEFT leaves to do for virtual tokens before the input: the words that they start from, padding on the left, and
heads that pool.
"""

from __future__ import annotations

import inspect
from contextlib import ExitStack
from types import MethodType
from typing import Any

import torch
from peft import PeftModel
from torch import nn

from harness.errors import InputError
from harness.models.load import Base
from harness.networks.structure import body


def starting_tokens(base: Base, model: PeftModel, count: int, init: str, text: str | None, method: str) -> torch.Tensor:
    """Ids of the tokens that virtual ones start from, of shape (count,): drawn by the seed of ``base``, or of ``text``.

    The text is repeated or cut. Raises :class:`harness.errors.InputError`, which names ``method``, where it is missing.
    """
    embeddings = model.get_input_embeddings()
    if init == "vocabulary":
        drawn = torch.Generator().manual_seed(base.seed)
        ids = torch.randint(embeddings.num_embeddings, (count,), generator=drawn)
    else:
        known = base.tokenizer(text or "", add_special_tokens=False)["input_ids"]
        if not known:
            raise InputError(f"{method}.text: 'init: text' needs a text")
        ids = torch.tensor((known * (count // len(known) + 1))[:count])
    return ids.to(embeddings.weight.device)


def generate_behind_padding(model: PeftModel) -> None:
    """Make ``model.generate`` put the virtual tokens between padding and text, as training does.

    PEFT puts them before the padding and drops the position ids. The same prompt then gets another answer in another
    batch.
    """

    @torch.no_grad()
    def generate(input_ids: torch.Tensor, attention_mask: torch.Tensor, **settings: Any) -> torch.Tensor:
        batch, width = input_ids.shape
        virtual = model.get_prompt(batch_size=batch)
        count = virtual.shape[1]
        padding = width - attention_mask.sum(1, keepdim=True)
        # Column j of the longer sequence is padding (j), a virtual token (j - padding) or text (j - count).
        column = torch.arange(count + width, device=input_ids.device).expand(batch, -1)
        is_padding, is_virtual = column < padding, (column >= padding) & (column < padding + count)
        source = torch.where(is_padding, column, (column - count).clamp(min=0))
        texts = model.word_embeddings(input_ids)
        size = texts.shape[-1]
        embedded = texts.gather(1, source.unsqueeze(-1).expand(-1, -1, size))
        place = (column - padding).clamp(0, count - 1)
        prompts = virtual.to(texts.dtype).gather(1, place.unsqueeze(-1).expand(-1, -1, size))
        new_tokens = model.get_base_model().generate(
            inputs_embeds=torch.where(is_virtual.unsqueeze(-1), prompts, embedded),
            attention_mask=(~is_padding).to(attention_mask.dtype),
            **settings,
        )
        return torch.cat([input_ids, new_tokens], dim=1)

    model.generate = generate


def pool_real_tokens(model: PeftModel) -> None:
    """Make the head of an encoder read the text's tokens only, wherever its family pools them.

    PEFT leaves the virtual tokens in front of the body's output. A pooler of the first token, BERT's [CLS], would then
    read a virtual one, and a mean would count them in. The layers read the virtual tokens; the parts behind them do
    not.
    """
    # A bound method follows the model into a copy; a closure would stay with the original.
    model.forward = MethodType(_forward_to_real_tokens, model)


def _forward_to_real_tokens(
    model: PeftModel,
    input_ids: torch.Tensor | None = None,
    attention_mask: torch.Tensor | None = None,
    inputs_embeds: torch.Tensor | None = None,
    **inputs: Any,
) -> Any:
    """PEFT's forward pass with temporary hooks; the network without its prompt stays unchanged."""
    text = input_ids if input_ids is not None else inputs_embeds
    places = _Places(model.active_peft_config.num_virtual_tokens, 0 if text is None else text.shape[1])
    network = model.get_base_model()
    inner = body(network)
    with ExitStack() as hooks:
        hooks.enter_context(network.register_forward_pre_hook(places.hide, with_kwargs=True))
        hooks.enter_context(inner.register_forward_pre_hook(places.show, with_kwargs=True))
        # Some bodies pool by themselves: what their stack of layers gives is cut before they do.
        for part in inner.children():
            hooks.enter_context(part.register_forward_hook(places.cut_part))
        hooks.enter_context(inner.register_forward_hook(places.cut))
        return type(model).forward(
            model, input_ids=input_ids, attention_mask=attention_mask, inputs_embeds=inputs_embeds, **inputs
        )


class _Places:
    """Hooks on a network with ``virtual`` tokens and ``real`` ones behind them."""

    def __init__(self, virtual: int, real: int) -> None:
        self._virtual, self._all = virtual, virtual + real

    def hide(self, _network: nn.Module, args: Any, inputs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Before the network: hide the virtual tokens from a head that averages by the mask."""
        mask = inputs.get("attention_mask")
        return args, inputs if mask is None else {**inputs, "attention_mask": mask[:, self._virtual :]}

    def show(self, inner: nn.Module, args: Any, inputs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Before the body: let its layers attend to the virtual tokens."""
        given = inspect.signature(inner.forward).bind(*args, **inputs)
        mask = given.arguments.get("attention_mask")
        if mask is not None:
            given.arguments["attention_mask"] = torch.cat([mask.new_ones(len(mask), self._virtual), mask], dim=1)
        return given.args, given.kwargs

    def cut(self, _inner: nn.Module, _inputs: Any, output: Any) -> Any:
        """Behind the body or its stack of layers: cut to the states of the text's tokens, once."""
        states = getattr(output, "last_hidden_state", None)
        if states is not None and states.shape[1] >= self._all:
            output.last_hidden_state = states[:, self._virtual :]
        return output

    def cut_part(self, part: nn.Module, inputs: tuple[Any, ...], output: Any) -> Any:
        """Behind a part of the body: like :meth:`cut`; a pooler, with one vector per text, reads anew."""
        states = inputs[0] if inputs else None
        if not isinstance(output, torch.Tensor) or not isinstance(states, torch.Tensor):
            return self.cut(part, inputs, output)
        pools = states.dim() == 3 and states.shape[1] == self._all and output.dim() == 2
        return part.forward(states[:, self._virtual :]) if pools else output

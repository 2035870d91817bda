"""Generation with virtual tokens before the input, in batches that are padded on the left."""

from __future__ import annotations

from typing import Any

import torch
from peft import PeftModel


def generate_behind_padding(model: PeftModel) -> None:
    """Make ``model.generate`` put the virtual tokens between the padding and the text, where training has them.

    PEFT puts them before the padding and drops the position ids, so that the same prompt gets another answer in
    another batch.
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

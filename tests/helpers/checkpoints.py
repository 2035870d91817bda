"""A test helper: tiny checkpoints of many families, saved as people save them, with a tokenizer that reads bytes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from torch import nn
from transformers import PreTrainedTokenizerFast

_SHAPE = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "vocab_size": 272,
    "max_position_embeddings": 96,
    "initializer_range": 0.2,
}
_GROUPED = {**_SHAPE, "num_key_value_heads": 2}
_DEBERTA = {**_SHAPE, "relative_attention": True, "pos_att_type": ["p2c", "c2p"], "pooler_hidden_size": 32}
_GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_inner": 48, "vocab_size": 272, "n_positions": 96}

DECODERS: dict[str, dict[str, Any]] = {
    "llama": _GROUPED,
    "mistral": _GROUPED,
    "qwen2": _GROUPED,
    "qwen3": {**_GROUPED, "head_dim": 8},
    "gemma3_text": {**_GROUPED, "head_dim": 8},
    "gpt_neox": _SHAPE,
    "gpt2": {**_GPT2, "initializer_range": 0.2},
    "opt": {
        **{name: value for name, value in _SHAPE.items() if name not in ("intermediate_size", "initializer_range")},
        **{"ffn_dim": 48, "word_embed_proj_dim": 16, "init_std": 0.2},
    },
}
ENCODERS: dict[str, dict[str, Any]] = {
    "bert": _SHAPE,
    "roberta": {**_SHAPE, "pad_token_id": 1},  # its positions are counted from there
    "distilbert": {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48, "vocab_size": 272},
    "deberta-v2": _DEBERTA,
    "albert": {**_SHAPE, "embedding_size": 16},
    "electra": {**_SHAPE, "embedding_size": 16},
}
ENCODER_DECODERS: dict[str, dict[str, Any]] = {
    "t5": {
        **{"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4, "vocab_size": 272},
        **{"decoder_start_token_id": 260, "initializer_factor": 0.5, "feed_forward_proj": "gated-gelu"},
    },
    "bart": {
        **{"d_model": 32, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "encoder_layers": 2, "decoder_layers": 2},
        **{"encoder_attention_heads": 4, "decoder_attention_heads": 4, "vocab_size": 272, "init_std": 0.2},
        **{"max_position_embeddings": 96, "decoder_start_token_id": 262},
    },
}
SHAPES = {**DECODERS, **ENCODERS, **ENCODER_DECODERS}

#: Ids of the special tokens.
PAD, CLS, END, SEP, MASK = 260, 261, 262, 263, 264


def byte_tokenizer(pad: str | None = "<pad>", extra: tuple[str, ...] = ()) -> PreTrainedTokenizerFast:
    """One token for each byte, ids 0 to 255, then :data:`PAD` and the rest, then ``extra`` from 272 on."""
    vocabulary = {symbol: id_ for id_, symbol in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    names = {"<pad>": PAD, "<cls>": CLS, "</s>": END, "<sep>": SEP, "<mask>": MASK}
    # transformers gives some families a token of their own, which must be there already.
    names["<|endoftext|>"] = 265
    fill = {f"<unused{id_}>": id_ for id_ in range(256, 272) if id_ not in names.values()}
    more = {token: 272 + number for number, token in enumerate(extra)}
    tokenizer = Tokenizer(models.BPE(vocab={**vocabulary, **names, **fill, **more}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = {"eos": "</s>", "cls": "<cls>", "sep": "<sep>", "mask": "<mask>"}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=pad, **{f"{role}_token": token for role, token in special.items()}
    )


def save(
    folder: Path,
    family: str,
    auto: Any = transformers.AutoModel,
    tokenizer: PreTrainedTokenizerFast | None = None,
    generation: dict[str, Any] | None = None,
    **config: Any,
) -> Path:
    """Save a network of ``family`` by the class ``auto``, with ``config`` changed; returns the folder."""
    ids = {"pad_token_id": PAD, "eos_token_id": END, "bos_token_id": CLS}
    shape = transformers.AutoConfig.for_model(family, **{**ids, **SHAPES[family], **config})
    torch.manual_seed(7)
    network: nn.Module = auto.from_config(shape)
    network.save_pretrained(folder)
    (tokenizer or byte_tokenizer()).save_pretrained(folder)
    if generation is not None:
        (folder / "generation_config.json").write_text(json.dumps(generation))
    return folder


def around(first: str, first_id: int, last: str, last_id: int) -> processors.TemplateProcessing:
    """What puts ``first`` before every text and ``last`` behind it."""
    special = [(first, first_id), (last, last_id)]
    return processors.TemplateProcessing(single=f"{first} $A {last}", special_tokens=special)

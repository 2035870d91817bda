"""What a checkpoint says about its tokens, read once at load: padding, ends, vocabulary, generation settings.

The configuration, the generation settings and the tokenizer of a checkpoint may disagree. The tokenizer made the ids,
so it decides; later code does not consult the others.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import transformers
from torch import nn

from harness.errors import InputError
from harness.models.spec import read_config

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

#: Words in the names of tokens that stand for something other than text: a picture, a sound.
_NOT_TEXT = ("image", "audio", "video")


def settle_padding(tokenizer: PreTrainedTokenizerBase) -> None:
    """Pad on the right; a tokenizer without a padding token gets its end token or another existing one.

    The choice of token does not matter, since masks alone mark the padding. The side does: learned positions begin at
    the first token, and an encoder's head reads that token.
    """
    tokenizer.padding_side = "right"
    if tokenizer.pad_token is None:
        others = (tokenizer.eos_token, tokenizer.sep_token, tokenizer.unk_token, tokenizer.bos_token)
        first: Any = tokenizer.convert_ids_to_tokens(0)
        tokenizer.pad_token = next((token for token in others if token is not None), first)


def check_vocabulary(tokenizer: PreTrainedTokenizerBase, rows: int, model: str) -> None:
    """Raise InputError if a text can become an id beyond the ``rows`` rows of the embedding.

    The embedding is not enlarged: a method would have to train and store the new rows, and the model would no longer be
    the named checkpoint. A token for pictures or sounds may lie beyond the rows, as in text-only copies of larger
    models, because no text contains it.
    """
    names = tokenizer.special_tokens_map
    not_text = {str(names[name]) for name in names if any(word in name for word in _NOT_TEXT)}
    beyond = {id_: token for token, id_ in tokenizer.get_vocab().items() if id_ >= rows and token not in not_text}
    if beyond:
        first = min(beyond)
        raise InputError(
            f"model: '{model}': the tokenizer has {len(beyond)} more tokens than the embedding has rows, which are "
            f"{rows}: from '{beyond[first]}' ({first}) on; valid: a tokenizer whose ids are below {rows}, or a "
            f"checkpoint saved after resize_token_embeddings({max(beyond) + 1})"
        )


def end_token_ids(tokenizer: PreTrainedTokenizerBase, checkpoint: Path | None) -> tuple[int, ...]:
    """Every id that ends an answer, the tokenizer's own first; a tokenizer without one closes with its separator.

    A checkpoint's configuration and its generation settings may name more, as one number or a list.
    """
    own = tokenizer.sep_token_id if tokenizer.eos_token_id is None else tokenizer.eos_token_id
    named: list[Any] = [own]
    if checkpoint is not None:
        config = read_config(checkpoint)
        named += [getattr(part, "eos_token_id", None) for part in (config, config.get_text_config(decoder=True))]
        if (checkpoint / "generation_config.json").is_file():
            named.append(transformers.GenerationConfig.from_pretrained(checkpoint).eos_token_id)
    ids = [id_ for name in named for id_ in (name if isinstance(name, Iterable) else [name])]
    return tuple(dict.fromkeys(int(id_) for id_ in ids if id_ is not None and id_ >= 0))


def decoder_start_id(tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig) -> int:
    """The token before every answer of an encoder-decoder; a configuration that names none means the padding, as T5."""
    named = getattr(config, "decoder_start_token_id", None)
    return int(tokenizer.pad_token_id if named is None else named)


def settle_ids(
    model: nn.Module, tokenizer: PreTrainedTokenizerBase, ends: tuple[int, ...], start: int | None = None
) -> None:
    """Give ``model`` the tokenizer's padding, and neutral generation settings that know every end token.

    ``start`` is the token before every answer of an encoder-decoder.

    A checkpoint's own settings (a penalty, suppressed tokens, a temperature) would affect some answers and not others,
    and belong to no method.
    """
    pad = tokenizer.pad_token_id
    for config in _configs(model.config):
        config.pad_token_id = pad
    embedding = model.get_input_embeddings()
    if getattr(embedding, "padding_idx", None) not in (None, pad):
        embedding.padding_idx = None  # that row is a word's: it gets its gradient
    if getattr(model, "generation_config", None) is not None:
        bos = model.generation_config.bos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
        model.generation_config = transformers.GenerationConfig(
            pad_token_id=pad, eos_token_id=list(ends) or None, bos_token_id=bos, decoder_start_token_id=start
        )


def _configs(config: PretrainedConfig) -> list[PretrainedConfig]:
    """The configuration and every nested one with a padding token of its own."""
    inner = (getattr(config, name, None) for name in getattr(config, "sub_configs", {}))
    nested = [part for part in inner if part is not None and hasattr(part, "pad_token_id")]
    return [config, config.get_text_config(), *nested]

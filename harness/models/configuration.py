"""The ``config.json`` of an own model folder: read with care, because a stranger may have written it.

What is checked here is what would crash or never end later: transformers builds whatever the sizes say. Nothing here
imports torch or transformers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cache as once
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from harness.errors import InputError, cut, hint, shown

#: The largest size that is believed, by the names that architectures give it; the largest models of today have a
#: tenth of it.
_LARGEST = {
    **dict.fromkeys(
        ("num_hidden_layers", "num_layers", "n_layer", "n_layers", "encoder_layers", "decoder_layers"), 2_000
    ),
    **dict.fromkeys(("num_attention_heads", "num_key_value_heads", "n_head", "n_heads", "num_heads"), 10_000),
    **dict.fromkeys(("hidden_size", "n_embd", "d_model", "dim", "embedding_size", "head_dim"), 1_000_000),
    **dict.fromkeys(("intermediate_size", "n_inner", "d_ff", "hidden_dim", "ffn_dim"), 10_000_000),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx", "vocab_size"), 100_000_000),
    "type_vocab_size": 10_000,
}
#: Sizes that may also be null, which stands for another one.
_MAY_BE_NULL = frozenset({"num_key_value_heads", "n_inner", "head_dim", "embedding_size"})
#: Sizes that may be 0: DeBERTa does not tell two texts apart.
_MAY_BE_ZERO = frozenset({"type_vocab_size"})

#: A configuration is a page of text.
_MOST_BYTES = 10 * 2**20


def read(folder: Path) -> dict[str, Any]:
    """The configuration in ``folder``, with a ``model_type`` that transformers knows and sizes that can be.

    Raises :class:`harness.errors.InputError` for anything else.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise InputError(f"model: {folder} is not a folder with a config.json, nor the name of a known model")
    config = _parsed(path)
    architecture = config.get("model_type")
    if not isinstance(architecture, str) or not architecture:
        what = "is missing" if architecture is None else f"must be text (given: {shown(architecture)})"
        raise InputError(f"model: {path}: model_type {what}, such as 'llama' or 'bert'")
    if (known := _architectures()) and architecture not in known:
        raise InputError(f"model: {path}: model_type: unknown name '{cut(architecture)}'; {hint(architecture, known)}")
    for place, part in (("", config), *((f"{key}.", value) for key, value in config.items())):
        if isinstance(part, dict):
            _check_sizes(part, f"model: {path}: {place}")
    return config


def refused(folder: str | Path, error: Exception) -> InputError:
    """An :class:`InputError` for the configuration in ``folder``, which made a library raise ``error``."""
    lines = str(error).splitlines() or [type(error).__name__]
    *_, what = (line for line in lines if line.strip())
    what = re.sub(r"^\s*\w*(Error|Exception): ", "", what)
    return InputError(f"model: {Path(folder) / 'config.json'}: no network can be built from it: {cut(what)}")


def _parsed(path: Path) -> dict[str, Any]:
    if (size := path.stat().st_size) > _MOST_BYTES:
        raise InputError(f"model: {path}: {size // 2**20} MB are no configuration of a model")
    try:
        config = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(f"model: {path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"model: {path}: is not JSON: {_what(error)}") from error
    if not isinstance(config, dict):
        raise InputError(f'model: {path}: must be a mapping with a model_type, such as {{"model_type": "llama"}}')
    return config


def _what(error: Exception) -> str:
    match error:
        case json.JSONDecodeError():
            return f"line {error.lineno}: {error.msg}"
        case RecursionError():
            return "it is nested too deep"
        case UnicodeDecodeError():
            return "not UTF-8 text"
        case _:
            return cut(str(error))


def _check_sizes(config: Mapping[str, Any], where: str) -> None:
    for name, largest in _LARGEST.items():
        value = config.get(name)
        if name not in config or (value is None and name in _MAY_BE_NULL):
            continue
        least = 0 if name in _MAY_BE_ZERO else 1
        if type(value) is not int or not least <= value <= largest:
            raise InputError(f"{where}{name}: must be a whole number from {least} to {largest} (given: {shown(value)})")


@once
def _architectures() -> frozenset[str]:
    """The names of architectures in the sources of transformers, whose import would take seconds; empty if unknown."""
    package = find_spec("transformers")
    if package is None or package.origin is None:
        return frozenset()
    folder = Path(package.origin).parent / "models" / "auto"
    texts = [file.read_text(encoding="utf-8") for file in folder.glob("*mapping*.py")]
    texts += [file.read_text(encoding="utf-8") for file in folder.glob("configuration_auto.py")]
    return frozenset(name for text in texts for name in re.findall(r"""["']([\w.-]+)["'],\s*["']\w+Config["']""", text))

"""From a specification to a folder that ``from_pretrained`` reads: config.json, tokenizer and safetensors."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path

from harness.errors import InputError
from harness.models.spec import HUB_FILES, HUB_WEIGHTS, ModelSpec, RandomSource
from harness.sources import cache, fetch
from harness.sources.fetch import HubSource

#: Raised when the conversion changes its result: older folders of the cache are then left aside.
CONVERSION_VERSION = 1


def checkpoint_dir(spec: ModelSpec, *, verify: bool = False) -> Path:
    """The folder of the checkpoint; fetched, and converted from GGUF, if it is not in the cache.

    Every use checks the sizes of cached files; ``verify`` also checks their hashes. Raises
    :class:`harness.errors.InputError` if the checkpoint is not available, and for random weights, which have no files.
    """
    source = spec.source
    if isinstance(source, RandomSource):
        raise InputError(f"model: '{spec.name}' has random weights and no checkpoint")
    if isinstance(source, HubSource) and not source.files:
        source = source.model_copy(update={"files": HUB_FILES})
    if spec.gguf is None:
        folder = fetch.resolve(source, verify=verify) / spec.folder
        if not (folder / "config.json").is_file():
            raise InputError(f"model: '{spec.name}': there is no config.json in {folder}")
        if isinstance(source, HubSource) and not any(folder.glob(HUB_WEIGHTS)):
            raise InputError(f"model: '{spec.name}': there are no safetensors in {folder}, and pickles are never read")
        return folder
    gguf = spec.gguf
    identity = hashlib.sha256(f"{CONVERSION_VERSION}\0{gguf}\0{source.model_dump_json()}".encode()).hexdigest()
    return cache.build_once(
        cache.root() / "models" / f"{spec.name}-{identity[:12]}",
        lambda target: _convert(fetch.resolve(source, verify=verify) / gguf, target),
        verify=verify,
    )


def _convert(gguf: Path, target: Path) -> None:
    """Write the dequantised float32 weights of a GGUF file, with its configuration and tokenizer, to ``target``.

    This takes half a minute. The result loads in about a second, bit for bit the same.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    where = {"pretrained_model_name_or_path": gguf.parent, "gguf_file": gguf.name, "trust_remote_code": False}
    with _quiet():
        model = AutoModelForCausalLM.from_pretrained(
            **where, dtype=torch.float32, quantization_config=GgufConfig(gguf_file=gguf.name, dequantize=True)
        )
        model.save_pretrained(target)
        AutoTokenizer.from_pretrained(**where).save_pretrained(target)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the progress bars and advice of transformers, which would land in a notebook's output."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()

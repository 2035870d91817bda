"""From a name to a model: the tokenizer, and a builder of fresh copies of the network."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers
from torch import nn

from harness.errors import InputError
from harness.models.checkpoint import checkpoint_dir
from harness.models.spec import ModelSpec, load_spec

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def pick_device(name: str = "auto") -> torch.device:
    """``auto`` is the first CUDA device where there is one, else the CPU.

    Raises :class:`harness.errors.InputError` for a device that torch does not know or this machine does not have.
    """
    if name == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(f"device: '{name}' is not a device; valid: auto, cpu, cuda, cuda:0, …") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"device: '{name}' was asked for, but this machine has no CUDA device; valid: auto, cpu")
    return device


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Leave out transformers' loading bar, and its report of newly initialised heads: every classifier has one."""
    logging = transformers.utils.logging
    before, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if bars:
            logging.enable_progress_bar()


@dataclass(frozen=True)
class Base:
    """A base checkpoint, ready to be built: methods ask it for a fresh network, as often as they need one."""

    spec: ModelSpec
    tokenizer: PreTrainedTokenizerBase
    checkpoint: Path | None
    """Folder with safetensors; None for a model with random weights."""
    dtype: torch.dtype
    device: torch.device
    seed: int
    labels: tuple[str, ...] | None = None
    """Words of the classes when a classification task is to be learnt by an encoder's head."""
    scalar: bool = False
    """The network gives one number for a text, as a reward model does, instead of the next token."""

    @property
    def kind(self) -> str:
        """``encoder`` or ``decoder``."""
        return str(self.spec.kind)

    @property
    def has_head(self) -> bool:
        """Whether :meth:`build` puts a fresh head, of labels or of one number, on the network."""
        return self.scalar or (self.kind == "encoder" and self.labels is not None)

    @property
    def peft_task_type(self) -> str:
        """PEFT's name of the network that :meth:`build` makes."""
        return "SEQ_CLS" if self.has_head else "CAUSAL_LM"

    def build(self, **load_args: Any) -> nn.Module:
        """A fresh network on :attr:`device` in evaluation mode; the same seed gives the same fresh head.

        ``load_args`` go to ``from_pretrained``, such as a ``quantization_config``.
        """
        auto = transformers.AutoModelForSequenceClassification if self.has_head else transformers.AutoModelForCausalLM
        if self.kind == "encoder" and not self.has_head:
            raise InputError(
                f"model: '{self.spec.name}' is an encoder and cannot generate; give it a classification task"
            )
        outputs = 1 if self.scalar else len(self.labels or ())
        head = {"num_labels": outputs} if self.has_head else {}
        torch.manual_seed(self.seed)
        with _quiet():
            if self.checkpoint is None:
                config = self.spec.transformers_config(**head)
                with self.device:
                    model = auto.from_config(config, dtype=self.dtype)
                if load_args:
                    # Weights are quantised while they are read from a checkpoint: random ones need one too.
                    with tempfile.TemporaryDirectory() as folder:
                        model.save_pretrained(folder)
                        model = self._read(auto, folder, **load_args)
            else:
                model = self._read(auto, self.checkpoint, **head, **load_args)
        if "quantization_config" not in load_args:
            model = model.to(self.device)
        if model.config.pad_token_id is None:
            model.config.pad_token_id = self.tokenizer.pad_token_id
        return model.eval()

    def _read(self, auto: Any, folder: str | Path, **load_args: Any) -> nn.Module:
        if "quantization_config" in load_args:
            load_args = {"device_map": {"": self.device}, **load_args}
        model: nn.Module = auto.from_pretrained(folder, dtype=self.dtype, use_safetensors=True, **load_args)
        return model


def load(
    name: str,
    *,
    labels: tuple[str, ...] | None = None,
    scalar: bool = False,
    dtype: str = "float32",
    device: str = "auto",
    seed: int = 0,
) -> Base:
    """The base checkpoint called ``name``, fetched and converted if it is not in the cache.

    ``labels`` are the classes of a classification task; ``scalar`` asks for a single output instead. Raises
    :class:`harness.errors.InputError` for an unknown name, a failed download or a device that is not there.
    """
    spec = load_spec(name)
    checkpoint = None if spec.is_random else checkpoint_dir(spec)
    # A model with random weights reads bytes: no vocabulary has to be fetched for it.
    tokenizer = (
        transformers.ByT5Tokenizer(extra_ids=0)
        if checkpoint is None
        else transformers.AutoTokenizer.from_pretrained(checkpoint)
    )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return Base(
        spec=spec,
        tokenizer=tokenizer,
        checkpoint=checkpoint,
        dtype=getattr(torch, dtype),
        device=pick_device(device),
        seed=seed,
        labels=labels,
        scalar=scalar,
    )

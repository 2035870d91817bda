"""From a name to a model: the tokenizer, and a builder of fresh copies of the network."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers
from torch import nn

from harness.errors import InputError
from harness.models import attention, formats, tokens
from harness.models.checkpoint import checkpoint_dir
from harness.models.drawing import DrawnInFloat32
from harness.models.shape import from_shape
from harness.models.spec import ModelSpec, load_spec, read_config, unreadable
from harness.models.whole_texts import padding_behind_text, read_last_token

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase


def pick_device(name: str = "auto") -> torch.device:
    """The device called ``name``; ``auto`` is the first CUDA device if there is one, else the CPU.

    Raises :class:`harness.errors.InputError` for a device that torch does not know, or that this machine lacks.
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


#: Where a checkpoint for pictures and text keeps the weights for text, and where a model of text alone has them.
_TEXT_PART = {
    r"^language_model\.model\.": "model.",
    r"^model\.language_model\.": "model.",
    r"^language_model\.lm_head\.": "lm_head.",
}


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence transformers' loading bar, and its report of newly initialised heads: every classifier has one."""
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
    """A base checkpoint, from which methods build a fresh network as often as they need one."""

    spec: ModelSpec
    tokenizer: PreTrainedTokenizerBase
    checkpoint: Path | None
    """Folder with safetensors; None for a model with random weights."""
    dtype: torch.dtype
    device: torch.device
    seed: int
    labels: tuple[str, ...] | None = None
    """A word for each output of an encoder's head: those of the classes, or a single one of a number to learn."""
    scalar: bool = False
    """Whether the network gives one number for a text, as a reward model does, instead of the next token."""
    master_weights: bool = True
    """Whether the trained part of a 16-bit network is held in float32; False: in 16 bits, as papers count memory."""

    tf32: bool = False
    """Whether products of the float32 network are rounded to TF32."""

    attention: str = "auto"
    """transformers' name of the implementation of attention; auto: the one that it chooses."""

    @property
    def number_format(self) -> str:
        """The format by the name of a trial: that of the network, or ``tf32``."""
        return "tf32" if self.tf32 else str(self.dtype).removeprefix("torch.")

    @property
    def kind(self) -> str:
        """``encoder``, ``decoder`` or ``encoder_decoder``."""
        return str(self.spec.kind)

    @property
    def has_head(self) -> bool:
        """Whether :meth:`build` puts a fresh head, of labels or of one number, on the network."""
        return self.scalar or (self.kind == "encoder" and self.labels is not None)

    @property
    def learns_number(self) -> bool:
        """Whether the fresh head of an encoder is to learn a number (regression)."""
        return self.has_head and not self.scalar and len(self.labels or ()) == 1

    @property
    def peft_task_type(self) -> str:
        """PEFT's name for the kind of network that :meth:`build` returns."""
        if self.has_head:
            return "SEQ_CLS"
        return "SEQ_2_SEQ_LM" if self.reads_apart else "CAUSAL_LM"

    @property
    def reads_apart(self) -> bool:
        """Whether one part of the network reads the prompt and another one the answer."""
        return self.kind == "encoder_decoder"

    @cached_property
    def decoder_start_id(self) -> int | None:
        """The token before every answer of an encoder-decoder; None for other models, whose answers follow prompts."""
        return tokens.decoder_start_id(self.tokenizer, self.config()) if self.reads_apart else None

    @cached_property
    def end_token_ids(self) -> tuple[int, ...]:
        """Every id that ends an answer, the tokenizer's own first."""
        return tokens.end_token_ids(self.tokenizer, self.checkpoint)

    @cached_property
    def missing_keys(self) -> frozenset[str]:
        """Names of the parameters that :meth:`build` initialises, because the checkpoint lacks them.

        A head counts as lacking if the checkpoint's has another number of outputs. Random weights have no checkpoint,
        so nothing counts. Raises :class:`harness.errors.InputError` if the other tensors of the checkpoint do not have
        the shapes of its configuration.
        """
        if self.checkpoint is None:
            return frozenset()
        with quiet():
            # On the meta device: shapes and names, no weights.
            try:
                model, seen = self._read(self.checkpoint, device_map="meta", output_loading_info=True, **self._outputs)
            except InputError:
                raise
            except Exception as error:  # the libraries raise anything for a damaged file
                raise unreadable(self.checkpoint, error) from error
        body = f"{model.base_model_prefix}."
        reshaped = sorted(name for name, *_ in seen["mismatched_keys"])
        if wrong := [name for name in reshaped if not self.has_head or name.startswith(body)]:
            raise InputError(
                f"model: '{self.spec.name}': {', '.join(wrong[:3])} of the checkpoint has not the shape that its "
                "config.json says; valid: weights and a configuration that were saved together"
            )
        return frozenset(seen["missing_keys"]) | frozenset(reshaped)

    def config(self) -> PretrainedConfig:
        """The shape of the network that :meth:`build` returns."""
        if self.checkpoint is None:
            return self.spec.transformers_config(**self._outputs)
        config = read_config(self.checkpoint, **self._outputs)
        return config.get_text_config() if self._is_part(config) else config

    def _is_part(self, config: PretrainedConfig) -> bool:
        """Whether the checkpoint with ``config`` reads pictures or sounds, too, and this is its part for text."""
        return bool(config.model_type != self.spec.architecture)

    def skeleton(self) -> nn.Module:
        """The network's modules with their names and shapes, on the meta device; it reads and computes nothing."""
        with torch.device("meta"):
            return from_shape(self._auto, self.config())

    def reading(self, ids: torch.Tensor, mask: torch.Tensor) -> dict[str, torch.Tensor]:
        """What a network of this base reads of texts (ids and mask of shape (texts, tokens)), by name.

        An encoder-decoder also reads the token before every answer.
        """
        inputs = {"input_ids": ids, "attention_mask": mask}
        if self.decoder_start_id is not None:
            inputs["decoder_input_ids"] = torch.full_like(ids[:, :1], self.decoder_start_id)
            inputs["decoder_attention_mask"] = torch.ones_like(inputs["decoder_input_ids"])
        return inputs

    @property
    def _outputs(self) -> dict[str, int]:
        """Number of outputs of the head, if there is one."""
        return {"num_labels": 1 if self.scalar else len(self.labels or ())} if self.has_head else {}

    @property
    def _auto(self) -> Any:
        """The class of transformers that :meth:`build` uses."""
        if self.kind == "encoder" and not self.has_head:
            raise InputError(
                f"model: '{self.spec.name}' is an encoder and cannot generate; give it a classification or "
                "regression task"
            )
        if self.has_head:
            return transformers.AutoModelForSequenceClassification
        return transformers.AutoModelForSeq2SeqLM if self.reads_apart else transformers.AutoModelForCausalLM

    def build(self, **load_args: Any) -> nn.Module:
        """A fresh network on :attr:`device` in evaluation mode; the same seed gives the same fresh head.

        ``load_args`` go to ``from_pretrained``, such as a ``quantization_config``.
        """
        auto = self._auto
        _ = self.missing_keys  # the check of the checkpoint, before it is read
        torch.manual_seed(self.seed)
        with quiet(), DrawnInFloat32():
            if self.checkpoint is None:
                with self.device:
                    model = from_shape(auto, self.config(), dtype=self.dtype)
                if load_args:
                    # Weights are quantised while they are read from a checkpoint: random ones need one too.
                    with tempfile.TemporaryDirectory() as folder:
                        model.save_pretrained(folder)
                        model = self._read(folder, **self._placed(load_args))
            else:
                model = self._read(self.checkpoint, **self._outputs, **self._placed(load_args))
        if "quantization_config" not in load_args:
            model = model.to(self.device)
        return self.settled(model)

    def settled(self, model: nn.Module) -> nn.Module:
        """``model`` in evaluation mode, with the tokenizer's ids; padding does not change the answer of a head.

        Every network of this base passes here once.
        """
        tokens.settle_ids(model, self.tokenizer, self.end_token_ids, self.decoder_start_id)
        if self.attention != "auto":
            attention.use(model, self.attention)
        if self.has_head:
            padding_behind_text(model)
            if self.kind == "decoder":
                read_last_token(model.base_model)
        return model.eval()

    def _placed(self, load_args: dict[str, Any]) -> dict[str, Any]:
        return {"device_map": {"": self.device}, **load_args} if "quantization_config" in load_args else load_args

    def _read(self, folder: str | Path, **load_args: Any) -> Any:
        """The network from ``from_pretrained``; a head starts fresh if the checkpoint's has another size."""
        if self._is_part(read_config(Path(folder))):
            config = self.config()
            config.num_labels = load_args.pop("num_labels", config.num_labels)
            load_args |= {"config": config, "key_mapping": _TEXT_PART}
        return self._auto.from_pretrained(
            folder,
            dtype=self.dtype,
            use_safetensors=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,
            **load_args,
        )


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

    ``labels`` are the classes of a classification task, or one word for a number; ``scalar`` asks for a single output
    instead. Raises
    :class:`harness.errors.InputError` for an unknown name, a failed download, a missing device, weights that are not
    safetensors, files that transformers cannot read without code of the checkpoint, and a tokenizer with more tokens
    than the embedding has rows; :class:`harness.execution.NotActive` for a format that the device does not compute in.
    """
    place = pick_device(device)
    formats.use(dtype, place)
    spec = load_spec(name)
    checkpoint = None if spec.is_random else checkpoint_dir(spec)
    if checkpoint is not None and not any(checkpoint.glob("*.safetensors")):
        raise InputError(f"model: {checkpoint}: has no weights in safetensors; pickled ones (.bin, .pt) are never read")
    tokenizer = _tokenizer(checkpoint)
    if checkpoint is not None:
        rows = read_config(checkpoint).get_text_config().vocab_size
        tokens.check_vocabulary(tokenizer, rows, spec.name)
    return Base(
        spec=spec,
        tokenizer=tokenizer,
        checkpoint=checkpoint,
        dtype=formats.torch_dtype(dtype),
        device=place,
        seed=seed,
        labels=labels,
        scalar=scalar,
        tf32=dtype == "tf32",
    )


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """The tokenizer of the model called ``name``, as :func:`load` gives it; the weights are not read."""
    spec = load_spec(name)
    return _tokenizer(None if spec.is_random else checkpoint_dir(spec))


def _tokenizer(checkpoint: Path | None) -> PreTrainedTokenizerBase:
    # A model with random weights reads bytes: no vocabulary has to be fetched for it.
    tokenizer = transformers.ByT5Tokenizer(extra_ids=0) if checkpoint is None else _stored_tokenizer(checkpoint)
    tokens.settle_padding(tokenizer)
    return tokenizer


def _stored_tokenizer(checkpoint: Path) -> PreTrainedTokenizerBase:
    try:
        tokenizer: PreTrainedTokenizerBase = transformers.AutoTokenizer.from_pretrained(
            checkpoint, trust_remote_code=False
        )
    except Exception as error:  # the libraries raise anything for a damaged file
        raise unreadable(checkpoint, error) from error
    return tokenizer

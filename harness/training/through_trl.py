"""Run a trainer of TRL as the other objectives run: same arguments, same timer, same history.

It corrects the following:

- every default that differs is written out (bfloat16, checkpointing of activations, the CPU);
- TRL puts a forward of its own on the network; a tuner with a copy of it (adaption prompts) gets the new one;
- TRL 1.16 casts the adapter on a 4-bit base to bfloat16, whatever the trial requested: it is cast back;
- TRL may leave a second adapter on the network, its reference: it is removed;
- soft prompts lengthen the outputs, but TRL expects logits of the input's length: they are cut;
- the shares of its step that are generation, reward or reference are part of the step's time.

TRL tokenises prompt and answer together, the other objectives apart; ids may differ at the seam.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from unittest import mock

import datasets
from peft import PeftModel
from transformers import TrainerCallback

from harness.networks.tuned import Tuned
from harness.tasks.data import TaskData
from harness.tasks.encode import end_id
from harness.tasks.pairs import pairs
from harness.training.schedule import Scheduled
from harness.training.trainer import Counting, History, Settings, run, training_arguments

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def fit(
    tuned: Tuned,
    settings: Settings,
    trainer: type[Any],
    config: type[Any],
    rows: Sequence[Mapping[str, Any]],
    arguments: Mapping[str, Any],
    cut: Sequence[bool],
    row_masks: tuple[str, ...] = Counting.row_masks,
    **trainer_args: Any,
) -> History:
    """Train in place with ``trainer(args=config(**arguments), ...)`` on ``rows``.

    ``cut`` says of each training example whether it lost tokens. ``row_masks`` are the masks of TRL's batch that cover
    each row once, and count its tokens.
    """
    dtypes = {name: parameter.dtype for name, parameter in tuned.trainable.items()}
    extended = type(
        f"Timed{trainer.__name__}",
        (_WithTerm, Counting, Scheduled, trainer),
        {"loss_term": tuned.loss_term, "row_masks": row_masks},
    )
    progress = datasets.are_progress_bars_disabled()

    def make(callbacks: list[TrainerCallback]) -> Any:
        trl_trainer = extended(
            model=tuned.model,
            args=config(**{**training_arguments(tuned, settings), **arguments}),
            train_dataset=datasets.Dataset.from_list([dict(row) for row in rows]),
            processing_class=closing_answers(tuned.base.tokenizer),
            callbacks=callbacks,
            **trainer_args,
        )
        if isinstance(tuned.model, PeftModel) and "forward" in vars(tuned.model.base_model):
            tuned.model.base_model.forward = tuned.model.get_base_model().forward
        for name, parameter in tuned.trainable.items():
            if name in dtypes:
                parameter.data = parameter.data.to(dtypes[name])
        return trl_trainer

    datasets.disable_progress_bars()
    quiet = mock.patch.dict(os.environ, {"TQDM_DISABLE": "1"})
    shortening = tuned.model.register_forward_hook(_cut_soft_prompt, with_kwargs=True)
    try:
        with quiet:
            return run(tuned, make, settings, activations=None, cut=cut)
    finally:
        shortening.remove()
        if not progress:
            datasets.enable_progress_bars()
        if isinstance(tuned.model, PeftModel) and "ref" in tuned.model.peft_config:
            tuned.model.delete_adapter("ref")


class _WithTerm:
    """Mixin of a ``Trainer``: adds the method's term to its loss."""

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        base_loss = super().compute_loss(model, inputs, *args, **kwargs)  # type: ignore[misc]
        if (term := type(self).loss_term) is None:  # type: ignore[attr-defined]
            return base_loss
        return (base_loss[0] + term(), *base_loss[1:]) if isinstance(base_loss, tuple) else base_loss + term()


def _cut_soft_prompt(_model: Any, args: tuple[Any, ...], inputs: dict[str, Any], output: Any) -> Any:
    """``output`` without the logits of the virtual tokens in front; unchanged if there are none."""
    ids = args[0] if args else inputs.get("input_ids")
    if ids is not None and getattr(output, "logits", None) is not None:
        output.logits = output.logits[:, -ids.shape[1] :]
    return output


def pair_rows(tuned: Tuned, data: TaskData, max_length: int) -> tuple[list[dict[str, str]], list[bool]]:
    """The training pairs for TRL, with prompts cut as everywhere here, and of each whether it is cut.

    TRL would cut the answers away instead.
    """
    tokenizer = tuned.base.tokenizer

    def answer(ids: Sequence[int]) -> str:
        # TRL puts the end token there itself.
        return str(tokenizer.decode([token for token in ids if token != end_id(tokenizer)]))

    encoded = pairs(tokenizer, data.train, max_length, data.spec.max_new_tokens)
    rows = [
        {
            "prompt": as_text(tokenizer, pair.chosen.prompt),
            "chosen": answer(pair.chosen.completion),
            "rejected": answer(pair.rejected.completion),
        }
        for pair in encoded
    ]
    return rows, [pair.cut for pair in encoded]


def closing_answers(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """The tokenizer with the closing token of answers as its end token, as TRL expects; a copy if they differ."""
    if tokenizer.eos_token_id == end_id(tokenizer):
        return tokenizer
    other = copy.deepcopy(tokenizer)
    other.eos_token = tokenizer.convert_ids_to_tokens(end_id(tokenizer))
    return other


def as_text(tokenizer: PreTrainedTokenizerBase, prompt: Sequence[int]) -> str:
    """A prompt's text, without the special tokens that the tokenizer will add again."""
    text = str(tokenizer.decode(prompt, skip_special_tokens=tokenizer.chat_template is None))
    start = tokenizer.bos_token
    if start and tokenizer(text)["input_ids"][:2] == [tokenizer.bos_token_id] * 2:
        text = text.removeprefix(start)
    return text

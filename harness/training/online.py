r"""What RLOO and GRPO share: TRL's trainer on prompts, with the reward and the price of leaving the reference.

The price is part of the reward,

.. math:: R(x, y) - \beta \log\frac{\pi_\theta(y|x)}{\pi_{ref}(y|x)}

and asked of the same network by :class:`harness.training.rollouts.Reference`. TRL's own reference would be a second
network read from the base's checkpoint, which is not the policy that a trial with a parent starts from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from harness.networks.tuned import Tuned
from harness.tasks.data import TaskData
from harness.tasks.encode import Encoded, free_answer_tokens, prompt_within
from harness.tasks.logprobs import completion_batches, sequence_logprobs
from harness.training import through_trl
from harness.training.rollouts import Reference, Reward
from harness.training.trainer import History, Settings


def fit(
    tuned: Tuned,
    data: TaskData,
    settings: Settings,
    trainer: type[Any],
    config: type[Any],
    reward: Reward,
    beta: float,
    samples: int,
    temperature: float,
    arguments: Mapping[str, Any],
) -> History:
    """Train in place; a step takes ``batch_size`` prompts with ``samples`` answers each."""
    prompts = [e.prompt for e in data.train]
    max_length = settings.budget.max_length
    room = free_answer_tokens(data.spec.max_new_tokens, max_length)
    read = [prompt_within(tuned.base.tokenizer, prompt, max_length, room) for prompt in prompts]
    cut_prompts = [ids for ids, _ in read]
    reference = Reference(tuned)

    def penalised(
        prompts: Sequence[str],
        completions: Sequence[str],
        completion_ids: Sequence[Sequence[int]],
        example: Sequence[int],
        **_: Any,
    ) -> list[float]:
        scores = reward([data.train[i].prompt for i in example], [text.strip() for text in completions])
        rows = [Encoded(tuple(cut_prompts[i]), tuple(ids)) for i, ids in zip(example, completion_ids, strict=True)]
        return (scores.cpu() - beta * kl_of_answers(tuned, reference, rows).cpu()).tolist()  # type: ignore[no-any-return]

    common = {
        "per_device_train_batch_size": settings.budget.batch_size * samples,
        "num_generations": samples,
        "max_completion_length": data.spec.max_new_tokens,
        "temperature": temperature,
        "beta": 0.0,
        "disable_dropout": True,
    }
    rows = [
        {"prompt": through_trl.as_text(tuned.base.tokenizer, ids), "example": index}
        for index, ids in enumerate(cut_prompts)
    ]
    arguments = {**common, **arguments}
    masks = ("prompt_mask", "completion_mask")
    cut = [is_cut for _, is_cut in read]
    return through_trl.fit(tuned, settings, trainer, config, rows, arguments, cut, masks, reward_funcs=penalised)


@torch.no_grad()
def kl_of_answers(tuned: Tuned, reference: Reference, rows: Sequence[Encoded], batch_size: int = 32) -> torch.Tensor:
    r"""An estimate of the KL from each sampled answer, :math:`\log\pi_\theta(y|x) - \log\pi_{ref}(y|x)`, in nats."""
    training = tuned.model.training
    tuned.model.eval()
    log_ratios = []
    for batch in completion_batches(rows, tuned.base.tokenizer.pad_token_id, tuned.base.device, batch_size):
        now, _ = sequence_logprobs(tuned.model, batch)
        with reference():
            before, _ = sequence_logprobs(tuned.model, batch)
        log_ratios.append(now - before)
    tuned.model.train(training)
    return torch.cat(log_ratios)

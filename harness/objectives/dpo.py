r"""Direct preference optimisation and its relatives: preferences without a reward model.

For the chosen answer :math:`y_w` and the rejected :math:`y_l`, with

.. math:: h = \log\frac{\pi_\theta(y_w|x)}{\pi_{ref}(y_w|x)} - \log\frac{\pi_\theta(y_l|x)}{\pi_{ref}(y_l|x)}

the losses are:


- ``sigmoid``: :math:`-\log\sigma(\beta h)` (DPO, Rafailov et al. 2023, arXiv:2305.18290, equation 7);
- ``hinge``: :math:`\max(0, 1 - \beta h)` (SLiC-HF, Zhao et al. 2023, arXiv:2305.10425, with the reference of RSO,
  Liu et al. 2023, arXiv:2309.06657);
- ``ipo``: :math:`(h - \frac{1}{2\beta})^2` (Azar et al. 2023, arXiv:2310.12036, equation 17), with log-probabilities
  averaged over the tokens of each answer, as its authors do in practice.

The reference is the policy before its first step, so its log-probabilities of the training pairs are computed once,
before training: no second network stays in memory, whatever the method. TRL's ``DPOTrainer`` is not used because it
tokenises by rules of its own, casts the adapter of a 4-bit base to bfloat16, and multiplies hidden states by the output
matrix itself, which leaves out what a method changes there; the tests hold the losses against it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch.nn.functional import logsigmoid, relu

from harness.arguments import Positive
from harness.networks.tuned import Tuned
from harness.tasks.data import TaskData
from harness.tasks.logprobs import Batch, sequence_logprobs
from harness.training.pairs import PairCollator, about, halves, precompute, training_pairs
from harness.training.trainer import History, Settings, train

#: From h, of shape (n,), and beta to the loss of each pair.
Loss = Literal["sigmoid", "hinge", "ipo"]
LOSSES: Mapping[str, Callable[[torch.Tensor, float], torch.Tensor]] = {
    "sigmoid": lambda h, beta: -logsigmoid(beta * h),
    "hinge": lambda h, beta: relu(1 - beta * h),
    "ipo": lambda h, beta: (h - 1 / (2 * beta)) ** 2,
}


def fit(tuned: Tuned, data: TaskData, settings: Settings, beta: Positive = 0.1, loss: Loss = "sigmoid") -> History:
    """Train in place on pairs; ``beta`` weighs the distance to the reference.

    Curves: ``reward_margin`` (:math:`\\beta h`), ``reward_accuracy`` (share of pairs with a margin above 0),
    ``chosen_reward``, ``rejected_reward``. Raises :class:`harness.errors.InputError` for an unknown ``loss``.
    """
    pair_loss, per_token = LOSSES[loss], loss == "ipo"
    collate = PairCollator(tuned.base.tokenizer.pad_token_id)

    def scores(model: Any, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        total, tokens = sequence_logprobs(model, batch)
        return halves(total / tokens if per_token else total)

    def reference(batch: Batch) -> dict[str, torch.Tensor]:
        chosen, rejected = scores(tuned.model, batch)
        return {"reference_chosen": chosen, "reference_rejected": rejected}

    def objective(model: Any, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        chosen, rejected = scores(model, batch)
        chosen, rejected = chosen - batch["reference_chosen"], rejected - batch["reference_rejected"]
        h = chosen - rejected
        return pair_loss(h, beta).mean(), {
            "reward_margin": beta * h.detach().mean(),
            "reward_accuracy": (h.detach() > 0).float().mean(),
            "chosen_reward": beta * chosen.detach().mean(),
            "rejected_reward": beta * rejected.detach().mean(),
        }

    examples = training_pairs(tuned.base.tokenizer, data, settings.budget.max_length)
    tuned.model.eval()
    examples = precompute(reference, examples, collate, settings.budget.batch_size, tuned.base.device)
    return train(tuned, examples, collate, settings, objective, **about(examples))

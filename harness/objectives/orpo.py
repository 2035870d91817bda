r"""ORPO: supervised fine-tuning and a preference in one loss (Hong et al. 2024, arXiv:2403.07691).

.. math::
    -\log p_\theta(y_w|x) - \lambda \log\sigma\Big(\log\frac{o_\theta(y_w|x)}{o_\theta(y_l|x)}\Big),
    \qquad o = \frac{p}{1-p} \text{, the odds}

Neither a reference nor an SFT parent is needed. TRL's implementation.
"""

from __future__ import annotations

from harness.arguments import Positive
from harness.networks.tuned import Tuned
from harness.tasks.data import TaskData
from harness.training import through_trl
from harness.training.trainer import History, Settings


def fit(tuned: Tuned, data: TaskData, settings: Settings, beta: Positive = 0.1) -> History:
    """Train in place on pairs; ``beta`` is the paper's lambda, the weight of the preference. Curves are TRL's own."""
    from trl.experimental.orpo import ORPOConfig, ORPOTrainer

    arguments = {"max_length": settings.budget.max_length, "beta": beta, "disable_dropout": True}
    rows, cut = through_trl.pair_rows(tuned, data, settings.budget.max_length)
    return through_trl.fit(
        tuned,
        settings,
        ORPOTrainer,
        ORPOConfig,
        rows,
        arguments,
        cut,
        row_masks=("chosen_attention_mask", "rejected_attention_mask"),
    )

r"""GRPO: rewards standardised within the samples of one prompt, no critic (Shao et al. 2024, arXiv:2402.03300).

.. math:: A_i = \frac{R(x, y_i) - \operatorname{mean}_j R(x, y_j)}{\operatorname{std}_j R(x, y_j)}

TRL's implementation with the paper's loss; what differs from it is told in :mod:`harness.training.online`.
"""

from __future__ import annotations

from harness.arguments import Positive, Several, Weight
from harness.networks.tuned import Tuned
from harness.tasks.data import TaskData
from harness.training import online
from harness.training.rollouts import Reward
from harness.training.trainer import History, Settings


def fit(
    tuned: Tuned,
    data: TaskData,
    settings: Settings,
    reward: Reward,
    beta: Weight = 0.05,
    samples: Several = 4,
    temperature: Positive = 1.0,
) -> History:
    """Train the policy in place on the training prompts, with ``samples`` answers to each. Curves are TRL's own."""
    from trl import GRPOConfig, GRPOTrainer

    arguments = {"loss_type": "grpo", "scale_rewards": "group"}
    return online.fit(tuned, data, settings, GRPOTrainer, GRPOConfig, reward, beta, samples, temperature, arguments)

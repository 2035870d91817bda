r"""RLOO: REINFORCE with the other samples as the baseline (Ahmadian et al. 2024, arXiv:2402.14740).

.. math:: \frac{1}{k} \sum_i \Big(R(x, y_i) - \frac{1}{k-1} \sum_{j \ne i} R(x, y_j)\Big) \nabla \log\pi_\theta(y_i|x)

TRL's implementation; what differs from it is told in :mod:`harness.training.online`.
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
    from trl import RLOOConfig, RLOOTrainer

    return online.fit(tuned, data, settings, RLOOTrainer, RLOOConfig, reward, beta, samples, temperature, {})

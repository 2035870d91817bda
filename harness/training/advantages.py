"""The mathematics of proximal policy optimisation.

Tensors have the shape (answers, positions); ``mask`` marks the positions with a token of the answer.
"""

from __future__ import annotations

import torch


def gae(
    rewards: torch.Tensor, values: torch.Tensor, mask: torch.Tensor, gamma: float, lam: float
) -> tuple[torch.Tensor, torch.Tensor]:
    r"""Advantages :math:`A_t = \sum_l (\gamma\lambda)^l \delta_{t+l}` and returns :math:`A_t + V_t`.

    :math:`\delta_t = r_t + \gamma V_{t+1} - V_t`; after the last token there is no value.
    """
    advantages = torch.zeros_like(rewards)
    ahead, value_ahead = torch.zeros_like(rewards[:, 0]), torch.zeros_like(rewards[:, 0])
    for t in reversed(range(rewards.shape[1])):
        here = mask[:, t].to(rewards.dtype)
        delta = rewards[:, t] + gamma * value_ahead - values[:, t]
        ahead = (delta + gamma * lam * ahead) * here
        value_ahead = values[:, t] * here
        advantages[:, t] = ahead
    return advantages, (advantages + values) * mask


def whiten(values: torch.Tensor, mask: torch.Tensor, shift_mean: bool = True) -> torch.Tensor:
    """Unit variance over the masked places, with zero mean unless ``shift_mean`` is false; 0 elsewhere."""
    masked_values = values[mask]
    mean, std = masked_values.mean(), masked_values.std(unbiased=False)
    white = (values - mean) / (std + 1e-8)
    return (white if shift_mean else white + mean) * mask


def policy_loss(ratio: torch.Tensor, advantages: torch.Tensor, clip: float) -> torch.Tensor:
    """The clipped surrogate of every token, to minimise."""
    return -torch.min(ratio * advantages, ratio.clamp(1 - clip, 1 + clip) * advantages)


def value_loss(values: torch.Tensor, old: torch.Tensor, returns: torch.Tensor, clip: float) -> torch.Tensor:
    """Half the squared error of every token: the larger of the value's and that of the value clipped around ``old``."""
    clipped = old + (values - old).clamp(-clip, clip)
    return 0.5 * torch.max((values - returns) ** 2, (clipped - returns) ** 2)


def adapted(coefficient: float, kl: float, target: float | None, gain: float = 0.1) -> float:
    """The next KL coefficient: larger if the KL is above ``target``; unchanged if that is None.

    The proportional controller of Ziegler et al. 2019, section 2.2, with its error cut at 20 %.
    """
    if target is None:
        return coefficient
    return coefficient * (1 + gain * min(max(kl / target - 1, -0.2), 0.2))

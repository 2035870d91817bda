r"""Regression: the squared error of a number, :math:`(f_\theta(x) - (y - \mu) / \sigma)^2`.

An encoder learns a head with one output on targets in standard deviations from their mean, so that a learning rate fits
whatever their unit; mean and deviation are those of the training examples. A decoder learns the number as text (Raffel
et al. 2020, arXiv:1910.10683, section 2.4).
"""

from __future__ import annotations

from harness.networks.tuned import Tuned
from harness.objectives import sft
from harness.tasks.data import TaskData
from harness.training.heads import train_head
from harness.training.trainer import History, Settings


def fit(tuned: Tuned, data: TaskData, settings: Settings) -> History:
    """Train in place: an encoder with a head on the standardised number, a decoder on its text."""
    if not tuned.base.has_head:
        return sft.fit(tuned, data, settings)
    targets = (None if e.target is None else data.scale.standard(e.target) for e in data.train)
    return train_head(tuned, [(e.text, target) for e, target in zip(data.train, targets, strict=True)], settings)

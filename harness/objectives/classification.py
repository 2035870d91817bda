r"""Classification: cross-entropy of the right label.

An encoder learns a head on its first token (Devlin et al. 2019, arXiv:1810.04805); a decoder learns to say the label's
words, :math:`\arg\max_y \log p_\theta(y \mid x)` (Schick & Schütze 2021, arXiv:2001.07676, without the mask token).
"""

from __future__ import annotations

from harness.networks.tuned import Tuned
from harness.objectives import sft
from harness.tasks.data import TaskData
from harness.training.heads import train_head
from harness.training.trainer import History, Settings


def fit(tuned: Tuned, data: TaskData, settings: Settings) -> History:
    """Train in place: an encoder with a head on the labels, a decoder on the labels' words."""
    if not tuned.base.has_head:
        return sft.fit(tuned, data, settings)
    return train_head(tuned, [(e.text, e.label) for e in data.train], settings)

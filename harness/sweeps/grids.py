"""The learning rates that a method gets where a sweep gives none: three each, about three times apart.

So ``methods: [lora, bitfit]`` is a fair sweep as it stands (protocol, rule 1). The evidence: on decoders, the rates
among which validation chose in the standard sweep of version 0.1 on SmolLM2-135M, and for LoRA Tinker's sweep of models
from 1B to 1T parameters, where 3e-4 or 1e-3 was best at almost every rank from 4 on
(github.com/thinking-machines-lab/tinker-cookbook, ``recipes/chat_sl/results/sft_sweep.md``). On encoders, the first
seed of the standard sweep on MiniLM (22M), on trec and sms_spam, by validation. Where neither says anything, the middle
rate is the default of the method's notebook. An encoder-decoder takes the rates of a decoder.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from harness.catalog import Objective

#: How many learning rates every method gets.
SIZE = 3

Rates = tuple[float, float, float]


@dataclass(frozen=True)
class Grid:
    """The rates of one method."""

    decoder: Rates
    encoder: Rates


GRIDS: Mapping[str, Grid] = MappingProxyType(
    {
        "full": Grid((2e-5, 5e-5, 1e-4), encoder=(1e-4, 3e-4, 6e-4)),
        "full_top_k": Grid((3e-5, 1e-4, 3e-4), encoder=(3e-4, 1e-3, 3e-3)),
        "head": Grid((5e-5, 1e-4, 5e-4), encoder=(1e-2, 3e-2, 1e-1)),
        "bitfit": Grid((2e-3, 5e-3, 1e-2), encoder=(3e-3, 6e-3, 1e-2)),
        "adapter": Grid((3e-4, 1e-3, 3e-3), encoder=(1e-3, 3e-3, 6e-3)),
        "prompt": Grid((1e-1, 3e-1, 6e-1), encoder=(1e-1, 3e-1, 1.0)),
        "prefix": Grid((2e-2, 5e-2, 1e-1), encoder=(2e-2, 5e-2, 1e-1)),
        "p_tuning": Grid((3.3e-4, 1e-3, 3e-3), encoder=(3e-3, 1e-2, 3e-2)),
        "lora": Grid((3e-4, 1e-3, 3e-3), encoder=(1e-3, 3e-3, 1e-2)),
        "dora": Grid((3e-4, 1e-3, 3e-3), encoder=(1e-3, 3e-3, 1e-2)),
        "qlora": Grid((3e-4, 1e-3, 3e-3), encoder=(1e-3, 3e-3, 1e-2)),
        "ia3": Grid((3.3e-3, 1e-2, 3e-2), encoder=(1e-2, 3e-2, 1e-1)),
    }
)

#: Of the above, what an objective takes that starts from an SFT model: its notebooks train LoRA at 2e-4, not at 1e-3.
_OF_POLICIES = 0.2


def default_rates(method: str, model_kind: str, objective: Objective, usual: float) -> list[float]:
    """The rates of ``method`` on models of this kind; around ``usual``, its notebook's default, where none are known.

    An objective that starts from an SFT model takes a fifth of them.
    """
    grid = GRIDS.get(method, Grid(around := (usual / 3, usual, 3 * usual), around))
    rates = grid.encoder if model_kind == "encoder" else grid.decoder
    scale = _OF_POLICIES if any(parent.role == "sft" for parent in objective.parents) else 1.0
    return [_rounded(rate * scale) for rate in rates]


def _rounded(rate: float) -> float:
    """A rate as a person writes it, with two digits."""
    return float(f"{rate:.2g}")

"""What a regression gate judges: each quantity with its own tolerance and its own noise.

A cost's spread is what a run of one seed differs by from its usual value, as ``docs/ci.md`` lists it: twice what two
quiet cores showed. It counts unless several seeds show a larger one, which then counts. Three seeds alone know too
little of a spread to see a tenth more memory among dozens of checks.
"""

from __future__ import annotations

from dataclasses import dataclass

SCORE = "score"
ENDING = "ending"

SCORE_TOLERANCE = 0.01
"""The smallest change of a score that counts, as a share of the metric's maximum (without one: of the old score)."""

SCORE_SPREAD = 0.02
"""How far one run's score is from its usual one (standard deviation), as a share of the metric's range.

Published reruns of one setting on one stack differ by 0.4 points on average and by up to 1.7 (PEFT's method comparison,
63 results); small models on few examples differ by more."""


@dataclass(frozen=True)
class Quantity:
    """A cost, judged by the logarithm of its ratio. Every number but the name is a share, such as 0.05."""

    name: str
    columns: tuple[str, ...]
    """Columns of ``trials`` whose sum it is."""
    tolerance: float
    """The smallest growth that counts."""
    spread: float = 0.0
    """The largest usual standard deviation of one run; 0: the same specification gives the same number."""
    accelerator_spread: float = 0.0
    """The same on an accelerator, whose allocator counts its bytes."""
    drift: float = 0.0
    """Standard deviation of what shifts a whole run: the machine is slower on one day than on another."""
    timed: bool = False

    @property
    def exact(self) -> bool:
        """Whether any change is one of the code."""
        return not self.spread

    def spread_on(self, device: str) -> float:
        """The spread of one run on ``device``."""
        return self.spread if device == "cpu" else self.accelerator_spread


COSTS = (
    Quantity(
        "counted memory", ("weights_bytes", "gradients_bytes", "optimizer_bytes", "activations_bytes"), tolerance=0.02
    ),
    Quantity("peak memory", ("peak_train_bytes",), tolerance=0.05, spread=0.015, accelerator_spread=0.005),
    Quantity(
        "peak memory of inference", ("peak_inference_bytes",), tolerance=0.05, spread=0.015, accelerator_spread=0.005
    ),
    Quantity("step time", ("train_step_s_median",), 0.10, 0.05, 0.03, drift=0.03, timed=True),
    Quantity("latency of a prompt", ("prefill_s_p50",), 0.10, 0.08, 0.05, drift=0.04, timed=True),
    Quantity("latency of a token", ("decode_s_per_token_p50",), 0.10, 0.08, 0.05, drift=0.04, timed=True),
    Quantity("checkpoint size", ("checkpoint_bytes",), tolerance=0.01),
)

#: In the order of a report.
NAMES = (ENDING, SCORE, *(cost.name for cost in COSTS))


#: What has to be the same for times, and for memory, to be compared.
MACHINE = ("processor", "processor_threads", "accelerator", "device")
MEMORY_OF = ("accelerator", "device")

"""From tables to judgement: which setting, how sure, what is better. No torch."""

from harness.judgement.intervals import Interval, mean_interval, paired_difference

__all__ = ["Interval", "mean_interval", "paired_difference"]

"""What a notebook calls: one trial, step by step."""

from harness.experiment.experiment import Experiment

__all__ = ["Experiment"]

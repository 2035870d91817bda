"""What a notebook calls: one trial, step by step."""

from harness.experiment.quiet import quiet_libraries

quiet_libraries()  # before the libraries are imported: some speak at once

from harness.experiment.experiment import Experiment  # noqa: E402

__all__ = ["Experiment"]

"""What a notebook prints: the own words plainly, of libraries their errors alone."""

from __future__ import annotations

import logging
import warnings

import pytest

from harness.experiment.quiet import plain_warnings, quiet_libraries


@pytest.mark.parametrize(
    ("module", "category", "heard"),
    [
        ("transformers.modeling_utils", FutureWarning, 0),
        ("peft.tuners.lora.layer", UserWarning, 0),
        ("trl.trainer.kto_trainer", UserWarning, 0),
        ("torch.jit._script", FutureWarning, 0),
        ("torch.cuda", UserWarning, 1),
        ("harness.tasks.data", UserWarning, 1),
        ("torchmine", FutureWarning, 1),
        ("__main__", FutureWarning, 1),
    ],
)
def test_warnings_of_libraries_are_silent_and_no_others(module: str, category: type[Warning], heard: int) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        quiet_libraries()
        warnings.warn_explicit("old name", category, "file.py", 1, module=module)
    assert len(caught) == heard


def test_loggers_of_libraries_tell_errors_alone() -> None:
    quiet_libraries()
    for name in ("transformers.trainer", "trl.trainer.kto_trainer", "bitsandbytes.backends.cpu.ops"):
        logger = logging.getLogger(name)
        assert not logger.isEnabledFor(logging.WARNING) and logger.isEnabledFor(logging.ERROR)


def test_an_own_warning_is_printed_without_its_place(capsys: pytest.CaptureFixture[str]) -> None:
    with plain_warnings():
        warnings.warn_explicit("task 'own': 3 of 9 rows are left out", UserWarning, "f.py", 1, module="harness.tasks")
    assert capsys.readouterr() == ("task 'own': 3 of 9 rows are left out\n", "")

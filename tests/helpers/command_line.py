"""A test helper: the command line in this process."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from harness import cli

Call = Callable[..., tuple[int, str, str]]


def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of ``tunebench arguments``; it has to end by exiting."""
    monkeypatch.setattr(sys, "argv", ["tunebench", *arguments])
    with pytest.raises(SystemExit) as exit_:
        cli.main()
    out, err = capsys.readouterr()
    assert isinstance(exit_.value.code, int)
    return exit_.value.code, out, err

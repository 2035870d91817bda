"""What a person sees while memory is estimated, on the standard error stream."""

from __future__ import annotations

import io
import json
import re
import sys
from pathlib import Path

import pytest
from helpers import command_line, own_methods

from harness.cli.estimating import Estimating


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_elsewhere_than_on_a_terminal_there_is_a_line_before_and_one_behind(capsys: pytest.CaptureFixture[str]) -> None:
    with Estimating() as watch:
        watch(0, 12)
        assert capsys.readouterr().err == "estimating the memory of 12 settings, once\n"
        watch(1, 12)
        watch(12, 12)
        assert capsys.readouterr().err == ""
    assert capsys.readouterr() == ("", "estimated the memory of 12 settings in 0 s\n")


def test_one_setting_and_what_is_known_need_no_line(capsys: pytest.CaptureFixture[str]) -> None:
    with Estimating() as watch:
        watch(0, 1)
        watch(1, 1)
    with Estimating():
        pass
    assert capsys.readouterr() == ("", "")


def test_what_is_broken_off_is_not_told_as_done(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyboardInterrupt), Estimating() as watch:
        watch(0, 2)
        raise KeyboardInterrupt
    assert "estimated" not in capsys.readouterr().err


def test_a_terminal_shows_a_count_and_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    with Estimating() as watch:
        watch(0, 12)
        watch(5, 12)
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", terminal.getvalue())
    assert re.search(r"estimating memory, setting by setting, once: +5/12 0:00:0\d", shown)
    assert shown.endswith("estimated the memory of 12 settings in 0 s\n")


@pytest.mark.slow
def test_what_an_own_method_prints_is_no_part_of_the_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = own_methods.write(tmp_path, own_methods.NORMS.replace("model = base", "print('hello'); model = base"))
    code, out, err = command_line.run(monkeypatch, capsys, "estimate", "minilm-l6-22m", "--method", str(file), "--json")
    assert code == 0 and json.loads(out) and "hello" in err

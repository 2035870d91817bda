"""Text of others is shown as text."""

from __future__ import annotations

import json

import pytest

from harness import plain


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]0;title\x07", r"\u001b]0;title\u0007"),
        ("\x1b[2J\x9b2J", r"\u001b[2J\u009b2J"),
        ("a\u202egpj.exe\u2066", r"a\u202egpj.exe\u2066"),
        ("one\ntwo\tthree\r\x08", r"one\u000atwo\u0009three\u000d\u0008"),
        ("half \ud83d of a pair", r"half \ud83d of a pair"),
        ("[bold red]x[/] $\\frac <b> × é 漢字 עברית 😀", "[bold red]x[/] $\\frac <b> × é 漢字 עברית 😀"),
    ],
)
def test_what_steers_is_written_out(text: str, shown: str) -> None:
    assert plain.line(text) == shown
    plain.line(text).encode()


def test_lines_stay_lines() -> None:
    assert plain.lines("a\n\tb\x1b") == "a\n\tb\\u001b"
    value = {"reason": "\x9b \u202e \x1b \n"}
    assert json.loads(plain.lines(json.dumps(value, ensure_ascii=False))) == value


def test_length_is_bounded_and_said() -> None:
    assert plain.bounded("x" * 1000) == "x" * 1000
    assert plain.bounded("x" * 1001) == "x" * 960 + " … (41 more characters)"
    assert plain.bounded(plain.bounded("x" * 9_000)) == plain.bounded("x" * 9_000)

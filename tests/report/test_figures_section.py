"""Figures of a section: those with something to show, else the reason of the first."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.trials_table import trials

from harness import figures as drawing
from harness.figures import Nothing
from harness.report.figures_section import figures


def test_a_section_shows_what_there_is_and_else_says_why_not(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from matplotlib.figure import Figure

    drawn = {"here": lambda _tables: Figure((1, 1)), "gone": lambda _tables: Nothing("<nothing> was measured")}
    monkeypatch.setattr(drawing, "FIGURES", drawn)
    monkeypatch.setattr("harness.report.sections.FIGURES", drawn)
    monkeypatch.setattr("harness.report.figures_section.FIGURES", drawn)
    monkeypatch.setattr("harness.report.sections.DESCRIPTIONS", dict.fromkeys(drawn, "about it"))
    tables = {"trials": trials()}
    both = figures(tables, tmp_path, "gone", "here").text
    assert both.count("<figure>") == 1 and "measured" not in both
    assert (tmp_path / "figures" / "here.svg").is_file()
    none = figures(tables, tmp_path, "gone").text
    assert none == "<p>Nothing to show because &lt;nothing&gt; was measured.</p>"

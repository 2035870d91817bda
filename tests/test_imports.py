"""Packages that are not to be found for a while."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from harness.imports import without


def test_a_package_is_not_found_within_the_block_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "heavy_package.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError), without("heavy_package"):
        assert importlib.util.find_spec("heavy_package") is None
        importlib.import_module("heavy_package")
    there = importlib.import_module("heavy_package")
    with without("heavy_package"):
        assert importlib.import_module("heavy_package") is there, "what is imported stays"
    monkeypatch.delitem(sys.modules, "heavy_package")

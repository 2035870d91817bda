"""For all tests."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="module")
def nothing_old_to_collect() -> Iterator[None]:
    """Each training collects garbage twice, and would look through all that the libraries have built to find none."""
    gc.collect()  # what an earlier module left; quick, because all that is older is frozen
    gc.freeze()
    yield

"""A quick and quiet start of the libraries, for a command that estimates and ends."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from harness.imports import without


@contextlib.contextmanager
def quick_start() -> Iterator[None]:
    """Import what an estimate needs, without what it does not use, and run the block without the libraries' advice.

    bitsandbytes wraps its fall-backs for CPUs in ``torch.compile`` while it is imported, which loads a compiler: a
    fifth of the start. They work unwrapped, and an estimate does not run them.
    """
    # What is imported lives to the end: looking for garbage in it takes another fifth.
    gc.disable()
    # torch would create a folder for what it compiles, and nothing is compiled here.
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", tempfile.gettempdir())
    import torch

    def unwrapped(function: Any = None, **_: Any) -> Any:
        return function if function is not None else lambda given: given

    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    with mock.patch.object(torch, "compile", unwrapped), contextlib.suppress(ImportError):
        import bitsandbytes  # noqa: F401
    # Nobody is there to answer what a library may ask.
    with (
        Path(os.devnull).open(encoding="utf-8") as nothing,
        mock.patch.object(sys, "stdin", nothing),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        with without("scipy"):  # transformers imports it for losses on pictures: an eighth of the start
            import transformers.modeling_utils  # noqa: F401
        yield

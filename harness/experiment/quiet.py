"""What a notebook prints is its own: no advice of libraries to their developers, no warnings with a line of code."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

#: Libraries whose warnings are about each other's older names, or about what the harness does on purpose.
_LIBRARIES = r"(accelerate|bitsandbytes|datasets|peft|transformers|trl)\."

#: On some processors it recommends a package that fetches compiled code, as soon as it is imported.
_ADVISES = "bitsandbytes.backends.cpu.ops"


def quiet_libraries() -> None:
    """Silence the warnings of libraries for the rest of this process; their errors stay."""
    warnings.filterwarnings("ignore", module=_LIBRARIES)
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.")
    for name in (_ADVISES, "trl"):
        logging.getLogger(name).setLevel(logging.ERROR)
    from transformers.utils import logging as of_transformers

    of_transformers.set_verbosity_error()


@contextmanager
def plain_warnings() -> Iterator[None]:
    """Print the messages of the own warnings, without the place in the code."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.filterwarnings("always", module=r"harness\.")
        yield
    for warning in caught:
        print(warning.message)

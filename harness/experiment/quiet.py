"""No advice of libraries to their developers in a notebook: it is no part of what the notebook shows."""

from __future__ import annotations

import logging
import warnings

#: Libraries that call each other's older names, which a reader of a notebook cannot mend.
_LIBRARIES = r"(accelerate|bitsandbytes|datasets|peft|torch|transformers|trl)\."

#: On some processors it recommends a package that fetches compiled code, as soon as it is imported.
_ADVISES = "bitsandbytes.backends.cpu.ops"


def quiet_libraries() -> None:
    """Silence what the libraries say of coming changes, for the rest of this process; errors stay."""
    for category in (FutureWarning, DeprecationWarning):
        warnings.filterwarnings("ignore", category=category, module=_LIBRARIES)
    logging.getLogger(_ADVISES).setLevel(logging.ERROR)

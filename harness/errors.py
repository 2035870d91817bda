"""The one exception for bad input: everything a user can mend is told in one line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Something the user wrote is not valid. Its message is one line: where, what, and what would be valid.

    The command line prints it without a traceback and exits with code 2; a notebook shows it without one, too.
    """

    def _render_traceback_(self) -> list[str]:
        """What IPython shows."""
        return [f"{type(self).__name__}: {self}"]


def unknown(where: str, name: object, valid: Iterable[str]) -> InputError:
    """An :class:`InputError` for a name that does not exist, with the nearest name that does."""
    names = sorted(valid)
    near = difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
    hint = f"did you mean '{near[0]}'?" if near else f"valid: {', '.join(names)}"
    return InputError(f"{where}: unknown name '{name}'; {hint}")

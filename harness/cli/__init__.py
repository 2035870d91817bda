"""The command line: one file per command. Every command imports what it needs when it runs: ``--help`` is immediate."""

from __future__ import annotations

import sys

from harness import notebooks
from harness.cli import estimate, fetch, init, lab, list, plan, report, run, status, tables, trial
from harness.cli.app import BAD_INPUT, app
from harness.errors import InputError

__all__ = ["app", "main"]

for _command in (run, plan, status, tables, report, estimate, list, fetch, lab, init, trial):
    _command.add_to(app)


def main() -> None:
    """Run the command line: exit code 2 and one line for bad input, 130 when interrupted."""
    try:
        notebooks.hand_on()
        app()
    except InputError as error:
        _fail(str(error))
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
    except OSError as error:
        _fail(f"{error.filename or 'tunebench'}: {error.strerror or error}")


def _fail(message: str) -> None:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(BAD_INPUT)

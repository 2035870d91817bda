"""The command line: one file per command. A command imports what it needs only when it runs, so ``--help`` is fast."""

from __future__ import annotations

import sys

from harness import notebooks
from harness.cli import estimate, fetch, init, lab, list, plan, report, run, status, tables, trial
from harness.cli.app import BAD_INPUT, app
from harness.cli.output import say
from harness.errors import InputError

__all__ = ["app", "main"]

for _command in (run, plan, status, tables, report, estimate, list, fetch, lab, init, trial):
    _command.add_to(app)


def main() -> None:
    """Run the command line. Bad input prints one line and exits with code 2; an interrupt exits with 130."""
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
    say(f"error: {' '.join(message.split())}", sys.stderr)
    sys.exit(BAD_INPUT)

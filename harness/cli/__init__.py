"""The command line: one file per command. A command imports what it needs only when it runs, so ``--help`` is fast."""

from __future__ import annotations

import io
import re
import sys
from functools import cache
from typing import Any

import typer

from harness import notebooks
from harness.cli import (
    advise,
    compare,
    estimate,
    export,
    fetch,
    figures,
    init,
    judge,
    lab,
    list,
    plan,
    recommend,
    report,
    run,
    show,
    status,
    tables,
    trial,
)
from harness.cli.app import BAD_INPUT, INTERRUPTED, app
from harness.cli.output import say
from harness.errors import InputError, unknown
from harness.processes.lifetime import ended_by_signals

__all__ = ["app", "main"]

for _command in (
    run,
    plan,
    advise,
    status,
    tables,
    report,
    figures,
    recommend,
    judge,
    compare,
    export,
    estimate,
    list,
    show,
    fetch,
    lab,
    init,
    trial,
):
    _command.add_to(app)


#: Whatever is wrong with the options and arguments themselves.
_UsageError: Any = typer.BadParameter.__base__


def main() -> None:
    """Run the command line. Bad input prints one line and exits with code 2; an interrupt exits with 130."""
    try:
        with ended_by_signals(INTERRUPTED, "interrupted"):
            notebooks.hand_on()
            sys.exit(parser()(sys.argv[1:] or ["--help"], standalone_mode=False) or 0)
    except InputError as error:
        _fail(str(error))
    except _UsageError as error:
        _fail(_in_words(error))
    except BrokenPipeError:
        sys.stdout = sys.stderr = io.StringIO()  # nobody reads; what is left is not said
        sys.exit(1)
    except OSError as error:
        _fail(f"{error.filename or 'tunebench'}: {error.strerror or error}")


@cache
def parser() -> Any:
    """What reads the words of a command line; building it takes longer than many commands."""
    return typer.main.get_command(app)


def _in_words(error: Any) -> str:
    """What is wrong with the options, as one line in the user's words."""
    message = str(error.format_message()).rstrip(".").replace("Input should", "must").partition(", unable to parse")[0]
    if named := re.match("No such command '(.*?)'", message):
        return str(unknown("command", named[1], error.ctx.command.commands))
    command = " ".join(["tunebench", *error.ctx.command_path.split()[1:]]) if error.ctx else "tunebench"
    return f"{message[:1].lower()}{message[1:]}; see '{command} --help'"


def _fail(message: str) -> None:
    say(f"error: {' '.join(message.split())}", sys.stderr)
    sys.exit(BAD_INPUT)

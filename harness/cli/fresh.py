"""Tables that follow the records of their folder, for commands that read them."""

from __future__ import annotations

from pathlib import Path

from harness.errors import InputError


def follow_records(folder: Path) -> None:
    """Make the tables of ``folder`` again where they do not follow its records.

    A folder of tables alone has no records that they could follow.
    """
    from harness.files import TRIALS_DIR
    from harness.ledger.tables import refresh

    if (folder / TRIALS_DIR).is_dir():
        try:
            refresh(folder)
        except OSError as error:
            raise InputError(
                f"{folder}: its tables do not follow its records, and cannot be written: {error.strerror}"
            ) from error

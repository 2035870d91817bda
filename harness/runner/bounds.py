"""How much of what a cell prints, shows and raises is kept: its head and its tail, and the number of the rest."""

from __future__ import annotations

from typing import Any

#: Characters of a text that stay: the first and the last ones.
HEAD = TAIL = 2**16
#: Characters that a trial's log holds of its notebook at most, and a cell of what it displays.
LOG = 2**24


def shortened(text: str) -> str:
    """``text``, without its middle if it is long."""
    left_out = len(text) - HEAD - TAIL
    return text if left_out <= 0 else f"{text[:HEAD]}\n[{left_out:,} characters left out]\n{text[-TAIL:]}"


def content(message: dict[str, Any]) -> dict[str, Any]:
    """The content of a kernel's message with bounded texts: plain text and errors shortened.

    What has no middle that could be missing, such as a picture, is left out when it is longer than :data:`LOG`.
    """
    bounded = dict(message)
    if isinstance(data := message.get("data"), dict):
        bounded["data"] = _bundle(data)
    if isinstance(message.get("evalue"), str):
        bounded["evalue"] = shortened(message["evalue"])
    if isinstance(lines := message.get("traceback"), list):
        bounded["traceback"] = [shortened(line) for line in lines]
    return bounded


def _bundle(data: dict[str, Any]) -> dict[str, Any]:
    """The forms of one displayed object, by MIME type."""
    bounded = {kind: form for kind, form in data.items() if not isinstance(form, str) or len(form) <= LOG}
    if isinstance(plain := data.get("text/plain"), str):
        bounded["text/plain"] = shortened(plain)
    for kind in data.keys() - bounded.keys():
        said = f"[{kind} of {len(data[kind]):,} characters left out]"
        bounded["text/plain"] = f"{bounded.get('text/plain', '')}\n{said}".strip()
    return bounded

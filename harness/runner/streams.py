"""What a cell prints, kept as a terminal would show it, in linear time and within a bound.

nbclient joins what a cell prints with regular expressions whose time is quadratic in the length of a line and that
hold the interpreter: a line of a million characters stops the trial, its heartbeat and its time limit for minutes.
"""

from __future__ import annotations

import re
import time
from collections import deque
from typing import IO, Any

from nbclient.util import run_sync
from nbformat.v4 import new_output, output_from_msg
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine, papermill_engines

from harness.runner.bounds import HEAD, LOG, TAIL

#: A stream that grows is written into the notebook this often, and when the cell ends.
_SETTLE_S = 2.0

ENGINE = "tunebench"
_CONTROL = re.compile("([\n\r\b])")


class Stream:
    """Text that grows; ``text`` is what a terminal shows of it, its middle left out where it is long."""

    def __init__(self) -> None:
        self._head: list[str] = []
        self._room = HEAD
        self._tail: deque[str] = deque()
        self._in_tail = 0
        self._left_out = 0
        self._line: list[str] = []
        self._returned = False

    def write(self, text: str) -> None:
        """Append ``text``; a carriage return begins its line anew, a backspace takes a character back."""
        if not (self._returned or "\r" in text or "\b" in text):  # whole lines at once: millions may come
            lines, newline, text = text.rpartition("\n")
            if newline:
                self._keep("".join(self._line) + lines + newline)
                self._line.clear()
        for piece in _CONTROL.split(text):
            if piece == "\r":
                self._returned = True
            elif piece == "\n":
                self._keep("".join(self._line) + "\n")
                self._line.clear()
                self._returned = False
            elif piece == "\b":
                if self._line:
                    self._line.pop()
            elif piece:
                if self._returned:
                    self._line.clear()
                    self._returned = False
                self._line += piece
                if len(self._line) > HEAD:  # nothing goes back so far, and a line has no bound of its own
                    self._keep("".join(self._line))
                    self._line.clear()

    @property
    def text(self) -> str:
        """Head, how much is left out, tail."""
        middle = f"\n[{self._left_out:,} characters left out]\n" if self._left_out else ""
        return "".join([*self._head, middle, *self._tail, *self._line])

    def _keep(self, text: str) -> None:
        if self._room:
            self._head.append(text[: self._room])
            text = text[self._room :]
            self._room -= len(self._head[-1])
        if text:
            self._tail.append(text)
            self._in_tail += len(text)
        while self._in_tail > TAIL:
            first = self._tail.popleft()
            excess = min(len(first), self._in_tail - TAIL)
            self._left_out += excess
            self._in_tail -= excess
            if excess < len(first):
                self._tail.appendleft(first[excess:])


class BoundedLog:
    """The log as notebooks write to it: what is more than :data:`LOG` characters is left out, and that is said."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._room = LOG

    def write(self, text: str) -> None:
        """Append ``text`` while there is room."""
        if self._room <= 0:
            return
        self._stream.write(text[: self._room])
        self._room -= len(text)
        if self._room <= 0:
            self._stream.write("\n[tunebench] what the notebook printed from here on is left out of this log\n")

    def flush(self) -> None:
        """Have it on disk."""
        self._stream.flush()


class _Client(PapermillNotebookClient):
    """Papermill's client with its own way of keeping streams."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._streams: dict[str, tuple[Any, Stream]] = {}
        """stdout or stderr -> the one output of the running cell that holds it, and what was printed into it."""
        self._settled = time.monotonic()
        self._displayed = 0
        """Characters that the running cell has displayed."""

    def output(self, outs: list[Any], msg: dict[str, Any], display_id: str | None, cell_index: int) -> Any:
        hooked = self.output_hook_stack[msg["parent_header"].get("msg_id")]
        if msg["msg_type"] != "stream" or hooked or self.clear_before_next_output:
            self._settle()
            return self._display(outs, msg, display_id, cell_index)
        name = msg["content"]["name"]
        known = self._streams.get(name)
        if known is None or not any(out is known[0] for out in outs):  # the first, or the outputs were cleared
            known = self._streams[name] = (output_from_msg(msg), Stream())
            outs.append(known[0])
        known[1].write(msg["content"]["text"])
        if time.monotonic() - self._settled > _SETTLE_S:
            self._settle()
        return output_from_msg(msg)  # for the log

    async def async_execute_cell(self, cell: Any, cell_index: int, *args: Any, **settings: Any) -> Any:
        self._streams.clear()
        self._displayed = 0
        try:
            return await super().async_execute_cell(cell, cell_index, *args, **settings)
        finally:
            self._settle()

    execute_cell = run_sync(async_execute_cell)

    def _display(self, outs: list[Any], msg: dict[str, Any], display_id: str | None, cell_index: int) -> Any:
        """Keep what a cell displays while there is room; an error always."""
        had_room = self._displayed <= LOG
        self._displayed += sum(len(form) for form in msg["content"].get("data", {}).values() if isinstance(form, str))
        if self._displayed <= LOG or msg["msg_type"] == "error":
            return super().output(outs, msg, display_id, cell_index)
        if had_room:
            said = "[tunebench] what the cell displayed from here on is left out\n"
            outs.append(new_output("stream", name="stderr", text=said))
        return None

    def _settle(self) -> None:
        """Write into the notebook what the streams hold."""
        for output, stream in self._streams.values():
            output["text"] = stream.text
        self._settled = time.monotonic()


class _Engine(NBClientEngine):
    """Papermill's own engine with :class:`_Client`."""

    @classmethod
    def execute_managed_notebook(
        cls, nb_man: Any, kernel_name: str, *, start_timeout: int, stdout_file: IO[str], **settings: Any
    ) -> Any:
        bounded = BoundedLog(stdout_file)
        for name in ("input_path", "stderr_file"):
            settings.pop(name, None)
        client = _Client(
            nb_man,
            kernel_name=kernel_name,
            startup_timeout=start_timeout,
            timeout=None,
            # A kernel that printed much is read to its end, long after it said that it is done.
            iopub_timeout=60,
            raise_on_iopub_timeout=False,
            stdout_file=bounded,
            stderr_file=bounded,
            **settings,
        )
        return client.execute()


papermill_engines.register(ENGINE, _Engine)

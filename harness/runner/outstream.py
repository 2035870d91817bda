"""A trial's kernel, and what it prints and sends through: no faster than it is read, bounded, with nothing lost.

ipykernel gathers what is printed without a bound, and its socket drops messages when a thousand of them wait. So a
cell that floods its output makes messages of hundreds of megabytes, each of which holds the reader's interpreter for
seconds, and one that flushes often loses lines, or even the word that it is done.
"""

from __future__ import annotations

import codecs
import os
from typing import Any

import zmq
from ipykernel.iostream import OutStream
from ipykernel.kernelapp import IPKernelApp
from jupyter_client.session import Session

from harness.imports import without
from harness.runner import bounds

#: Characters that are printed before they are sent: a message is hardly longer.
PIECE = 2**16
#: Bytes that programs print past the kernel, such as those that a cell starts, and that go to the trial's log raw; the
#: log gets them from the reader too, unless the kernel dies before.
RAW = 2**20


class TrialKernelApp(IPKernelApp):
    """IPython's kernel with these ways out, and without a debugger."""

    def init_kernel(self) -> None:
        """Make the kernel. Nobody debugs a trial: ipykernel does without the debugger where it finds none."""
        with without("debugpy"):  # its import takes longer than all the rest
            super().init_kernel()  # type: ignore[no-untyped-call]

    def _outstream_class_default(self) -> str:
        return f"{__name__}.PacedStream"

    def _session_default(self) -> Session:
        return BoundedSession(parent=self)


class BoundedSession(Session):
    """Sends results, pictures and errors that a reader can take in: one of 150 MB would hold it for many seconds."""

    def send(self, stream: Any, msg_or_type: Any, content: Any = None, *args: Any, **settings: Any) -> Any:
        if isinstance(content, dict):
            content = bounds.content(content)
        return super().send(stream, msg_or_type, content, *args, **settings)


class PacedStream(OutStream):
    """A stream of a kernel that waits while its reader is behind."""

    def __init__(self, session: Any, pub_thread: Any, *args: Any, **settings: Any) -> None:
        self._unsent = 0
        # Its own thread alone may touch the socket.
        pub_thread.schedule(lambda: pub_thread.socket.setsockopt(zmq.XPUB_NODROP, 1))
        super().__init__(session, pub_thread, *args, **settings)  # type: ignore[no-untyped-call]

    def write(self, string: str) -> int:
        """Print ``string``, in pieces. Raises TypeError for what is no string."""
        if not isinstance(string, str) or os.getpid() != self._master_pid:  # a child of the kernel sends by itself
            return super().write(string) or 0
        for start in range(0, len(string), PIECE):
            piece = string[start : start + PIECE]
            super().write(piece)
            self._unsent += len(piece)
            if self._unsent >= PIECE:
                self._unsent = 0
                self.flush()  # type: ignore[no-untyped-call]
        return len(string)

    def _watch_pipe_fd(self) -> None:
        """Print what arrives in the descriptor itself; ipykernel reads 1,000 bytes at a time and logs all of it."""
        if self._fid is None:
            return
        decoder, raw = codecs.getincrementaldecoder("utf-8")("replace"), RAW
        while (piece := os.read(self._fid, PIECE)) and self._should_watch:
            self.write(decoder.decode(piece))
            os.write(self._original_stdstream_copy, piece[:raw])
            raw -= len(piece[:raw])

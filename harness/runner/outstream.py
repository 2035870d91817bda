"""What a kernel prints through: no faster than it is read, and with nothing lost on the way.

ipykernel gathers what is printed without a bound, and its socket drops messages when a thousand of them wait. So a
cell that floods its output makes messages of hundreds of megabytes, each of which holds the reader's interpreter for
seconds, and one that flushes often loses lines, or even the word that it is done.
"""

from __future__ import annotations

import os
from typing import Any

import zmq
from ipykernel.iostream import OutStream

#: Characters that are printed before they are sent: a message is hardly longer.
PIECE = 2**16


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

"""When a kernel is ready, as its client hears it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from queue import Empty
from typing import Any

import pytest

from harness.processes import kernels


def published(about: str, state: str) -> dict[str, Any]:
    return {"parent_header": {"msg_id": about} if about else {}, "content": {"execution_state": state}}


class Client(kernels._Client):
    """Whose kernel answers what it is told, and publishes these messages; None: nothing comes."""

    def __init__(self, replies: Iterable[str | None], words: Iterable[dict[str, Any] | None], lives: int = 9) -> None:
        self.replies, self.words, self.lives = iter(replies), iter(words), lives

    async def kernel_info(self, reply: bool = False, timeout: float | None = None) -> dict[str, Any]:  # type: ignore[override]
        assert reply and timeout == 1.0
        if (about := next(self.replies)) is None:
            raise TimeoutError
        return {"parent_header": {"msg_id": about}}

    async def get_iopub_msg(self, timeout: float) -> dict[str, Any]:
        assert timeout == 1.0
        if (word := next(self.words)) is None:
            raise Empty
        return word

    async def is_alive(self) -> bool:
        self.lives -= 1
        return self.lives >= 0


def test_a_kernel_is_ready_when_it_publishes_that_it_is_idle_again() -> None:
    words = [published("", "starting"), published("a", "idle"), published("b", "busy"), published("b", "idle")]
    client = Client(["b"], words)
    asyncio.run(client.wait_for_ready(10))
    assert list(client.words) == [], "the last word about this very request"


def test_it_is_asked_again_when_nothing_comes() -> None:
    # No reply; a reply without a word, because the client was not yet heard of; then both.
    client = Client([None, "b", "c", "never"], [None, published("c", "idle")])
    asyncio.run(client.wait_for_ready())
    assert list(client.replies) == ["never"]


def test_a_dead_kernel_and_a_silent_one_are_told() -> None:
    with pytest.raises(RuntimeError, match="died before it answered"):
        asyncio.run(Client([None] * 3, [], lives=2).wait_for_ready(60))
    with pytest.raises(RuntimeError, match="did not answer in 0 s"):
        asyncio.run(Client([None] * 3, []).wait_for_ready(0))

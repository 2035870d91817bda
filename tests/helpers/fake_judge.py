"""A test helper: an OpenAI-compatible endpoint on loopback whose verdicts are known."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_ANSWERS = re.compile(r"\[Answer A\]\n(.*)\n\[End of answer A\]\n\n\[Answer B\]\n(.*)\n\[End of answer B\]", re.DOTALL)


@dataclass
class FakeJudge:
    """Where it listens, and what it was sent: one JSON document and one key per request."""

    url: str
    asked: list[dict[str, object]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)


def longer(a: str, b: str) -> str:
    """The verdict of a judge that likes long answers."""
    return "[[C]]" if len(a) == len(b) else "[[A]]" if len(a) > len(b) else "[[B]]"


@contextmanager
def fake_judge(verdict: Callable[[str, str], str] = longer, fails: Iterable[int] = ()) -> Iterator[FakeJudge]:
    """Serve until the block ends; ``fails`` gives status codes for the first requests, 200 for a good one."""
    judge = FakeJudge("")
    statuses = iter(fails)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            document = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            judge.asked.append(document)
            judge.keys.append(self.headers["Authorization"])
            status = 200 if self.path == "/v1/chat/completions" else 404
            status = next(statuses, status)
            match = _ANSWERS.search(document["messages"][-1]["content"])
            assert match is not None
            reply = {"choices": [{"message": {"content": verdict(match[1], match[2])}}]}
            body = json.dumps(reply if status == 200 else {"error": "no"}).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    judge.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield judge
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

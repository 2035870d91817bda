"""A hub on this machine: folders with files, served as the Hugging Face hub serves them.

Only what :mod:`huggingface_hub` asks for: what a repository is, its files, and their content. Revisions are folders.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import unquote

import huggingface_hub.constants
import pytest


@dataclass
class Hub:
    """What it serves, and what it was asked for."""

    url: str = ""
    #: repository -> revision -> the commit that it is now
    revisions: dict[str, dict[str, str]] = field(default_factory=dict)
    #: (repository, commit) -> folder
    folders: dict[tuple[str, str], Path] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    requests: list[str] = field(default_factory=list)

    def add(self, repository: str, folder: Path, revision: str = "main") -> str:
        """Serve ``folder`` as ``revision`` of ``repository``; returns its commit, which follows from the content.

        A model is ORG/NAME, a data set datasets/ORG/NAME.
        """
        whole = hashlib.sha1(usedforsecurity=False)
        for path in sorted(folder.iterdir()):
            whole.update(path.name.encode() + path.read_bytes())
        commit = whole.hexdigest()
        self.revisions.setdefault(repository, {}).update({revision: commit, commit: commit})
        self.folders[repository, commit] = folder
        return commit


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """Nothing on the console where a client goes away before its answer."""


@contextmanager
def serve() -> Iterator[Hub]:
    """A hub without repositories, on a port of its own."""
    hub = Hub()

    class Handler(_Handler):
        pass

    Handler.hub = hub
    server = _Server(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


def point_to(url: str, cache: Path, monkeypatch: pytest.MonkeyPatch, *, offline: bool = False) -> None:
    """Have this process ask the hub at ``url`` and keep what it gives in ``cache``."""
    constants = huggingface_hub.constants
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on the console."""

    def _answer(self) -> None:
        path = unquote(self.path.partition("?")[0]).strip("/")
        self.hub.requests.append(f"{self.command} {path}")
        if path.startswith("api/"):
            kind, organisation, name, *rest = path.removeprefix("api/").split("/")
            what, revision = (rest[0], "/".join(rest[1:])) if rest else ("revision", "main")
            self._describe(
                f"{organisation}/{name}" if kind == "models" else f"{kind}/{organisation}/{name}", what, revision
            )
        else:
            repository, _, place = path.partition("/resolve/")
            revision, _, file = place.partition("/")
            self._file(repository, revision, file)

    def _describe(self, repository: str, what: str, revision: str) -> None:
        commit = self._commit(repository, revision)
        if commit is None:
            return
        files = sorted(path for path in self.hub.folders[repository, commit].iterdir())
        if what == "tree":
            entries = [
                {"type": "file", "path": path.name, "size": path.stat().st_size, "oid": _digest(path)} for path in files
            ]
            self._send(200, json.dumps(entries).encode())
        else:
            siblings = [{"rfilename": path.name} for path in files]
            document = {"_id": "0", "id": repository, "modelId": repository, "sha": commit, "siblings": siblings}
            self._send(200, json.dumps({**document, "tags": [], "downloads": 0, "likes": 0, "private": False}).encode())

    def _file(self, repository: str, revision: str, name: str) -> None:
        commit = self._commit(repository, revision)
        if commit is None:
            return
        if repository in self.hub.gated:
            self._send(403, b"", {"X-Error-Code": "GatedRepo", "X-Error-Message": "ask first"})
            return
        path = self.hub.folders[repository, commit] / name
        if not path.is_file():
            self._send(404, b"", {"X-Error-Code": "EntryNotFound"})
            return
        self._send(200, path.read_bytes(), {"X-Repo-Commit": commit, "ETag": f'"{_digest(path)}"'})

    def _commit(self, repository: str, revision: str) -> str | None:
        """The commit of a revision; None after an answer that there is none."""
        known = self.hub.revisions.get(repository)
        if known is None:
            self._send(404, b"", {"X-Error-Code": "RepoNotFound"})
        elif revision not in known:
            self._send(404, b"", {"X-Error-Code": "RevisionNotFound"})
        return (known or {}).get(revision)

    def _send(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)


def _digest(path: Path) -> str:
    """Git's name for the content, which the real hub gives to a small file."""
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0%b" % (len(content), content), usedforsecurity=False).hexdigest()

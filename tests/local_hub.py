"""A hub on this machine: the few routes of huggingface.co that pushing and pulling a model takes, over repositories in memory."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_of_the_owner"
READER = "hf_of_a_reader"


@dataclass
class Repository:
    """Files by branch."""

    private: bool = False
    gated: bool = False
    branches: dict[str, dict[str, bytes]] = field(default_factory=lambda: {"main": {".gitattributes": b""}})

    def revision(self, name: str) -> dict[str, bytes] | None:
        """The files of a branch or of a commit, which is known by the hash of its files."""
        return next((files for branch, files in self.branches.items() if name in (branch, commit(files))), None)


@dataclass
class LocalHub:
    """What a server on this machine holds, and what it was asked."""

    endpoint: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    broken: bool = False

    def put(self, repo: str, files: dict[str, bytes], **kind: bool) -> None:
        """Makes a repository of these files."""
        self.repositories[repo] = Repository(**kind, branches={"main": {".gitattributes": b"", **files}})


def commit(files: dict[str, bytes]) -> str:
    """The name of a commit."""
    return hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()


@contextmanager
def serving() -> Iterator[LocalHub]:
    """A hub that is asked over HTTP while this lasts."""
    hub = LocalHub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (_Handler,), {"hub": hub}))
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: LocalHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: object) -> None:
        pass

    def do_GET(self) -> None:
        self._begin()
        repo, rest = self._place()
        if (repository := self._readable(repo)) is None:
            return
        kind, revision, name = rest[0] if rest else "", rest[1] if len(rest) > 1 else "main", "/".join(rest[2:])
        if (files := repository.revision(revision)) is None:
            self._refuse(404, "RevisionNotFound")
        elif kind == "resolve":
            self._file(files, name)
        elif kind == "tree":
            self._json([{"type": "file", "path": path, "size": len(x), "oid": _blob(x)} for path, x in files.items()])
        else:
            siblings = [{"rfilename": path} for path in files]
            self._json({"id": repo, "sha": commit(files), "private": repository.private, "siblings": siblings, "tags": [], "downloads": 0})

    do_HEAD = do_GET  # noqa: N815 (the way of http.server)

    def do_POST(self) -> None:
        body = self._begin()
        if self.path == "/api/validate-yaml":
            content = json.loads(body)["content"]
            wrong = "license: nonsense" in content
            self._json({"errors": [{"message": '"license" must be one of [...]'}] if wrong else [], "warnings": []}, 400 if wrong else 200)
        elif self._token() != TOKEN:
            self._refuse(403 if self._token() else 401, "")
        elif self.path == "/api/repos/create":
            asked = json.loads(body)
            repo = f"{asked.get('organization') or 'user'}/{asked['name']}"
            self.hub.repositories[repo] = Repository(private=asked.get("visibility") == "private" or bool(asked.get("private")))
            self._json({"url": f"{self.hub.endpoint}/{repo}"})
        else:
            self._change(body)

    def _change(self, body: bytes) -> None:
        repo, (kind, revision, *_) = self._place()
        repository = self.hub.repositories[repo]
        if kind == "branch":
            repository.branches.setdefault(revision, dict(repository.branches["main"]))
            self._json({})
        elif kind == "preupload":
            files = [{"path": one["path"], "uploadMode": "regular", "shouldIgnore": False} for one in json.loads(body)["files"]]
            self._json({"files": files})
        else:
            assert kind == "commit"
            files = repository.branches[revision]
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            self._json({"commitUrl": f"{self.hub.endpoint}/{repo}/commit/{commit(files)}", "commitOid": commit(files), "success": True})

    # What requests share

    def _begin(self) -> bytes:
        self.hub.asked.append(f"{self.command} {self.path}")
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _token(self) -> str:
        return (self.headers.get("Authorization") or "").removeprefix("Bearer ")

    def _place(self) -> tuple[str, list[str]]:
        """The repository, and what of it is asked for."""
        parts = [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]
        parts = parts[2:] if parts[:2] == ["api", "models"] else parts
        return "/".join(parts[:2]), parts[2:]

    def _readable(self, repo: str) -> Repository | None:
        repository = self.hub.repositories.get(repo)
        if self.hub.broken:
            self._refuse(500, "")
        elif self._token() not in ("", TOKEN, READER):
            self._send(401, b"", {"X-Error-Message": "Invalid credentials in Authorization header"})
        elif repository is None or (repository.private and self._token() != TOKEN):
            self._refuse(404 if self._token() else 401, "RepoNotFound")
        elif repository.gated and self._token() != TOKEN:
            self._refuse(403, "GatedRepo")
        else:
            return repository
        return None

    def _file(self, files: dict[str, bytes], name: str) -> None:
        if name not in files:
            self._refuse(404, "EntryNotFound")
            return
        self._send(200, files[name], {"ETag": f'"{_blob(files[name])}"', "X-Repo-Commit": commit(files)})

    def _json(self, content: Any, status: int = 200) -> None:
        self._send(status, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def _refuse(self, status: int, code: str) -> None:
        self._send(status, b"", {"X-Error-Code": code} if code else {})

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _blob(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()

"""A stand-in for the Hub's file API on loopback, as far as `huggingface_hub` asks for it."""

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

import pytest

TOKEN = "hf_of_the_test"
_LARGE = ".safetensors"
_UNKNOWN = "Invalid credentials in Authorization header"


@dataclass
class Hub:
    """Repositories by "user/name": files by path; every commit is kept.

    Attributes:
        url: Of the server.
        commits: Per repository its states, the last one is `main`.
        gated: Repositories whose files ask for terms to be accepted.
        asked: Method and path of every request.
        uploaded: Large files by their SHA-256.
    """

    url: str = ""
    commits: dict[str, list[dict[str, bytes]]] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)
    uploaded: dict[str, bytes] = field(default_factory=dict)

    def at(self, repository: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        """Commit and files of a revision."""
        states = self.commits[repository]
        names = [f"{number:040x}" for number in range(len(states))]
        if revision == "main":
            return names[-1], states[-1]
        return (revision, states[names.index(revision)]) if revision in names else None


@contextmanager
def stand_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Iterator[Hub]:
    """The Hub as `huggingface_hub` sees it within the context; its cache is in `tmp_path`."""
    hub = Hub()

    class Handler(_Handler):
        served = hub

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    constants = "huggingface_hub.constants"
    monkeypatch.setattr(f"{constants}.ENDPOINT", hub.url)
    monkeypatch.setattr(
        f"{constants}.HUGGINGFACE_CO_URL_TEMPLATE",
        hub.url + "/{repo_id}/resolve/{revision}/{filename}",
    )
    monkeypatch.setattr(f"{constants}.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(f"{constants}.HF_HUB_OFFLINE", False)
    # Its storage servers speak a protocol of their own; LFS is what it falls back to.
    monkeypatch.setattr(f"{constants}.HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    served: Hub

    def log_message(self, *_: Any) -> None:
        """Nothing is printed."""

    def do_POST(self) -> None:
        content, path = self._read()
        if self._is_unknown():
            return self._refuse(401, "", _UNKNOWN)
        if path == "/api/repos/create":
            asked = json.loads(content)
            repository = f"{asked['organization']}/{asked['name']}"
            status = 409 if repository in self.served.commits else 200
            self.served.commits.setdefault(repository, [{}])
            return self._answer({"url": f"{self.served.url}/{repository}"}, status)
        if path.endswith("/preupload/main"):
            return self._answer({"files": [_mode(f["path"]) for f in json.loads(content)["files"]]})
        if path.endswith("/info/lfs/objects/batch"):
            objects = json.loads(content)["objects"]
            return self._answer({"objects": [self._place(each) for each in objects]})
        if path.endswith("/commit/main"):
            return self._commit("/".join(path.split("/")[3:5]), content)
        if path == "/api/validate-yaml":
            return self._answer({"errors": [], "warnings": []})
        return self._refuse(404, "", path)

    def do_PUT(self) -> None:
        content, path = self._read()
        assert hashlib.sha256(content).hexdigest() == path.rpartition("/")[2]
        self.served.uploaded[path.rpartition("/")[2]] = content
        self._send(200, b"")

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        _, path = self._read()
        parts = path.strip("/").split("/")
        api = parts[:2] == ["api", "models"]
        repository = "/".join(parts[2:4] if api else parts[:2])
        if self._is_unknown():
            return self._refuse(401, "", _UNKNOWN)
        if repository not in self.served.commits:
            return self._refuse(401, "RepoNotFound", "Repository not found")
        kind, revision, *rest = (parts[4:] if api else parts[2:]) or ["revision", "main"]
        if (found := self.served.at(repository, revision)) is None:
            return self._refuse(404, "RevisionNotFound", "Invalid rev id")
        commit, files = found
        if kind == "revision":
            return self._answer({"id": repository, "sha": commit, "siblings": []})
        if kind == "tree":
            return self._answer([_entry(path, content) for path, content in files.items()])
        assert kind == "resolve"
        if repository in self.served.gated:
            return self._refuse(403, "GatedRepo", "Access to this repository is restricted")
        content = files["/".join(rest)]
        headers = {"ETag": f'"{_digest(content)}"', "X-Repo-Commit": commit}
        return self._send(200, content, headers)

    def _is_unknown(self) -> bool:
        return self.headers.get("Authorization") != f"Bearer {TOKEN}"

    def _place(self, asked: dict[str, Any]) -> dict[str, Any]:
        href = f"{self.served.url}/upload/{asked['oid']}"
        return {**asked, "authenticated": True, "actions": {"upload": {"href": href}}}

    def _commit(self, repository: str, content: bytes) -> None:
        files = dict(self.served.commits[repository][-1])
        for line in map(json.loads, content.splitlines()):
            kind, value = line["key"], line["value"]
            if kind == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif kind == "lfsFile":
                files[value["path"]] = self.served.uploaded[value["oid"]]
            elif kind == "deletedFile":
                del files[value["path"]]
        self.served.commits[repository].append(files)
        commit, _ = self.served.at(repository, "main") or ("", None)
        url = f"{self.served.url}/{repository}/commit/{commit}"
        self._answer({"commitUrl": url, "commitOid": commit, "success": True})

    def _read(self) -> tuple[bytes, str]:
        path = unquote(urlsplit(self.path).path)
        self.served.asked.append(f"{self.command} {path}")
        return self.rfile.read(int(self.headers.get("Content-Length") or 0)), path

    def _answer(self, values: Any, status: int = 200) -> None:
        self._send(status, json.dumps(values).encode(), {"Content-Type": "application/json"})

    def _refuse(self, status: int, code: str, message: str) -> None:
        self._send(status, b"", {"X-Error-Code": code, "X-Error-Message": message})

    def _send(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _mode(path: str) -> dict[str, Any]:
    mode = "lfs" if path.endswith(_LARGE) else "regular"
    return {"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": None}


def _entry(path: str, content: bytes) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "type": "file",
        "path": path,
        "size": len(content),
        "oid": _digest(content),
    }
    if path.endswith(_LARGE):
        digest = hashlib.sha256(content).hexdigest()
        entry["lfs"] = {"oid": digest, "size": len(content), "pointerSize": 130}
    return entry


def _digest(content: bytes) -> str:
    return hashlib.sha1(content, usedforsecurity=False).hexdigest()

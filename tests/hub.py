"""A small Hub on 127.0.0.1: enough of its HTTP interface for huggingface_hub to list a repository, download from it and commit
small files to it."""

import base64
import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """`files`: repository id -> path -> bytes, all at COMMIT. `requests`: what was asked so far, as "METHOD path".
    `token`: who has it may write. `refusal`: status and error code of every answer to GET and HEAD, in place of the files."""

    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    url: str = ""
    token: str = "hf_test"
    refusal: tuple[int, str] | None = None


@contextlib.contextmanager
def running_hub(hub: Hub) -> Iterator[Hub]:
    """Serve `hub` on a free port and set its `url`."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub

    def log_message(self, *args):
        pass

    def do_HEAD(self):
        self._answer()

    def do_GET(self):
        self._answer()

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"POST {path}")
        if path == "/api/validate-yaml":
            return self._json({"errors": [], "warnings": []})
        if self.headers.get("Authorization") != f"Bearer {self.hub.token}":
            return self._send(401, b"Invalid username or password.")
        if path == "/api/repos/create":
            asked = json.loads(body)
            repo = f"{asked['organization']}/{asked['name']}" if asked.get("organization") else asked["name"]
            self.hub.files.setdefault(repo, {})
            return self._json({"url": f"{self.hub.url}/{repo}", "id": repo})
        of = path.removeprefix("/api/models/").removeprefix("/api/datasets/")
        repo, _, what = of.rpartition("/")[0].rpartition("/")
        if what == "preupload":
            names = [file["path"] for file in json.loads(body)["files"]]
            return self._json({"files": [{"path": n, "uploadMode": "regular", "shouldIgnore": False} for n in names]})
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                self.hub.files[repo][line["value"]["path"]] = base64.b64decode(line["value"]["content"])
        return self._json({"success": True, "commitOid": COMMIT, "commitUrl": f"{self.hub.url}/{repo}/commit/{COMMIT}"})

    def _json(self, value):
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _answer(self):
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        if self.hub.refusal:
            status, code = self.hub.refusal
            return self._send(status, b"refused", {"X-Error-Code": code})
        if path in ("", "/"):
            return self._send(200, b"hub")
        for repo, files in self.hub.files.items():
            if path.startswith(f"/api/models/{repo}/"):
                return self._api(repo, path.removeprefix(f"/api/models/{repo}/").split("/")[:2])
            if path.startswith(f"/{repo}/resolve/"):
                revision, _, name = path.removeprefix(f"/{repo}/resolve/").partition("/")
                return self._file(files, revision, name)
        return self._send(404, b"Repository Not Found", {"X-Error-Code": "RepoNotFound"})

    def _api(self, repo: str, asked: list[str]):
        if asked[1] not in ("main", COMMIT):
            return self._send(404, b"Revision Not Found", {"X-Error-Code": "RevisionNotFound"})
        files = self.hub.files[repo]
        if asked[0] == "tree":
            found = [{"type": "file", "path": name, "size": len(data), "oid": _etag(data)} for name, data in files.items()]
        else:
            found = {"id": repo, "sha": COMMIT, "siblings": [{"rfilename": name} for name in files]}
        return self._send(200, json.dumps(found).encode(), {"Content-Type": "application/json"})

    def _file(self, files: dict[str, bytes], revision: str, name: str):
        if name not in files or revision not in ("main", COMMIT):
            return self._send(404, b"Entry Not Found", {"X-Error-Code": "EntryNotFound"})
        return self._send(200, files[name], {"ETag": f'"{_etag(files[name])}"', "X-Repo-Commit": COMMIT})

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None):
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _etag(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()

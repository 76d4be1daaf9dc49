"""A server that speaks as much of the Hugging Face hub's protocol as reading and writing models takes."""

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

GATED = "owner/gated"
TAG = "v1"
WRITE_TOKEN = "hf_may_write"


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class _Hub(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    repositories: dict[str, Path] = {}  # noqa: RUF012
    new: Path
    """Where repositories are made."""

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_POST(self) -> None:
        """Making a repository in the folder `new`, and writing small files to it."""
        sent = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers["Authorization"] != f"Bearer {WRITE_TOKEN}":
            return self._refuse(401, "Unauthorized", "Invalid credentials")
        parts = self.path.partition("?")[0].strip("/").split("/")
        if parts[1:] == ["repos", "create"]:
            asked = json.loads(sent)
            name = "/".join(filter(None, (asked.get("organization"), asked["name"])))
            self.repositories.setdefault(name, self.new / name).mkdir(parents=True, exist_ok=True)
            return self._send_json({"url": f"http://{self.headers['Host']}/{name}", "name": name})
        if parts[1:] == ["validate-yaml"]:
            return self._send_json({"errors": [], "warnings": []})
        folder = self.repositories["/".join(parts[2:4])]
        if parts[4] == "preupload":
            files = [each["path"] for each in json.loads(sent)["files"]]
            modes = [{"path": path, "uploadMode": "regular", "shouldIgnore": False} for path in files]
            return self._send_json({"files": modes})
        for line in map(json.loads, sent.splitlines()):
            if line["key"] == "file":
                (folder / line["value"]["path"]).write_bytes(base64.b64decode(line["value"]["content"]))
        address = f"http://{self.headers['Host']}/{'/'.join(parts[2:4])}/commit/{'0' * 40}"
        return self._send_json({"commitUrl": address, "commitOid": "0" * 40, "success": True})

    def _send_json(self, content: object) -> None:
        self._send(json.dumps(content).encode(), {"Content-Type": "application/json"}, True)

    def _answer(self, body: bool) -> None:
        path = self.path.partition("?")[0].strip("/").split("/")
        api = path[:2] == ["api", "models"]
        name = "/".join(path[2:4] if api else path[:2])
        rest = path[4:] if api else path[2:]
        if name == GATED:
            return self._refuse(403, "GatedRepo", f"Access to model {name} is restricted")
        if name not in self.repositories:
            return self._refuse(401, "RepoNotFound", "Repository not found")
        folder = self.repositories[name]
        commit = _digest(str(folder).encode())[:40]
        if (rest[1] if len(rest) > 1 else "main") not in ("main", TAG, commit):
            return self._refuse(404, "RevisionNotFound", "Invalid rev id")
        files = sorted(file for file in folder.rglob("*") if file.is_file())
        if api and rest[:1] == ["tree"]:
            return self._send(json.dumps([self._entry(folder, file) for file in files]).encode(), {}, body)
        if api:
            names = [{"rfilename": str(file.relative_to(folder))} for file in files]
            info = {"id": name, "modelId": name, "sha": commit, "siblings": names, "private": False}
            return self._send(json.dumps(info).encode(), {}, body)
        file = folder / "/".join(rest[2:])
        if not file.is_file():
            return self._refuse(404, "EntryNotFound", "Entry not found")
        data = file.read_bytes()
        return self._send(data, {"X-Repo-Commit": commit, "ETag": f'"{_digest(data)}"'}, body)

    def _entry(self, folder: Path, file: Path) -> dict[str, object]:
        oid = _digest(file.read_bytes())[:40]
        return {
            "type": "file",
            "oid": oid,
            "size": file.stat().st_size,
            "path": str(file.relative_to(folder)),
        }

    def _refuse(self, status: int, code: str, message: str) -> None:
        self._send(b"", {"X-Error-Code": code, "X-Error-Message": message}, False, status)

    def _send(self, data: bytes, headers: dict[str, str], body: bool, status: int = 200) -> None:
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(data))}).items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(data)


@contextmanager
def serve(repositories: dict[str, Path], new: Path | None = None) -> Iterator[str]:
    """Serve folders as repositories of the names given; yields the value for HF_ENDPOINT.

    Others can be made below the folder `new`.
    """
    handler = type("Hub", (_Hub,), {"repositories": repositories, "new": new})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()

"""A small hub of models with the HTTP interface of Hugging Face's, on this machine alone."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlparse

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class LoopbackHub:
    """Serves the files of one repository; a context manager.

    Args:
        repo: `OWNER/NAME`.
        files: name -> content; those that end in `.onnx` or hold its data are large files, which
            go by their SHA-256.
    Attributes:
        asked: "METHOD path" of every request.
        wrong: name -> content that is sent instead.
        cut: name -> bytes after which the line breaks.
        slow_s: seconds that each megabyte takes.
    """

    def __init__(self, repo, files):
        self.repo, self.files = repo, files
        self.asked, self.wrong, self.cut, self.agents = [], {}, {}, []
        self.slow_s = 0.0
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_HEAD(self):
                self.answer(with_body=False)

            def do_GET(self):
                self.answer(with_body=True)

            def answer(self, *, with_body):
                path = unquote(urlparse(self.path).path)
                hub.asked.append(f"{self.command} {path}")
                hub.agents.append(self.headers.get("user-agent", ""))
                if path.startswith(f"/api/models/{hub.repo}"):
                    body = json.dumps(hub.describe()).encode()
                    self.send({"Content-Type": "application/json"}, body, with_body)
                elif path.startswith(f"/{hub.repo}/resolve/"):
                    name = path.split("/resolve/", 1)[1].split("/", 1)[1]
                    if name in hub.files:
                        self.send_file(name, with_body)
                    else:
                        self.fail("EntryNotFound")
                else:
                    self.fail("RepoNotFound")

            def send_file(self, name, with_body):
                content = hub.files[name]
                digest = hub.digest(name)
                headers = {
                    "X-Repo-Commit": COMMIT,
                    "ETag": f'"{digest}"',
                    "X-Linked-ETag": f'"{digest}"',
                    "X-Linked-Size": str(len(content)),
                    "Accept-Ranges": "none",
                }
                self.send(headers, hub.wrong.get(name, content), with_body, hub.cut.get(name))

            def send(self, headers, body, with_body, cut=None):
                self.send_response(200)
                for key, value in headers.items():
                    self.send_header(key, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                body = body[:cut] if with_body else b""
                with contextlib.suppress(OSError):  # Whoever asked may be gone.
                    for start in range(0, len(body), 1 << 20):
                        self.wfile.write(body[start : start + (1 << 20)])
                        time.sleep(hub.slow_s)
                if cut is not None:
                    self.close_connection = True

            def fail(self, code):
                self.send_response(404)
                self.send_header("X-Error-Code", code)
                self.send_header("Content-Length", "0")
                self.end_headers()

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_port}"

    def digest(self, name):
        content = self.files[name]
        is_large = ".onnx" in name
        return (hashlib.sha256 if is_large else hashlib.sha1)(content).hexdigest()

    def describe(self):
        siblings = [{"rfilename": name} for name in self.files]
        return {"_id": "0", "id": self.repo, "modelId": self.repo, "sha": COMMIT,
                "siblings": siblings, "tags": [], "private": False, "downloads": 0}  # fmt: skip

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()

"""A registry of images with one image in it, slow enough for a pull to be watched."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import os
import tarfile
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from unittest import TestCase

_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
_CHUNKS = 20


def _digest(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def _layer(size: int) -> tuple[bytes, bytes]:
    """Make a layer with one file nothing can compress; give it packed, and not."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        entry = tarfile.TarInfo("filling")
        entry.size = size
        tar.addfile(entry, io.BytesIO(os.urandom(size)))
    return gzip.compress(raw.getvalue(), 1), raw.getvalue()


class SmallRegistry:
    """
    Serves ``NAME:1`` on 127.0.0.1 while the test lasts; engines trust that address without TLS.

    :param took_s: how long its one layer takes.
    """

    def __init__(self, case: TestCase, name: str, *, size: int, took_s: float) -> None:
        packed, raw = _layer(size)
        config = json.dumps(
            {
                "architecture": "amd64",
                "os": "linux",
                "config": {},
                "rootfs": {"type": "layers", "diff_ids": [_digest(raw)]},
            }
        ).encode()
        manifest = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": _MANIFEST,
                "config": {
                    "mediaType": "application/vnd.docker.container.image.v1+json",
                    "size": len(config),
                    "digest": _digest(config),
                },
                "layers": [
                    {
                        "mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip",
                        "size": len(packed),
                        "digest": _digest(packed),
                    }
                ],
            }
        ).encode()
        self.digest = _digest(manifest)
        blobs = {_digest(one): one for one in (config, packed)}
        paths = {f"/v2/{name}/manifests/{tag}": manifest for tag in ("1", self.digest)}
        paths |= {f"/v2/{name}/blobs/{digest}": blob for digest, blob in blobs.items()}

        class Answers(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                """Answer."""
                self._answer(body=True)

            def do_HEAD(self) -> None:
                """Answer without the body."""
                self._answer(body=False)

            def _answer(self, *, body: bool) -> None:
                found = b"{}" if self.path == "/v2/" else paths.get(self.path)
                self.send_response(404 if found is None else 200)
                content = found or b"{}"
                self.send_header("Content-Length", str(len(content)))
                self.send_header("Docker-Content-Digest", _digest(content))
                manifests = "/manifests/" in self.path
                self.send_header("Content-Type", _MANIFEST if manifests else "application/json")
                self.end_headers()
                if not body:
                    return
                step = max(1, len(content) // _CHUNKS)
                with contextlib.suppress(OSError):  # It asks once more elsewhere.
                    for start in range(0, len(content), step):
                        self.wfile.write(content[start : start + step])
                        if content is packed:
                            time.sleep(took_s / _CHUNKS)  # noqa: TID251  # a slow line

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
        self.image = f"127.0.0.1:{self._server.server_address[1]}/{name}:1"
        thread = Thread(target=self._server.serve_forever, daemon=True)
        thread.start()
        case.addCleanup(thread.join, 10)
        case.addCleanup(self._server.server_close)
        case.addCleanup(self._server.shutdown)

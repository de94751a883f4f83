"""The local server: the viewer's page and its blocks, to this machine only."""

from __future__ import annotations

import json
import secrets
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

from otoscope.errors import OtoscopeError, ResultError
from otoscope.reporting.viewer.exact import ExactMaps
from otoscope.reporting.viewer.page import live_page
from otoscope.reporting.viewer.scene import TILE, Scene

POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""What a page may load: nothing but blocks from the server that it came from."""


class ViewServer(ThreadingHTTPServer):
    """Gives out one scene on 127.0.0.1, under an address that cannot be guessed.

    Args:
        scene: what is shown.
        exact: the exact maps of each model.
        port: where it listens; 0 for any that is free.

    Raises:
        ResultError: the port is taken or may not be used.
    """

    daemon_threads = True

    def __init__(self, scene: Scene, exact: list[ExactMaps], port: int = 0) -> None:
        self.exact = exact
        self.blocks = scene.blocks()
        self.page = live_page(scene, memory_of(scene, exact)).encode()
        self.key = secrets.token_urlsafe(12)
        try:
            super().__init__(("127.0.0.1", port), partial(_Handler))
        except (OSError, OverflowError) as error:
            raise ResultError(
                f"The viewer cannot listen on port {port} of 127.0.0.1: {getattr(error, 'strerror', None) or error}",
                "Name another port from 1024 to 65535, or leave --port out for one that is free.",
            ) from error

    @property
    def address(self) -> str:
        """Where a browser finds the page."""
        return f"http://127.0.0.1:{self.server_port}/{self.key}/"

    @property
    def hosts(self) -> set[str]:
        """What a browser that was led here under another name does not send."""
        return {f"{name}:{self.server_port}" for name in ("127.0.0.1", "localhost")}

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that goes away in the middle of an answer is no fault."""


def memory_of(scene: Scene, exact: list[ExactMaps]) -> str:
    """What the server keeps in memory beside the models, in words."""
    held = sum(side.bytes for side in scene.sides) + len(scene.samples) * 4
    most = sum(maps.most_bytes for maps in exact)
    return f"In memory beside the model: {_megabytes(held)} of overviews, and at most {_megabytes(most)} of exact maps"


def _megabytes(count: int) -> str:
    return f"{count / 1e6:.{0 if count >= 10_000_000 else 1}f} MB"


class _Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD of the page, its blocks, and tiles m0/tile/LAYER.HEAD/ROW/COLUMN of exact maps."""

    server: ViewServer
    protocol_version = "HTTP/1.1"
    timeout = 60

    def do_GET(self) -> None:
        """The page, a block, or an error as JSON with its problem and its cure."""
        if self.headers.get("Host") not in self.server.hosts:
            self._refuse(HTTPStatus.FORBIDDEN, "This server answers to 127.0.0.1 only")
            return
        start = f"/{self.server.key}/"
        path = self.path.partition("?")[0]
        if not path.startswith(start):
            self._refuse(HTTPStatus.NOT_FOUND, "There is nothing at this address")
            return
        name = path.removeprefix(start)
        if not name:
            self._answer(self.server.page, "text/html; charset=utf-8")
            return
        try:
            block = self.server.blocks[name]() if name in self.server.blocks else self._tile(name)
        except OtoscopeError as error:
            self._refuse(HTTPStatus.UNPROCESSABLE_ENTITY, error.problem, error.cure)
        except (LookupError, ValueError):
            self._refuse(HTTPStatus.NOT_FOUND, f"There is no block {name}")
        else:
            self._answer(block, "application/octet-stream")

    do_HEAD = do_GET  # noqa: N815 - the name that http.server looks up

    def _tile(self, name: str) -> bytes:
        """Rows and columns of an exact map, float32."""
        side, kind, place, *corner = name.split("/")
        if kind != "tile" or not side.startswith("m"):
            raise LookupError(name)
        maps = self.server.exact[_whole(side[1:])]
        layer, head = map(_whole, place.split("."))
        row, column = (TILE * _whole(k) for k in corner)
        names = maps.model.anatomy.head_names[layer - 1] if layer else ()
        position = names.index(head)  # before the layer is computed for nothing
        tile = maps.layer(layer)[position, row : row + TILE, column : column + TILE]
        if not tile.size:
            raise LookupError(name)
        return np.ascontiguousarray(tile, "<f4").tobytes()

    def _refuse(self, status: HTTPStatus, problem: str, cure: str = "") -> None:
        body = json.dumps({"problem": problem, "cure": cure}).encode()
        self._answer(body, "application/json", status)

    def _answer(self, body: bytes, kind: str, status: HTTPStatus = HTTPStatus.OK) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Content-Security-Policy", POLICY)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Requests are not logged."""


def _whole(text: str) -> int:
    """A whole number that is not negative, in digits alone.

    Raises:
        ValueError: it is not one.
    """
    if not (text.isascii() and text.isdigit()):
        raise ValueError(text)
    return int(text)

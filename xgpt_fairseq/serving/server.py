"""The server of `xgpt-caption --serve`, for the browser on the same machine.

    GET /                    the page
    POST /caption?beam=2     a photo's bytes → its captions as JSON (see `PhotoCaptioner.caption`), or {"error": "…"}

Web pages of others can reach a server on this machine, too, through the browser. So a request must name this server as
its host (else it may come through a DNS name that was pointed here), and its origin, if it has one, must be this page.
"""

from __future__ import annotations

import io
import json
import signal
import socket
import socketserver
import sys
import threading
import time
import traceback
import urllib.parse
from collections.abc import Callable, Mapping
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Final

from xgpt_fairseq.errors import DataError
from xgpt_fairseq.hub_interface import XGPTHubInterface
from xgpt_fairseq.pages.captioning_page import CaptioningPage, render_captioning_page
from xgpt_fairseq.search.generator import SearchOptions
from xgpt_fairseq.serving.limits import (
    BEAMS,
    HOST,
    MAX_CONNECTIONS,
    MAX_FILE_BYTES,
    MAX_PHOTOS,
    MAX_PIXELS,
    SECONDS,
)
from xgpt_fairseq.serving.photo_captioner import PhotoCaptioner, RequestError
from xgpt_fairseq.vision.photo_formats import known_formats

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

Caption = Callable[[bytes, int], Mapping[str, Any]]

ROUTES: Final = {"/": "GET", "/caption": "POST"}

# How long the rest of a refused request is still taken.
_LINGER: Final = 2.0

_NO_CONNECTION: Final = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n"

_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Connection": "close",
}


def serve(captioner: XGPTHubInterface, options: SearchOptions, *, port: int, title: str) -> None:
    """Serve the page until Ctrl-C or SIGTERM, and print its address.

    Args:
        captioner: the model.
        options: of the search; the beam is the one that the page begins with.
        port: 0 is any free one.
        title: title of the page.

    Raises:
        DataError: the model does not caption photos by themselves, the port cannot be used, or a package is missing.
    """
    photos = PhotoCaptioner(captioner, options)
    page = render_captioning_page(
        title=title,
        beams=BEAMS,
        beam=options.beam,
        lenpen=options.lenpen,
        formats=known_formats(),
        max_bytes=MAX_FILE_BYTES,
        max_pixels=MAX_PIXELS,
    )

    def end(*_: object) -> None:
        for number in signals:
            signal.signal(number, signal.default_int_handler)  # a second one does not wait for the photo
        photos.end()

    signals = (signal.SIGINT, signal.SIGTERM)
    with CaptionServer(port, page, photos.caption, beam=options.beam) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for number in signals:
            signal.signal(number, end)
        print(f"captions photos at {server.url} (Ctrl-C ends it)", flush=True)
        photos.run()
        server.shutdown()


class CaptionServer(ThreadingHTTPServer):
    """The server; `serve_forever` runs it, one thread per connection.

    Args:
        port: 0 is any free one.
        page: what is served at `/`.
        caption: captions the bytes of a photo with a beam; called from several threads.
        beam: of requests that name none.
        seconds: `limits.SECONDS`, or less in tests.

    Raises:
        DataError: the port cannot be used.
    """

    daemon_threads = True
    request_queue_size = MAX_CONNECTIONS

    def __init__(
        self, port: int, page: CaptioningPage, caption: Caption, *, beam: int, seconds: float = SECONDS
    ) -> None:
        self.page = page
        self.caption = caption
        self.beam = beam
        self.seconds = seconds
        self.places = threading.BoundedSemaphore(MAX_PHOTOS)
        self._connections = threading.BoundedSemaphore(MAX_CONNECTIONS)
        try:
            super().__init__((HOST, port), _Handler)
        except OSError as error:
            raise DataError(
                f"port {port} of {HOST} cannot be used: {error.strerror}; --port names another, 0 any free one"
            ) from None

    def server_bind(self) -> None:
        socketserver.TCPServer.server_bind(self)  # http.server also asks the network for this machine's name
        self.server_name, self.server_port = HOST, self.server_address[1]

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.server_port}/"

    @property
    def hosts(self) -> frozenset[str]:
        """What a request may name as its host."""
        return frozenset(f"{name}{port}" for name in (HOST, "localhost") for port in ("", f":{self.server_port}"))

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._connections.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            with suppress(OSError):
                request.sendall(_NO_CONNECTION)
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._connections.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that is gone is no error; those of captioning are not among these."""
        if not isinstance(sys.exception(), OSError):
            traceback.print_exc()


class _TimedReader(io.RawIOBase):
    """What a client sends within *seconds* in all. A timeout of the socket alone begins anew with each byte."""

    def __init__(self, connection: socket.socket, seconds: float) -> None:
        self._connection = connection
        self._seconds = seconds
        self.begin()

    def begin(self) -> None:
        """Count the seconds from now."""
        self._end = time.monotonic() + self._seconds

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._connection.settimeout(left)
        return self._connection.recv_into(buffer)


class _Handler(BaseHTTPRequestHandler):
    server: CaptionServer
    protocol_version = "HTTP/1.1"
    default_request_version = "HTTP/1.1"  # of a request that names none, which is then refused as the others are

    def setup(self) -> None:
        super().setup()
        self.rfile.close()
        self.reader = _TimedReader(self.connection, self.server.seconds)
        self.rfile = io.BufferedReader(self.reader)
        self.all_read = False  # of the request

    def answer(self) -> None:
        path, _, query = self.path.partition("?")
        try:
            self._check_source()
            if path not in ROUTES:
                raise RequestError(HTTPStatus.NOT_FOUND, "there is only a page at / here")
            if self.command != ROUTES[path]:
                taken = ROUTES[path]
                raise RequestError(HTTPStatus.METHOD_NOT_ALLOWED, f"{path} takes {taken} alone", {"Allow": taken})
            if path == "/":
                page = self.server.page
                self._send(HTTPStatus.OK, "text/html", page.html, {"Content-Security-Policy": page.policy})
            else:
                self._send(HTTPStatus.OK, "application/json", json.dumps(self._captions(query)))
        except RequestError as error:
            self._refuse(error)

    do_GET = do_POST = do_HEAD = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = answer

    def _check_source(self) -> None:
        hosts = self.headers.get_all("Host", [])
        if len(hosts) != 1 or hosts[0].strip().lower() not in self.server.hosts:
            raise RequestError(HTTPStatus.FORBIDDEN, f"this server answers only as {self.server.url}")
        own = f"http://{hosts[0].strip().lower()}"
        if any(origin.strip().lower() != own for origin in self.headers.get_all("Origin", [])):
            raise RequestError(HTTPStatus.FORBIDDEN, "this server answers only to its own page")

    def _captions(self, query: str) -> Mapping[str, Any]:
        beam, length = self._beam(query), self._length()
        if not self.server.places.acquire(blocking=False):
            raise RequestError(
                HTTPStatus.SERVICE_UNAVAILABLE,
                f"{MAX_PHOTOS} photos are being captioned; try again",
                {"Retry-After": "1"},
            )
        try:
            content = self._body(length)
            try:
                return self.server.caption(content, beam)
            except RequestError:
                raise
            except Exception:
                traceback.print_exc()  # for whoever started the program
                raise RequestError(
                    HTTPStatus.INTERNAL_SERVER_ERROR, "this photo failed; xgpt-caption's terminal says why"
                ) from None
        finally:
            self.server.places.release()

    def _beam(self, query: str) -> int:
        values = urllib.parse.parse_qs(query, keep_blank_values=True).get("beam", [str(self.server.beam)])
        if len(values) == 1 and values[0] in map(str, BEAMS):
            return int(values[0])
        raise RequestError(HTTPStatus.BAD_REQUEST, f"the beam is {BEAMS[0]} to {BEAMS[-1]}")

    def _length(self) -> int:
        values = self.headers.get_all("Content-Length", [])
        if not values or "Transfer-Encoding" in self.headers:
            raise RequestError(HTTPStatus.LENGTH_REQUIRED, "the request needs a Content-Length")
        value = values[0].strip()
        if len(values) > 1 or not (value.isascii() and value.isdigit()):
            raise RequestError(HTTPStatus.BAD_REQUEST, "the Content-Length is no number")
        if len(value) > 18 or int(value) > MAX_FILE_BYTES:  # int() takes no number of thousands of digits
            raise RequestError(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the file has more than {MAX_FILE_BYTES / 1e6:g} MB"
            )
        return int(value)

    def _body(self, length: int) -> bytes:
        if self.headers.get("Expect", "").lower() == "100-continue":
            self.send_response_only(HTTPStatus.CONTINUE)
            self.end_headers()
        self.reader.begin()  # browsers open connections before they need them
        try:
            content = self.rfile.read(length)
        except TimeoutError:
            raise RequestError(
                HTTPStatus.REQUEST_TIMEOUT, f"the photo did not arrive within {self.server.seconds:g} seconds"
            ) from None
        self.all_read = True
        if len(content) < length:
            raise RequestError(HTTPStatus.BAD_REQUEST, "the photo did not arrive as a whole")
        return content

    def handle_expect_100(self) -> bool:
        return True  # not before the request is known to be taken: see `_body`

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """http.server's own errors, of requests that it cannot read; it would answer with HTML and the request."""
        self._refuse(RequestError(HTTPStatus(code), HTTPStatus(code).phrase))

    def _refuse(self, error: RequestError) -> None:
        self._send(error.status, "application/json", json.dumps({"error": error.message}), error.headers)
        if not self.all_read:
            self._take_the_rest()

    def _send(self, status: HTTPStatus, kind: str, text: str, headers: Mapping[str, str] | None = None) -> None:
        content = text.encode("utf-8")
        self.connection.settimeout(self.server.seconds)
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        for name, value in {**_HEADERS, **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _take_the_rest(self) -> None:
        """Read on for a moment: if it were closed now, the connection would be reset, and the answer lost."""
        end = time.monotonic() + _LINGER
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)
            while (left := end - time.monotonic()) > 0:
                self.connection.settimeout(left)
                if not self.connection.recv(1 << 16):
                    return

    def version_string(self) -> str:
        return "xgpt-caption"

    def log_message(self, format: str, *arguments: Any) -> None:
        """Requests are not logged."""

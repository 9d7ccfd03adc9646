"""The server: what it answers, whom, and how long it waits. Photos are captioned by a stand-in."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from http import HTTPStatus
from typing import Any, NamedTuple

import pytest

from xgpt_fairseq.errors import DataError
from xgpt_fairseq.pages.captioning_page import CaptioningPage
from xgpt_fairseq.serving.limits import MAX_CONNECTIONS, MAX_FILE_BYTES, MAX_PHOTOS
from xgpt_fairseq.serving.photo_captioner import RequestError
from xgpt_fairseq.serving.server import CaptionServer

PAGE = CaptioningPage("<!DOCTYPE html><title>page</title>", "default-src 'none'; frame-ancestors 'none'")
Serving = Callable[..., CaptionServer]


class Answer(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def error(self) -> str:
        assert self.headers["Content-Type"] == "application/json; charset=utf-8"
        value = json.loads(self.body)
        assert list(value) == ["error"] and "\n" not in value["error"]
        return value["error"]


def echo(content: bytes, beam: int) -> dict[str, Any]:
    return {"caption": f"{len(content)} bytes, beam {beam}"}


@pytest.fixture
def serving() -> Iterator[Serving]:
    """serving(caption, seconds=…): a server that answers in a thread."""
    servers = []

    def start(caption: Callable[[bytes, int], Mapping[str, Any]] = echo, **options: Any) -> CaptionServer:
        server = CaptionServer(0, PAGE, caption, beam=2, **options)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        servers.append((server, thread))
        return server

    yield start
    for server, thread in servers:
        server.shutdown()
        thread.join()
        server.server_close()


def ask(
    server: CaptionServer,
    method: str,
    path: str,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    with closing(http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)) as connection:
        connection.request(method, path, body, dict(headers or {}))
        response = connection.getresponse()
        return Answer(response.status, response.headers, response.read())


def connect(server: CaptionServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.server_port), timeout=10)


def say(server: CaptionServer, *lines: str, body: bytes = b"") -> tuple[int, bytes]:
    """Send a request as it is, and no more: status and body of the answer."""
    with connect(server) as client:
        client.sendall("".join(f"{line}\r\n" for line in [*lines, ""]).encode() + body)
        client.shutdown(socket.SHUT_WR)
        head, _, content = everything(client).partition(b"\r\n\r\n")
        return int(head.split()[1]), content


def everything(client: socket.socket) -> bytes:
    return b"".join(iter(lambda: client.recv(4096), b""))


def post(server: CaptionServer, *lines: str, body: bytes = b"") -> tuple[int, bytes]:
    return say(server, "POST /caption HTTP/1.1", f"Host: 127.0.0.1:{server.server_port}", *lines, body=body)


def test_the_page_and_a_caption(serving: Serving, capfd: pytest.CaptureFixture[str]) -> None:
    server = serving()
    page = ask(server, "GET", "/")
    assert page.status == 200 and page.body.decode() == PAGE.html
    assert page.headers["Content-Security-Policy"] == PAGE.policy
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert page.headers["X-Content-Type-Options"] == "nosniff" and page.headers["Cache-Control"] == "no-store"
    assert page.headers["Server"] == "xgpt-caption"
    found = ask(server, "POST", "/caption?beam=5", b"some bytes")
    assert found.status == 200 and json.loads(found.body) == {"caption": "10 bytes, beam 5"}
    assert found.headers["Content-Type"] == "application/json; charset=utf-8"
    assert json.loads(ask(server, "POST", "/caption", b"").body) == {"caption": "0 bytes, beam 2"}
    assert json.loads(ask(server, "POST", "/caption", bytes(MAX_FILE_BYTES)).body)["caption"].startswith("25000000 by")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/caption", 405),
        ("PUT", "/caption", 405),
        ("DELETE", "/caption", 405),
        ("OPTIONS", "/caption", 405),
        ("POST", "/", 405),
        ("HEAD", "/", 405),
        ("GET", "/favicon.ico", 404),
        ("GET", "/index.html", 404),
        ("GET", "/caption/", 404),
        ("GET", "/../../../../etc/passwd", 404),
        ("GET", "http://127.0.0.1/", 404),
        ("POST", "/captions", 404),
        ("BREW", "/", 501),
    ],
)
def test_there_is_nothing_else(serving: Serving, method: str, path: str, status: int) -> None:
    answer = ask(serving(), method, path)
    assert answer.status == status
    assert answer.headers.get("Allow") == ({"/": "GET", "/caption": "POST"}[path] if status == 405 else None)
    if method == "HEAD":
        assert answer.body == b""
    else:
        assert "passwd" not in answer.error and "Traceback" not in answer.error


def test_it_answers_only_as_itself_and_to_its_own_page(serving: Serving) -> None:
    server = serving()
    port = server.server_port
    names = ("127.0.0.1", f"127.0.0.1:{port}", "localhost", f"LOCALHOST:{port}")
    for name in names:
        assert ask(server, "GET", "/", headers={"Host": name}).status == 200
        answer = ask(server, "POST", "/caption", b"x", {"Host": name, "Origin": f"http://{name}"})
        assert answer.status == 200
    for name in ("evil.example", f"evil.example:{port}", "", "localhost:1", f"127.0.0.1.evil.example:{port}",
                 f"localhost:{port}@evil.example", "[::1]", f"127.0.0.2:{port}"):  # fmt: skip
        for method, path in (("GET", "/"), ("POST", "/caption"), ("GET", "/nothing")):
            answer = ask(server, method, path, b"x", {"Host": name})
            assert answer.status == 403 and answer.error == f"this server answers only as http://127.0.0.1:{port}/"
    for origin in ("http://evil.example", "null", "", f"https://127.0.0.1:{port}", f"http://127.0.0.1:{port + 1}",
                   "http://127.0.0.1", f"http://localhost:{port}", f"http://127.0.0.1:{port}/"):  # fmt: skip
        for method, path in (("GET", "/"), ("POST", "/caption")):
            answer = ask(server, method, path, b"x", {"Origin": origin})
            assert answer.status == 403 and answer.error == "this server answers only to its own page"
    own = f"127.0.0.1:{port}"
    assert say(server, "GET / HTTP/1.1", "")[0] == 403
    assert say(server, "GET / HTTP/1.1", f"Host: {own}", "Host: evil.example")[0] == 403
    assert post(server, f"Origin: http://{own}", "Origin: http://evil.example", "Content-Length: 0")[0] == 403


def test_it_is_bound_to_this_machine(serving: Serving) -> None:
    server = serving()
    assert server.server_address == ("127.0.0.1", server.server_port)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", server.server_port), timeout=5)
    with pytest.raises(DataError, match=rf"port {server.server_port} of 127.0.0.1 cannot be used: Address already in"):
        CaptionServer(server.server_port, PAGE, echo, beam=2)


@pytest.mark.parametrize(
    ("lines", "status", "message"),
    [
        ([], 411, "the request needs a Content-Length"),
        (["Transfer-Encoding: chunked"], 411, "the request needs a Content-Length"),
        (["Transfer-Encoding: chunked", "Content-Length: 3"], 411, "the request needs a Content-Length"),
        (["Content-Length: three"], 400, "the Content-Length is no number"),
        (["Content-Length: -3"], 400, "the Content-Length is no number"),
        (["Content-Length: +3"], 400, "the Content-Length is no number"),
        (["Content-Length: "], 400, "the Content-Length is no number"),
        (["Content-Length: 3", "Content-Length: 3"], 400, "the Content-Length is no number"),
        (["Content-Length: 25000001"], 413, "the file has more than 25 MB"),
        (["Content-Length: " + 5000 * "9"], 413, "the file has more than 25 MB"),
        (["Content-Length: 4"], 400, "the photo did not arrive as a whole"),
    ],
)
def test_the_length_of_a_file(serving: Serving, lines: list[str], status: int, message: str) -> None:
    found, content = post(serving(), *lines, body=b"abc")
    assert (found, json.loads(content)) == (status, {"error": message})


def test_a_request_that_is_none(serving: Serving) -> None:
    server = serving()
    long = "GET /" + 70_000 * "a"
    for line in ("GET", "GET /", "<script>1</script> / HTTP/1.1 x", "GET / HTTP/x", "GET / HTTP/2.0", long):
        status, content = say(server, line)
        assert status in (400, 403, 414, 505) and list(json.loads(content)) == ["error"] and b"script" not in content
    assert ask(server, "GET", "/").status == 200


def test_whoever_sends_too_much_reads_why(serving: Serving) -> None:
    answer = ask(serving(), "POST", "/caption", bytes(MAX_FILE_BYTES + 1))
    assert answer.status == 413 and answer.error == "the file has more than 25 MB"


def test_a_client_that_asks_before_it_sends(serving: Serving) -> None:
    """As curl does with large files: it is told to go on only if the file will be taken."""
    server = serving()
    lines = ["POST /caption HTTP/1.1", f"Host: 127.0.0.1:{server.server_port}", "Expect: 100-continue"]
    with connect(server) as client:
        client.sendall("\r\n".join([*lines, "Content-Length: 3", "", ""]).encode())
        assert client.recv(4096) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(b"abc")
        assert b"3 bytes, beam 2" in everything(client)
    with connect(server) as client:
        client.sendall("\r\n".join([*lines, "Content-Length: 99999999", "", ""]).encode())
        assert everything(client).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize("query", ["beam=0", "beam=6", "beam=-1", "beam=two", "beam=", "beam=02", "beam=2&beam=3"])
def test_beams(serving: Serving, query: str) -> None:
    answer = ask(serving(), "POST", f"/caption?{query}", b"x")
    assert answer.status == 400 and answer.error == "the beam is 1 to 5"


def test_what_goes_wrong_with_a_photo(serving: Serving, capfd: pytest.CaptureFixture[str]) -> None:
    def fails(content: bytes, beam: int) -> dict[str, Any]:
        if content == b"text":
            raise RequestError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "not a photo")
        raise OSError("no such file: /home/me/secret")

    server = serving(fails)
    answer = ask(server, "POST", "/caption", b"text")
    assert answer.status == 415 and answer.error == "not a photo"
    assert capfd.readouterr().err == ""
    for _ in range(2 * MAX_PHOTOS):
        answer = ask(server, "POST", "/caption", b"bug")
        assert answer.status == 500 and answer.error == "this photo failed; xgpt-caption's terminal says why"
    assert "no such file: /home/me/secret" in capfd.readouterr().err


@pytest.mark.parametrize("body", [False, True])
def test_a_slow_client_is_cut_off_and_blocks_nobody(serving: Serving, body: bool) -> None:
    """One byte after the other, so that no single pause is long."""
    server = serving(seconds=0.6)
    head = f"POST /caption HTTP/1.1\r\nHost: 127.0.0.1:{server.server_port}\r\n"
    start = time.monotonic()
    with connect(server) as client:
        client.sendall(f"{head}Content-Length: 9999\r\n\r\n".encode() if body else head.encode())
        client.settimeout(0.05)
        said = b""
        while time.monotonic() < start + 5:
            try:
                said += (got := client.recv(4096))
                if not got:
                    break
            except TimeoutError:
                assert ask(server, "GET", "/").status == 200
                client.sendall(b"x")
        assert 0.5 < time.monotonic() - start < 3
    assert said.startswith(b"HTTP/1.1 408 ") if body else said == b""
    if body:
        assert b"the photo did not arrive within 0.6 seconds" in said


def test_a_silent_client_is_cut_off(serving: Serving) -> None:
    with connect(serving(seconds=0.2)) as client:
        assert everything(client) == b""


def test_some_photos_at_a_time(serving: Serving) -> None:
    go, begun = threading.Event(), threading.Semaphore(0)

    def waits(content: bytes, beam: int) -> dict[str, Any]:
        begun.release()
        assert go.wait(10)
        return echo(content, beam)

    server = serving(waits)
    with ThreadPoolExecutor(MAX_PHOTOS) as pool:
        running = [pool.submit(ask, server, "POST", "/caption", b"x") for _ in range(MAX_PHOTOS)]
        for _ in range(MAX_PHOTOS):
            assert begun.acquire(timeout=10)
        more = ask(server, "POST", "/caption", b"x")
        assert more.status == 503 and more.headers["Retry-After"] == "1"
        assert more.error == "8 photos are being captioned; try again"
        assert ask(server, "GET", "/").status == 200
        go.set()
        assert [each.result().status for each in running] == [200] * MAX_PHOTOS
    assert ask(server, "POST", "/caption", b"x").status == 200


def test_connections_that_ask_nothing(serving: Serving) -> None:
    server = serving()
    idle = [connect(server) for _ in range(MAX_CONNECTIONS)]
    with connect(server) as client:
        assert everything(client).startswith(b"HTTP/1.1 503 ")
    for client in idle:
        client.close()
    for _ in range(500):
        with suppress(ConnectionError):
            if ask(server, "GET", "/").status == 200:
                return
        time.sleep(0.01)
    raise AssertionError("connections that are closed still count")


def test_a_client_that_leaves(serving: Serving, capfd: pytest.CaptureFixture[str]) -> None:
    """Nothing is printed, and its place is free again."""
    server = serving(seconds=5)
    for _ in range(2 * MAX_PHOTOS):
        with connect(server) as client:
            lines = f"POST /caption HTTP/1.1\r\nHost: 127.0.0.1:{server.server_port}\r\nContent-Length: 9999\r\n\r\nabc"
            client.sendall(lines.encode())
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # close by a reset
    for _ in range(500):
        if ask(server, "POST", "/caption", b"x").status == 200:
            break
        time.sleep(0.01)
    else:
        raise AssertionError("clients that left still have places")
    assert capfd.readouterr() == ("", "")

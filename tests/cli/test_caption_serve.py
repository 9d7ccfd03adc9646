"""`xgpt-caption --serve`, from its first line to Ctrl-C."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.preloaded import python
from tests.test_hub_interface import build, photos  # noqa: F401  (a fixture)
from xgpt_fairseq.cli import caption as caption_program

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(scope="module")
def bundle(tiny_vocabulary: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundles") / "bundle"
    build(tiny_vocabulary).save(path)
    return path


@contextmanager
def program(bundle: Path, *options: object) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """The real program and its port."""
    command = [python(), "-m", "xgpt_fairseq.cli.caption", "--path", bundle, "--serve", "--port", "0", *options]
    with subprocess.Popen(
        [*map(str, command)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as running:
        assert running.stdout is not None and running.stderr is not None
        try:
            said = running.stdout.readline()
            found = re.fullmatch(r"captions photos at http://127\.0\.0\.1:(\d+)/ \(Ctrl-C ends it\)\n", said)
            assert found, said + running.stderr.read()
            yield running, int(found[1])
        finally:
            running.kill()


def request(port: int, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request(method, path, body)
    response = connection.getresponse()
    return response.status, response.read()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_it_captions_as_the_program_does_until_it_is_ended(
    call_program: Callable[..., Any],
    bundle: Path,
    photos: list[Path],  # noqa: F811
    how: signal.Signals,
) -> None:
    search = ["--beam", 3, "--max-len", 4, "--lenpen", 0.5]
    lines = call_program(caption_program.main, *photos[:2], "--path", bundle, *search).stdout.splitlines()
    with program(bundle, *search, "--title", "Holiday") as (running, port):
        status, page = request(port, "GET", "/")
        assert status == 200 and b"<h1>Holiday</h1>" in page and b"<option selected>3</option>" in page
        for path in (bundle, ROOT, Path.home()):
            assert str(path).encode() not in page
        for photo, line in zip(photos, lines, strict=False):
            status, answer = request(port, "POST", "/caption", photo.read_bytes())
            assert status == 200 and f"{photo}\t{json.loads(answer)['caption']}" == line
            assert len(json.loads(answer)["hypotheses"]) == 3
        assert request(port, "POST", "/caption", b"bread, milk")[0] == 415
        idle = http.client.HTTPConnection("127.0.0.1", port)
        idle.connect()
        running.send_signal(how)
        rest = running.communicate(timeout=20)
        assert running.returncode == 0 and rest == ("", "")
        idle.close()


def test_what_is_refused(
    call_program: Callable[..., Any],
    bundle: Path,
    photos: list[Path],  # noqa: F811
    tiny_vocabulary: Path,
    tmp_path: Path,
) -> None:
    def error(*options: object, path: Path = bundle) -> str:
        done = call_program(caption_program.main, "--path", path, "--serve", *options)
        assert done.status == 1 and done.stdout == ""
        return done.error

    assert error(photos[0]).startswith("--serve captions the photos that are dropped on its page; without --serve, th")
    assert error("--json", tmp_path / "c.json") == "--json is for the photos of a command, not for --serve"
    assert error("--strict") == "--strict is for the photos of a command, not for --serve"
    assert error("--num-shards", 2, "--shard-id", 0) == "--num-shards, --shard-id have no effect with --serve"
    assert error("--batch-size", 8) == "--batch-size has no effect with --serve"
    assert error("--beam", 6) == "--beam must be 1 to 5 with --serve, got 6"
    assert error("--beam", 0) == "--beam must be 1 to 5 with --serve, got 0"
    assert error("--port", 65536) == "--port must be 0 to 65535, got 65536"
    build(tiny_vocabulary, grid=None).save(tmp_path / "boxes")
    assert error(path=tmp_path / "boxes").startswith("the model was trained on the boxes of a detector, which photos o")
    build(tiny_vocabulary, extractor=False).save(tmp_path / "regions")
    assert "which cannot be made from photos here" in error(path=tmp_path / "regions")


def test_neither_photos_nor_a_page(call_program: Callable[..., Any], bundle: Path) -> None:
    done = call_program(caption_program.main, "--path", bundle)
    assert done.status == 2 and done.stderr.startswith("xgpt-caption: error: ")
    assert "arguments are required: PHOTO, or --list, or --serve, or --about\n" in done.stderr
    done = call_program(caption_program.main, "photo.jpg", "--path", bundle, "--port", 8001)
    assert done.error == "--port has no effect without --serve"

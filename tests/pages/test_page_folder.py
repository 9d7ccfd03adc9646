"""The folder of `xgpt-export --html-folder`: what lies in it; and on a server, in a browser.

As for `test_standalone_page.py`, XGPT_ORT_WEB names the archive of npm's package onnxruntime-web; without it, the test
in a browser skips.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.pages.browser import opened
from tests.pages.test_standalone_page import MODULE, SCRIPT, WASM, archive
from tests.test_hub_interface import draw
from xgpt_fairseq.cli import export
from xgpt_fairseq.pages.standalone_page import FOLDER_FILES


def test_a_folder_for_servers(call_program: Callable[..., Any], lite_folder: Path, tmp_path: Path) -> None:
    ort = archive(tmp_path / "ort.tgz", {MODULE: SCRIPT.encode(), WASM: b"\0asm"})
    options = ["--html-folder", tmp_path / "site", "--ort-web", ort]
    done = call_program(export.main, lite_folder, *options)
    assert done.status == 0, done.stderr
    files = {file.name: file.read_bytes() for file in (tmp_path / "site").iterdir()}
    assert set(files) == set(FOLDER_FILES)
    assert gzip.decompress(files["weights.packed"]) == (lite_folder / "weights.bin").read_bytes()
    assert gzip.decompress(files["wasm.packed"]) == b"\0asm" and files["ort.js"] == SCRIPT.encode()
    page = files["index.html"].decode()
    [policy] = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]+)"', page)
    assert policy.replace("&#39;", "'").split("; ") == [
        "default-src 'none'", "img-src blob: data:", "style-src 'self'", "script-src 'self' 'wasm-unsafe-eval'",
        "connect-src 'self'", "base-uri 'none'", "form-action 'none'",
    ]  # fmt: skip
    versions = set(re.findall(r"(?:page\.css\?|page\.js\?|data-version=\")(\w{16})", page))
    assert len(versions) == 1 and "<style" not in page and not re.search(r"<script(?![^>]* (?:src|type=\"appl))", page)
    local, program = r"[\w./]+\.(?:js|css|packed)", files["page.js"].decode()
    assert not re.search(rf'(?:src|href)="{local}"', page) and not re.search(rf'from "{local}"', program)
    [library] = re.findall(r'from "\./ort\.js\?(\w{16})"', program)
    assert library == hashlib.sha256(SCRIPT.encode()).hexdigest()[:16]
    assert len(files["README.md"].splitlines()) == 2 and b"python3 -m http.server" in files["README.md"]
    assert "exists and is not empty" in call_program(export.main, lite_folder, *options).error
    other = archive(tmp_path / "ort.tgz", {MODULE: SCRIPT.encode(), WASM: b"\0other"})
    assert call_program(export.main, lite_folder, *options, "--overwrite").status == 0 and other == ort
    assert versions.isdisjoint(re.findall(r"page\.js\?(\w{16})", (tmp_path / "site/index.html").read_text()))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "index.html").write_text("mine")
    refused = call_program(
        export.main, lite_folder, "--html-folder", tmp_path / "mine", "--ort-web", ort, "--overwrite"
    )
    assert "is not a folder of --html-folder" in refused.error


@pytest.mark.thorough
def test_the_folder_on_a_server(call_program: Callable[..., Any], lite_folder: Path, tmp_path: Path) -> None:
    if not os.environ.get("XGPT_ORT_WEB"):
        pytest.skip("XGPT_ORT_WEB does not name the archive of npm's package onnxruntime-web")
    from xgpt_runtime import Captioner

    (tmp_path / "photos").mkdir()
    photo, site = draw(tmp_path / "photos")[0], tmp_path / "site"
    done = call_program(export.main, lite_folder, "--html-folder", site, "--ort-web", os.environ["XGPT_ORT_WEB"])
    assert done.status == 0, done.stderr
    command = [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory", str(site)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        try:
            assert server.stdout is not None
            [address] = re.findall(r"http://[\d.:]+/", server.stdout.readline())
            with opened(offline=False) as tab:
                asked: list[str] = []
                tab.on("request", lambda each: asked.append(each.url))
                tab.goto(address)
                tab.set_input_files("#photos", str(photo))
                card = tab.locator("article[aria-busy=false]")
                card.wait_for(timeout=120_000)
                assert card.locator(".caption").inner_text() == Captioner(lite_folder).caption(photo)[0]
                card.locator(".word").first.hover()
                card.get_by_text("looks at region").wait_for(timeout=60_000)
                own = [each for each in asked if not each.startswith("blob:")]
                assert all(each.startswith(address) for each in own)
                assert len(own) == len(FOLDER_FILES) - 1  # all but README.md
                tab.route("**/weights.packed?*", lambda route: route.fulfill(status=404))
                tab.reload()
                tab.set_input_files("#photos", str(photo))
                tab.locator(".error").get_by_text("weights.packed did not come: the server says 404").wait_for(
                    timeout=60_000
                )
        finally:
            server.terminate()

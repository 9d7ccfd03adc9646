"""Preloaded programs: what their callers see is what they see of those that are started afresh."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.preloaded import SHARED, preloaded

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="programs are preloaded on Linux alone")

LOOK = """
import json, os, sys
print(json.dumps([sys.argv, sys.stdin.read(), os.getcwd(), os.environ["OF_THE_TEST"], __name__, sys.path[0]]))
print("to stderr", file=sys.stderr)
sys.exit(STATUS)
"""


def outcome(command: list[str], path: str, folder: Path, given: str = "given") -> tuple[int, str, str]:
    done = subprocess.run(
        command, env={**os.environ, "PATH": path, "OF_THE_TEST": "x"}, cwd=folder, input=given, capture_output=True,
        text=True,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("status", ["0", "None", "3", "'a message'"])
@pytest.mark.parametrize("kind", ["-c", "-m", "script", "raises"])
def test_a_program_is_given_and_hands_back_what_a_fresh_one_does(kind: str, status: str, tmp_path: Path) -> None:
    text = "1 / 0" if kind == "raises" else LOOK.replace("STATUS", status)
    (tmp_path / "look_around.py").write_text(text)
    command = {"-c": ["-c", text], "-m": ["-m", "look_around"]}.get(kind, ["look_around.py"])
    fresh = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    expected = outcome(["python", *command, "one", "two words"], fresh, tmp_path)
    found = outcome(["python", *command, "one", "two words"], preloaded().path(), tmp_path)
    if kind == "raises":  # the traceback has lines of this project
        assert found[:2] == expected[:2] and found[2].splitlines()[-1] == expected[2].splitlines()[-1]
    else:
        assert found == expected


def test_its_own_packages_come_before_the_environment_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder, word in (("first", "1"), ("second", "2")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "xgpt_fairseq.py").write_text(f"print({word})")
    monkeypatch.setenv("PYTHONPATH", f"first{os.pathsep}{tmp_path / 'second'}")
    text = "import sys; print([path for path in sys.path if 'first' in path or 'second' in path]); import xgpt_fairseq"
    fresh = outcome([sys.executable, "-c", text], os.environ["PATH"], tmp_path)
    assert outcome(["python", "-c", text], preloaded().path(), tmp_path) == fresh and fresh[1].endswith("1\n")


def test_processes_of_one_run_share_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = preloaded().path()
    monkeypatch.setenv(SHARED, str(preloaded().bin.parent))
    other = preloaded.__wrapped__()
    assert other is not preloaded() and other.path() == path
    assert outcome(["python", "-c", "print('here')"], other.path(), tmp_path) == (0, "here\n", "")


def test_fairseq_is_there_and_this_project_is_not(tmp_path: Path) -> None:
    text = "import sys; print([name in sys.modules for name in ('fairseq.trainer', 'xgpt_fairseq', 'fairseq_cli')])"
    assert outcome(["python", "-c", text], preloaded().path(), tmp_path)[1] == "[True, False, False]\n"


@pytest.mark.parametrize("kill", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_program_ends_with_its_client(kill: signal.Signals) -> None:
    text = "import os, time; print(os.getpid(), flush=True); time.sleep(100)"
    environment = {**os.environ, "PATH": preloaded().path()}
    with subprocess.Popen(["python", "-c", text], env=environment, stdout=subprocess.PIPE, text=True) as client:
        assert client.stdout is not None
        program = int(client.stdout.readline())
        client.send_signal(kill)
        assert client.wait() == -kill
    for _ in range(100):
        if not Path(f"/proc/{program}").exists():
            return
        time.sleep(0.05)
    pytest.fail("it runs on")


def test_a_program_ends_where_its_client_is_gone_before_it_began(tmp_path: Path) -> None:
    text = "import time; time.sleep(100)"
    job = {"program": "/python", "arguments": ["-c", text], "variables": dict(os.environ), "umask": 0o22}
    message = json.dumps({**job, "folder": str(tmp_path)}).encode()
    preloaded().path()
    # its end is seen as the end of its output
    reading, writing = os.pipe()
    with socket.socket(socket.AF_UNIX) as link:
        link.connect(str(preloaded().socket))
        socket.send_fds(link, [len(message).to_bytes(8, "big")], [0, writing, writing])
        link.sendall(message)
    os.close(writing)
    with open(reading) as output:
        assert select.select([output], [], [], 20)[0], "it runs on"
        assert output.read() == ""

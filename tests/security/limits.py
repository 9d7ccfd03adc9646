"""Reads in a process of its own with little memory: a bomb that goes off is an error, and no machine without memory."""

from __future__ import annotations

import os
import resource
import traceback
from collections.abc import Callable
from pathlib import Path

from xgpt_fairseq.errors import DataError


def refusal(read: Callable[[], object], megabytes: int = 512) -> str:
    """What *read* is refused with, where it may take *megabytes* beyond what the process has; "read" if it is not.

    Raises:
        AssertionError: it ended with anything but a `DataError`.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        status, said = 1, ""
        try:
            used = int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()  # data and stack
            most = used + (megabytes << 20)
            resource.setrlimit(resource.RLIMIT_DATA, (most, most))
            read()
            status, said = 0, "read"
        except DataError as error:
            status, said = 0, str(error)
        except BaseException:
            said = traceback.format_exc()
        finally:
            os.write(writer, said.encode()[:4000])
            os._exit(status)
    os.close(writer)
    with open(reader, "rb") as pipe:
        said = pipe.read().decode()
    _, status = os.waitpid(child, 0)
    assert status == 0, said or f"status {status}"
    return said

"""The scripts of examples/, as modules."""

from __future__ import annotations

import sys
from functools import cache
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


@cache
def example(script: str) -> ModuleType:
    """The script examples/*script*, loaded and not run: it is no module of a package, and so has no name to import."""
    name = f"examples/{script}"
    spec = spec_from_file_location(name, EXAMPLES / script)
    assert spec is not None and spec.loader is not None
    module = sys.modules[name] = module_from_spec(spec)  # dataclasses look for their module there
    spec.loader.exec_module(module)
    return module

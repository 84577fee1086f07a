"""What importing costs and what is public."""

from __future__ import annotations

import subprocess
import sys

import diffcr


def _run(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()


def test_importing_loads_no_torch() -> None:
    assert _run("import sys, diffcr, diffcr.cli; print('torch' in sys.modules)") == "False"


def test_public_names_are_callable_whatever_was_imported_first() -> None:
    code = "import diffcr.io, diffcr.attachment, diffcr.compilation, diffcr\n"
    code += "print(all(callable(getattr(diffcr, name)) for name in diffcr.__all__))"
    assert _run(code) == "True"
    assert set(diffcr.__all__) <= set(dir(diffcr))

"""Without a GPU, kernels run in Triton's interpreter, which has to be said before its import."""

from __future__ import annotations

import os

import pytest
import torch

from tests.command_line import Fails, call

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"


@pytest.fixture
def fails(capsys: pytest.CaptureFixture[str]) -> Fails:
    """Runs a command in this process and asserts that it ends as a mistake of the caller's."""

    def check(*arguments: object, saying: str) -> None:
        capsys.readouterr()
        assert call(*arguments) == 2
        printed = capsys.readouterr()
        errors = [line for line in printed.err.splitlines() if line.startswith("diffcr: error:")]
        assert len(errors) == 1, printed.err
        assert saying in errors[0], printed.err
        assert "Traceback" not in printed.err

    return check

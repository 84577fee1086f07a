"""Opening a pipeline never unpickles."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from diffcr.errors import DiffCRError
from diffcr.pipelines import load_pipeline
from diffcr.pretrained import default_pipeline_path


def test_a_pipeline_with_pickled_weights_is_refused(tmp_path: Path) -> None:
    copied = tmp_path / "pipeline"
    shutil.copytree(default_pipeline_path(), copied)
    safe = copied / "transformer" / "diffusion_pytorch_model.safetensors"
    torch.save(load_file(safe), safe.with_suffix(".bin"))
    assert load_pipeline(copied, "cpu").transformer is not None
    safe.unlink()
    with pytest.raises(DiffCRError, match="no pipeline can be loaded"):
        load_pipeline(copied, "cpu")

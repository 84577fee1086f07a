"""Opening a pipeline never unpickles."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from safetensors.torch import load_file

from diffcr.errors import DiffCRError
from diffcr.hosts.loading import load_pipeline
from diffcr.pretrained import default_pipeline_path


@pytest.mark.parametrize("part", ["transformer", "text_encoder"])
def test_a_truncated_pipeline_is_one_clear_line(tmp_path: Path, part: str) -> None:
    copied = tmp_path / "pipeline"
    shutil.copytree(default_pipeline_path(), copied)
    weights = next((copied / part).glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(DiffCRError, match="no pipeline can be loaded") as caught:
        load_pipeline(copied, "cpu")
    assert "\n" not in str(caught.value)


def test_a_pipeline_of_an_unsupported_class_is_refused(tmp_path: Path) -> None:
    DDPMPipeline(
        UNet2DModel(
            sample_size=8,
            block_out_channels=(8, 8),
            norm_num_groups=4,
            down_block_types=("DownBlock2D",) * 2,
            up_block_types=("UpBlock2D",) * 2,
        ),
        DDPMScheduler(),
    ).save_pretrained(tmp_path)
    with pytest.raises(DiffCRError, match=r"has no transformer.*PixArtTransformer2DModel"):
        load_pipeline(tmp_path, "cpu")


def test_a_pipeline_with_pickled_weights_is_refused(tmp_path: Path) -> None:
    copied = tmp_path / "pipeline"
    shutil.copytree(default_pipeline_path(), copied)
    safe = copied / "transformer" / "diffusion_pytorch_model.safetensors"
    torch.save(load_file(safe), safe.with_suffix(".bin"))
    assert load_pipeline(copied, "cpu").transformer is not None
    safe.unlink()
    with pytest.raises(DiffCRError, match="no pipeline can be loaded"):
        load_pipeline(copied, "cpu")


@pytest.mark.parametrize(
    "change",
    [
        {"patch_size": 0},
        {"use_additional_conditions": True},
        {"num_layers": "8"},
        {"num_layers": 0},
    ],
    ids=str,
)
def test_a_model_that_its_files_do_not_make_is_one_line(
    tmp_path: Path, change: dict[str, object]
) -> None:
    copied = tmp_path / "pipeline"
    shutil.copytree(default_pipeline_path(), copied)
    config = copied / "transformer" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), **change}))
    with pytest.raises(DiffCRError, match="no pipeline can be loaded|has no blocks") as caught:
        load_pipeline(copied, "cpu")
    assert "\n" not in str(caught.value)

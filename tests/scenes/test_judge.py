"""The judge."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from diffcr.core.images import image_tensor
from diffcr.errors import DiffCRError
from diffcr.pretrained import judge_path
from diffcr.scenes import ScenesDataset
from diffcr.scenes.judge import (
    JudgeConfig,
    SceneJudge,
    attribute_accuracy,
    judge_features,
    load_judge,
    save_judge,
)


def test_the_embedded_judge_reads_real_test_images() -> None:
    data = ScenesDataset("test", size=64)
    scenes = [data[i] for i in range(64)]
    attributes = [scene.attributes for scene in scenes]
    accuracy = attribute_accuracy(load_judge(judge_path()), [s.image for s in scenes], attributes)
    assert accuracy.mean >= 0.97
    assert accuracy.count == 64
    shuffled = attribute_accuracy(
        load_judge(judge_path()), [s.image for s in scenes[1:] + scenes[:1]], attributes
    )
    assert shuffled.mean < 0.5
    assert shuffled.exact_match < accuracy.exact_match


def test_a_saved_judge_is_the_same_judge(tmp_path: Path) -> None:
    torch.manual_seed(0)
    judge = SceneJudge(JudgeConfig(resolution=32, channels=(8, 8, 8, 8), features=16)).eval()
    save_judge(judge, tmp_path / "judge")
    images = [ScenesDataset("test", resolution=32)[i].image for i in range(3)]
    loaded = load_judge(tmp_path / "judge")
    assert torch.equal(judge_features(judge, images), judge_features(loaded, images))
    assert image_tensor(images).min() >= -1 and image_tensor(images).max() <= 1
    (tmp_path / "judge" / "judge.safetensors").write_bytes(b"x")
    with pytest.raises(DiffCRError, match="damaged"):
        load_judge(tmp_path / "judge")

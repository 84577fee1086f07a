"""The embedded inpainting pipeline: what it starts from, how it is made and embedded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from diffcr import pretrained
from diffcr.inpainting import LazyInpaintPipeline
from diffcr.inpainting.opening import load_inpainting_pipeline
from diffcr.pretrained import default_pipeline_path, load_default_inpainting, load_default_pipeline
from diffcr.pretraining.inpainting import assemble_inpainting, build_inpainting, stretched
from diffcr.pretraining.install import install_inpainting
from diffcr.scenes import ScenesDataset


def test_it_starts_as_the_text_to_image_model_on_a_larger_grid() -> None:
    base = load_default_pipeline("cpu")
    pipe = assemble_inpainting(base, 0)
    assert (pipe.working_side, pipe.pixels_per_token) == (128, 8)
    places = stretched(base.transformer).pos_embed.pos_embed[0].unflatten(0, (16, 16))
    learned = base.transformer.pos_embed.pos_embed[0].unflatten(0, (12, 12))
    # A third of the way along either grid is the same position.
    assert torch.allclose(places[4, 8], learned[3, 6], atol=1e-5)
    scene = ScenesDataset("test", resolution=128)[0]
    whole = np.ones((128, 128), dtype=bool)
    options = {"num_inference_steps": 2, "guidance_scale": 4.0, "blending": "feather"}

    def paint(pipe: LazyInpaintPipeline) -> np.ndarray:  # type: ignore[type-arg]
        generator = torch.Generator().manual_seed(0)
        given = {"image": scene.image, "mask_image": whole, "generator": generator, **options}
        return np.asarray(pipe("a large red plain circle in the centre", **given).images[0])

    # An untrained encoder has no say: another one changes nothing.
    assert np.array_equal(paint(pipe), paint(assemble_inpainting(base, 1)))


def test_building_and_embedding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with torch.compiler.set_stance("force_eager"):
        build_inpainting(tmp_path / "build", shorten=0.001)
    made = tmp_path / "build" / "pipeline"
    start = load_inpainting_pipeline(tmp_path / "build" / "start", "cpu")
    built = load_inpainting_pipeline(made, "cpu")
    for name in ("transformer", "encoder"):
        before = dict(getattr(start, name).named_parameters())
        after = dict(getattr(built, name).named_parameters())
        assert any(not torch.equal(after[key], before[key]) for key in before)
    package = tmp_path / "package"
    package.mkdir()
    (package / "scenes").symlink_to(default_pipeline_path())
    install_inpainting(made, package)
    embedded = package / "inpainting"
    assert {path.name for path in embedded.iterdir() if path.is_dir()} == {
        "encoder",
        "scheduler",
        "transformer",
    }
    assert sum(file.stat().st_size for file in embedded.rglob("*")) < 8e6
    monkeypatch.setattr(pretrained, "_HERE", package)
    pipe = load_default_inpainting("cpu")
    for name in ("transformer", "encoder"):
        opened, whole = getattr(pipe, name), getattr(built, name)
        assert opened.dtype == torch.float32
        for parameter, value in zip(opened.parameters(), whole.parameters(), strict=True):
            assert torch.equal(parameter, value.half().float())

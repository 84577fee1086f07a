"""Images are reproducible one by one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diffcr.binding.attachment import attach
from diffcr.errors import DiffCRError
from diffcr.evaluation.generate import call_options, generate_images, save_images
from diffcr.hosts.loading import text_tokens
from tests.hosts import scramble
from tests.pipelines import TEXT_LENGTH, tiny_pixart_pipeline

PROMPTS = ["a red circle", "a blue square", "a green star"]


def _pixels(images: list[Image.Image]) -> np.ndarray:
    return np.stack([np.asarray(image).astype(int) for image in images])


def test_an_image_depends_on_its_own_seed_alone() -> None:
    pipe = tiny_pixart_pipeline()
    together = _pixels(generate_images(pipe, PROMPTS, 5, 2, batch_size=3))
    single = _pixels(generate_images(pipe, PROMPTS, 5, 2, batch_size=1))
    assert together.shape == (3, 32, 32, 3)
    # Other batch sizes round differently, at most by a step of 8 bits.
    assert abs(together - single).max() <= 1
    second = generate_images(pipe, PROMPTS[1:2], 6, 2)
    assert np.array_equal(_pixels(second), single[1:2])
    assert not np.array_equal(_pixels(generate_images(pipe, PROMPTS[1:2], 5, 2)), single[1:2])


def test_the_size_can_be_given() -> None:
    image = generate_images(tiny_pixart_pipeline(), PROMPTS[:1], 0, 1, height=48, width=64)[0]
    assert image.size == (64, 48)


def test_a_model_in_training_generates_as_in_eval_and_stays_in_training() -> None:
    pipe = tiny_pixart_pipeline()
    scramble(attach(pipe))
    expected = _pixels(generate_images(pipe, PROMPTS, 0, 2))
    pipe.transformer.train()
    torch.manual_seed(1)
    assert np.array_equal(_pixels(generate_images(pipe, PROMPTS, 0, 2)), expected)
    assert pipe.transformer.training


def test_progress_is_shown_by_one_bar(capsys: pytest.CaptureFixture[str]) -> None:
    pipe = tiny_pixart_pipeline()
    pipe.set_progress_bar_config(disable=False)
    generate_images(pipe, PROMPTS, 0, 1, batch_size=1, progress="painting")
    shown = capsys.readouterr().err
    assert "painting" in shown
    assert "3/3" in shown
    assert "1/1" not in shown
    assert pipe._progress_bar_config == {"disable": False}
    generate_images(pipe, PROMPTS, 0, 1)
    assert capsys.readouterr().err == ""


def test_prompts_are_padded_to_the_tokenizers_length() -> None:
    pipe = tiny_pixart_pipeline()
    assert text_tokens(pipe) == TEXT_LENGTH
    pipe.tokenizer.model_max_length = int(1e30)
    assert text_tokens(pipe) == 300


def test_bad_input_is_one_clear_line() -> None:
    pipe = tiny_pixart_pipeline()
    with pytest.raises(DiffCRError, match="no prompts"):
        generate_images(pipe, [])
    with pytest.raises(DiffCRError, match="a list"):
        generate_images(pipe, "a red circle")
    with pytest.raises(DiffCRError, match="num_inference_steps is 0"):
        generate_images(pipe, PROMPTS, num_inference_steps=0)


def test_images_are_saved_losslessly_and_in_order(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    images = [Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8)) for _ in range(3)]
    paths = save_images(images, tmp_path / "images", "dense")
    assert [path.name for path in paths] == [f"dense-000{i}.png" for i in range(3)]
    assert sorted(p.name for p in (tmp_path / "images").iterdir()) == [p.name for p in paths]
    for image, path in zip(images, paths, strict=True):
        with Image.open(path) as read:
            assert np.array_equal(np.asarray(read), np.asarray(image))


@pytest.mark.parametrize("part", ["transformer", "vae"])
def test_an_image_that_is_not_finite_is_an_error_and_not_black(part: str) -> None:
    pipe = tiny_pixart_pipeline()
    with torch.no_grad():
        next(getattr(pipe, part).parameters()).fill_(float("nan"))
        if part == "vae":
            next(pipe.vae.decoder.parameters()).fill_(float("nan"))
    with pytest.raises(DiffCRError, match="image 1 is not finite"):
        generate_images(pipe, PROMPTS, 0, 1)


def test_images_are_what_the_pipeline_itself_makes() -> None:
    pipe = tiny_pixart_pipeline()
    image = generate_images(pipe, PROMPTS[:1], 3, 2)[0]
    own = pipe(
        PROMPTS[:1],
        num_inference_steps=2,
        guidance_scale=4.5,
        generator=torch.Generator().manual_seed(3),
        **call_options(pipe),
    ).images[0]
    assert image.mode == own.mode == "RGB" and image.tobytes() == own.tobytes()

"""The pipelines: called as diffusers' inpainting pipelines, exact outside of the mask."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler
from numpy.typing import NDArray
from PIL import Image

import diffcr
from diffcr.errors import DiffCRError, DiffCRWarning
from diffcr.hosts.loading import load_pipeline
from diffcr.inpainting import LazyInpaintPipeline, RegenerateCrop, RegenerateImage
from diffcr.inpainting.cache import cache_key
from diffcr.inpainting.images.masks import dilate
from diffcr.inpainting.opening import load_inpainting_pipeline
from diffcr.methods.at_edm.config import ATEDMConfig
from diffcr.methods.diffcr.config import DiffCRConfig, MoDConfig
from diffcr.methods.tome.config import ToMeConfig
from tests.hosts import scramble
from tests.inpainting.hosts import box_mask, photograph, tiny_encoder, tiny_lazy_pipeline
from tests.pipelines import tiny_pixart_pipeline

pytestmark = pytest.mark.filterwarnings("ignore:DiffCR is attached")
_PROMPT = "a red circle"


@pytest.fixture(scope="module")
def pipe() -> LazyInpaintPipeline:
    return tiny_lazy_pipeline()


def _generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def _paint(pipe: Any, image: Any = None, mask: Any = None, **options: Any) -> NDArray[Any]:
    options = {"num_inference_steps": 3, "output_type": "np", "generator": _generators(0)} | options
    image = photograph() if image is None else image
    mask = box_mask() if mask is None else mask
    found = pipe(options.pop("prompt", _PROMPT), image, mask, **options)
    images: NDArray[Any] = found if isinstance(found, np.ndarray) else found[0]
    return images


def _encoder_calls(pipe: LazyInpaintPipeline) -> list[int]:
    calls: list[int] = []
    pipe.cache.clear()
    pipe.encoder.register_forward_hook(lambda *_: calls.append(1))
    return calls


@pytest.mark.parametrize("blending", ["poisson", "feather"])
@pytest.mark.parametrize("dilation", [0, 3])
def test_outside_of_the_mask_nothing_changes(
    pipe: LazyInpaintPipeline, blending: str, dilation: int
) -> None:
    result = _paint(pipe, blending=blending, dilation=dilation)[0] * 255
    outside = ~dilate(box_mask() > 0, dilation)
    assert np.array_equal(np.rint(result[outside]), photograph()[outside])
    assert not np.array_equal(np.rint(result), photograph())


def test_forms_of_the_output(pipe: LazyInpaintPipeline) -> None:
    array = _paint(pipe)
    assert array.dtype == np.float32 and array.shape == (1, 32, 32, 3)
    tensor = _paint(pipe, output_type="pt")
    assert torch.equal(tensor.permute(0, 2, 3, 1), torch.from_numpy(array))  # type: ignore[attr-defined]
    found = pipe(
        _PROMPT,
        image=Image.fromarray(photograph()),
        mask_image=Image.fromarray(box_mask()),
        num_inference_steps=3,
        generator=_generators(0)[0],
    )
    assert np.array_equal(np.asarray(found.images[0]), np.rint(array[0] * 255))


def test_saved_and_loaded_as_a_directory(pipe: LazyInpaintPipeline, tmp_path: Path) -> None:
    pipe.save_pretrained(tmp_path)
    expected = _paint(pipe)
    for loaded in (
        LazyInpaintPipeline.from_pretrained(tmp_path),
        load_inpainting_pipeline(tmp_path, "cpu"),
    ):
        loaded.set_progress_bar_config(disable=True)
        assert np.array_equal(_paint(loaded), expected)
    with pytest.raises(DiffCRError, match="is an inpainting pipeline: use `diffcr inpaint`"):
        load_pipeline(tmp_path)


def test_what_is_no_inpainting_pipeline_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DiffCRError, match="is not a pipeline"):
        load_inpainting_pipeline(tmp_path)
    tiny_pixart_pipeline().save_pretrained(tmp_path)
    with pytest.raises(DiffCRError, match="holds a PixArtSigmaPipeline"):
        load_inpainting_pipeline(tmp_path)


def test_masks_of_different_sizes_in_a_batch_are_computed_as_alone(
    pipe: LazyInpaintPipeline,
) -> None:
    masks = [box_mask(part=part) for part in (0.9, 0.1, 0.5, 0.5)]
    images = [photograph(seed=seed) for seed in range(4)]
    prompts = [_PROMPT, "a blue star", "a green square", _PROMPT]
    together = _paint(pipe, images, masks, prompt=prompts, generator=_generators(0, 1, 2, 3))
    for i in range(4):
        alone = _paint(pipe, images[i], masks[i], prompt=prompts[i], generator=_generators(i))
        assert np.abs(alone[0] - together[i]).max() <= 1.01 / 255


def test_neighbours_in_groups_of_the_same_sizes_change_no_bit(pipe: LazyInpaintPipeline) -> None:
    masks = [box_mask(part=0.5), box_mask(part=0.9), box_mask(part=0.5)]
    first = _paint(pipe, [photograph()] * 3, masks, generator=_generators(0, 1, 2))
    others = [photograph(), photograph(seed=7), photograph(seed=8)]
    second = _paint(pipe, others, masks, generator=_generators(0, 5, 6))
    assert np.array_equal(first[0], second[0])


def test_images_per_prompt_follow_each_other(pipe: LazyInpaintPipeline) -> None:
    calls = _encoder_calls(pipe)
    images = _paint(pipe, num_images_per_prompt=3, generator=_generators(4, 0, 5))
    assert images.shape == (3, 32, 32, 3) and len(calls) == 1
    assert np.abs(images[1] - _paint(pipe)[0]).max() <= 1.01 / 255
    assert not np.array_equal(images[0], images[2])


def test_the_encoder_runs_again_only_for_other_visible_pixels(pipe: LazyInpaintPipeline) -> None:
    calls = _encoder_calls(pipe)
    fresh = _paint(pipe, dilation=0)
    accepted = np.rint(fresh[0] * 255).astype(np.uint8)
    assert np.array_equal(_paint(pipe, dilation=0), fresh)
    assert not np.array_equal(_paint(pipe, dilation=0, prompt="a blue star"), fresh)
    _paint(pipe, accepted, dilation=0)
    assert len(calls) == 1
    _paint(pipe, mask=box_mask(part=0.1), dilation=0)
    _paint(pipe, photograph(seed=1), dilation=0)
    assert len(calls) == 3
    with torch.no_grad():
        pipe.encoder.norm_out.bias.add_(1e-3)
    _paint(pipe, dilation=0)
    assert len(calls) == 4


def test_the_cache_notices_a_single_layers_ratio() -> None:
    encoder = tiny_encoder(layers=12)
    compressor = diffcr.attach(encoder, DiffCRConfig(timestep_regions=1))
    keys = [cache_key((encoder,), photograph())]
    for layer in range(12):
        with torch.no_grad():
            compressor.ratios[layer] = 0.5
        keys.append(cache_key((encoder,), photograph()))
    with diffcr.disabled(encoder):
        keys.append(cache_key((encoder,), photograph()))
    assert len(set(keys)) == len(keys)


def test_an_empty_mask_gives_the_image_back_and_says_so(pipe: LazyInpaintPipeline) -> None:
    empty = np.zeros((32, 32), bool)
    with pytest.warns(DiffCRWarning, match="the mask is empty"):
        result = _paint(pipe, mask=empty)
    assert np.array_equal(np.rint(result[0] * 255), photograph())
    with pytest.warns(DiffCRWarning, match="the mask is empty"):
        both = _paint(pipe, mask=[empty, box_mask() > 0], generator=_generators(9, 0))
    assert np.array_equal(np.rint(both[0] * 255), photograph())
    assert np.array_equal(both[1], _paint(pipe)[0])


@pytest.mark.parametrize("shape", [(1, 1), (100, 30), (7, 400)])
def test_pictures_of_other_sizes_come_back_at_their_own(
    pipe: LazyInpaintPipeline, shape: tuple[int, int]
) -> None:
    image, mask = photograph(*shape), box_mask(*shape)
    result = np.rint(_paint(pipe, image, mask)[0] * 255)
    outside = ~dilate(mask > 0, max(shape) // 64)
    assert result.shape == image.shape and np.array_equal(result[outside], image[outside])


@pytest.mark.parametrize(
    ("options", "saying"),
    [
        ({"blending": "alpha"}, "blending is 'alpha'"),
        ({"output_type": "latent"}, "output_type is 'latent'"),
        ({"num_inference_steps": 0}, "num_inference_steps is 0"),
        ({"num_images_per_prompt": 0}, "num_images_per_prompt is 0"),
        ({"height": 20}, "height is 20"),
        ({"generator": []}, "0 generators for 1"),
        ({"prompt": ["a", "b"], "image": [photograph()] * 3}, "2 of prompt, 3 of image"),
        ({"latents": torch.zeros(2, 4, 8, 8)}, "latents of 2 samples"),
    ],
)
def test_mistakes_are_named(
    pipe: LazyInpaintPipeline, options: dict[str, Any], saying: str
) -> None:
    with pytest.raises(DiffCRError, match=saying):
        _paint(pipe, **options)


def test_parts_that_do_not_fit_are_refused(pipe: LazyInpaintPipeline) -> None:
    encoder = type(tiny_encoder())(2, 8, num_layers=1, sample_size=8)
    parts = {name: pipe.components[name] for name in ("tokenizer", "text_encoder", "vae")}
    with pytest.raises(DiffCRError, match="32 channels, the encoder gives 16"):
        LazyInpaintPipeline(
            **parts, transformer=pipe.transformer, encoder=encoder, scheduler=pipe.scheduler
        )


def test_a_scheduler_that_learns_variance(pipe: LazyInpaintPipeline) -> None:
    usual = pipe.scheduler
    try:
        pipe.scheduler = DDPMScheduler(variance_type="learned_range")
        assert np.isfinite(_paint(pipe)).all()
        pipe.scheduler = DDPMScheduler(thresholding=True)
        with pytest.raises(DiffCRError, match="dynamic thresholding"):
            _paint(pipe)
    finally:
        pipe.scheduler = usual


@pytest.mark.parametrize(
    "config",
    [DiffCRConfig(timestep_regions=10), MoDConfig(0.3), ToMeConfig(0.4), ATEDMConfig(0.3)],
    ids=lambda config: config.method,
)
def test_every_method_goes_into_decoder_and_encoder(config: Any, tmp_path: Path) -> None:
    pipe = tiny_lazy_pipeline()
    bare = _paint(pipe, mask=box_mask(part=0.9))
    method = diffcr.attach(pipe, config)
    if config.method == "diffcr":
        assert np.array_equal(_paint(pipe, mask=box_mask(part=0.9)), bare)
        scramble(method)
    assert not np.array_equal(_paint(pipe, mask=box_mask(part=0.9)), bare)
    with diffcr.disabled(pipe):
        assert np.array_equal(_paint(pipe, mask=box_mask(part=0.9)), bare)
    compressed = diffcr.attach(pipe.encoder, DiffCRConfig(timestep_regions=1))
    compressed.set_compression_ratios(0.5)
    with diffcr.disabled(pipe):
        assert not np.array_equal(_paint(pipe, mask=box_mask(part=0.9)), bare)
        with diffcr.disabled(pipe.encoder):
            assert np.array_equal(_paint(pipe, mask=box_mask(part=0.9)), bare)


@pytest.mark.parametrize("baseline", [RegenerateImage, RegenerateCrop])
def test_baselines_keep_what_is_not_masked(baseline: type[RegenerateImage]) -> None:
    painter = baseline(tiny_pixart_pipeline())
    result = np.rint(_paint(painter, photograph(64, 48), box_mask(64, 48), dilation=2)[0] * 255)
    outside = ~dilate(box_mask(64, 48) > 0, 2)
    assert np.array_equal(result[outside], photograph(64, 48)[outside])
    assert not np.array_equal(result, photograph(64, 48))
    masks = [box_mask(part=0.2), box_mask(part=0.6)]
    both = _paint(painter, [photograph()] * 2, masks, generator=_generators(0, 1))
    alone = _paint(painter, photograph(), masks[1], generator=_generators(1))
    assert np.abs(both[1] - alone[0]).max() <= 1.01 / 255


def test_regenerate_crop_sees_nothing_outside_of_its_square() -> None:
    painter = RegenerateCrop(tiny_pixart_pipeline())
    other = photograph(seed=5)
    window = slice(11, 21)
    other[window, window] = photograph()[window, window]
    first, second = (
        _paint(painter, image, dilation=1, blending="feather")[0, window, window]
        for image in (photograph(), other)
    )
    assert np.array_equal(first, second)

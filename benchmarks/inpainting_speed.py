"""Seconds of inpainting: `python benchmarks/inpainting_speed.py area [NAME ...]`, `run`, `step`.

area: a first stroke by the masked share of a picture, the rows of `inpainting.py` that this machine
has in turns; `results/inpainting-area.json`.
run: a first stroke by the pipeline's parts, at published sizes with random weights, 1024 x 1024
pixels, a mask of 256 x 256: PixArt-alpha XL/2's decoder, ViT-XL/2's encoder, Stable Diffusion's
autoencoder. One run with the whole decoder, one with 30 % of the tokens skipped in every layer,
with guidance. T5-XXL does not fit: a text encoder of one layer and its width stands in.
`results/inpainting-run-xl-1024.json`.
step: PixArt-alpha XL/2's configuration at 1024 x 1024, batch 1: a step of the text-to-image model,
which RegenerateImage takes, against one of the masked tokens' decoder at 1/16 of the area,
uncompressed and with the routed forward at 30 %; `results/inpainting-pixart-alpha-xl-1024.json`.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from time import perf_counter
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from diffusers import AutoencoderKL
from inpainting import SETTINGS, open_row
from inpainting_tables import RESULTS, TITLES
from numpy.typing import NDArray
from PIL import Image
from speed import timed, write_times
from transformers import T5Config, T5EncoderModel

from diffcr.binding.model import is_attached
from diffcr.checkpoint.contenders import build, parse_contender
from diffcr.cost.counting import count_flops
from diffcr.evaluation.timing.latency import LatencyRatio
from diffcr.evaluation.timing.speed import forward_inputs
from diffcr.evaluation.timing.subject import open_subject
from diffcr.hosts.input_size import InputSize
from diffcr.hosts.published import PAPERS_TEXT_TOKENS
from diffcr.inpainting import ContextEncoder, LazyInpaintPipeline, LazyTransformer2DModel, request
from diffcr.inpainting.images.masks import masked_tokens
from diffcr.pretrained import load_default_pipeline
from diffcr.records.record import make_record, write_record
from diffcr.scenes import ScenesDataset

_AREAS = (0.05, 0.1, 0.25, 0.5, 1.0)
_TEXT_TOKENS = 48
_PIXELS_PER_TOKEN = 8
_PIXELS = 1024
_MASKED = 256
# Of ViT-XL/2.
_CONTEXT_CHANNELS = 1152
_STAGES = (128, 256, 512, 512)


def first_stroke(pipe: Any, image: Image.Image, mask: NDArray[np.bool_], **options: Any) -> None:
    """Paint with nothing of an earlier call at hand."""
    if isinstance(pipe, LazyInpaintPipeline):
        pipe.cache.clear()
    generator = torch.Generator().manual_seed(0)
    pipe(image=image, mask_image=mask, dilation=0, generator=generator, **options)


def middle(side: int, masked: int) -> NDArray[np.bool_]:
    """A mask [side, side] of `masked` x `masked` pixels."""
    mask, start = np.zeros((side, side), dtype=bool), (side - masked) // 2
    mask[start : start + masked, start : start + masked] = True
    return mask


def measure_area(names: Sequence[str], seed: int, rounds: int) -> None:
    """Write the record of seconds by masked area; RegenerateImage is what others are divided by."""
    pipes = {name: open_row(name, seed) for name in sorted({"regenerate-image", *names})}
    side = SETTINGS["resolution"]
    scene = ScenesDataset("test", resolution=side)[0]
    options = {name: SETTINGS[name] for name in ("num_inference_steps", "guidance_scale")}
    times, tokens, flops = {}, {}, {}
    for area in _AREAS:
        key, mask = f"{area:.0%}", middle(side, round(side * area**0.5))
        paint = partial(first_stroke, image=scene.image, mask=mask, prompt=scene.caption, **options)
        calls = {
            "dense" if name == "regenerate-image" else name: partial(paint, pipe)
            for name, pipe in pipes.items()
        }
        times[key] = timed(calls, rounds)
        tokens[key] = int(masked_tokens(mask, _PIXELS_PER_TOKEN).sum())
        flops[key] = {name: _decoder_flops(pipe, tokens[key]) for name, pipe in pipes.items()}
    configuration = {**SETTINGS, "pairs": rounds, "rows": [*pipes]}
    more = {"masked_tokens": tokens, "decoder_flops": flops}
    write_times("inpainting-area", times, configuration, {"training": seed}, **more)


def _decoder_flops(pipe: Any, tokens: int) -> float:
    """Of one step without guidance, full count, mean over timestep regions."""
    host = pipe.transformer if isinstance(pipe, LazyInpaintPipeline) else pipe.pipe.transformer
    count = count_flops(host, InputSize(_TEXT_TOKENS, masked_tokens=tokens))
    return (count.mean if is_attached(host) else count.dense).total


def measure_run(steps: int) -> None:
    """Write the record of seconds by part."""
    pipe = assemble()
    results = {"uncompressed": seconds_by_part(pipe, steps)}
    pipe.register_modules(transformer=build(parse_contender("diffcr:0.3"), pipe.transformer))
    results["30 % in the decoder"] = seconds_by_part(pipe, steps)
    configuration = {"pixels": _PIXELS, "masked_pixels": _MASKED, "steps": steps, "guidance": True}
    record = make_record("inpainting-run", configuration, {"seconds": results}, seeds={"images": 0})
    print(results, write_record(record, RESULTS / "inpainting-run-xl-1024.json"))


def assemble() -> LazyInpaintPipeline:
    """The pipeline of published sizes, with random weights."""
    small, encoder = load_default_pipeline("cpu"), ContextEncoder().eval()
    decoder = LazyTransformer2DModel.from_text_to_image(
        open_subject("pixart-alpha-xl", _PIXELS).transformer.cpu(), encoder.context_channels
    )
    vocabulary, width = small.text_encoder.config.vocab_size, decoder.config.caption_channels
    text = T5Config(vocab_size=vocabulary, d_model=width, num_layers=1)
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * len(_STAGES),
        up_block_types=("UpDecoderBlock2D",) * len(_STAGES),
        block_out_channels=_STAGES,
        layers_per_block=2,
        latent_channels=decoder.config.in_channels,
        sample_size=_PIXELS,
    )
    return LazyInpaintPipeline(
        tokenizer=small.tokenizer,
        text_encoder=T5EncoderModel(text).eval(),
        vae=vae.eval(),
        transformer=decoder,
        encoder=encoder,
        scheduler=small.scheduler,
    )


def seconds_by_part(pipe: LazyInpaintPipeline, steps: int) -> dict[str, float]:
    """Of one first stroke; what no part takes is under "other"."""
    parts = {
        "text encoder": (pipe.text_encoder, "forward"),
        "context encoder": (pipe.encoder, "forward"),
        "decoder": (pipe.transformer, "forward"),
        "autoencoder, encoding": (pipe.vae, "encode"),
        "autoencoder, decoding": (pipe.vae, "decode"),
        "blending": (request, "blend"),
    }
    seconds: dict[str, float] = defaultdict(float)

    def watched(part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            start = perf_counter()
            result = function(*args, **kwargs)
            seconds[part] += perf_counter() - start
            return result

        return call

    pixels = np.random.default_rng(0).integers(0, 256, (_PIXELS, _PIXELS, 3), dtype=np.uint8)
    with ExitStack() as stack:
        for part, (owner, name) in parts.items():
            stack.enter_context(patch.object(owner, name, watched(part, getattr(owner, name))))
        watched("other", first_stroke)(
            pipe,
            Image.fromarray(pixels),
            middle(_PIXELS, _MASKED),
            prompt="a photograph",
            num_inference_steps=steps,
            max_sequence_length=PAPERS_TEXT_TOKENS,
        )
    whole = seconds.pop("other")
    return {**seconds, "other": whole - sum(seconds.values())}


def measure_step(rounds: int) -> None:
    """Write the record of seconds of a denoising step."""
    subject = open_subject("pixart-alpha-xl", _PIXELS)
    decoder = LazyTransformer2DModel.from_text_to_image(subject.transformer, _CONTEXT_CHANNELS)
    # An image of 64 x 64 tokens, a mask of a quarter of its side.
    indices = torch.arange(64 * 64).view(64, 64)[24:40, 24:40].reshape(1, -1)
    context = torch.randn(1, indices.shape[1], _CONTEXT_CHANNELS)
    masked = {"token_indices": indices, "context": context}
    models = {
        "dense": subject.transformer,
        "256 tokens": decoder,
        "256 tokens, 30 %": build(parse_contender("diffcr:0.3"), decoder),
    }
    calls = {}
    for name, model in models.items():
        sizes = (1, subject.side, subject.side, subject.text_tokens, [500])
        arguments = forward_inputs(model, *sizes)[500]
        arguments |= masked if isinstance(model, LazyTransformer2DModel) else {}
        calls[name] = torch.no_grad()(partial(model, **arguments))
    timings = timed(calls, rounds)
    whole, compressed = (timings[f"256 tokens{ratio}"] for ratio in ("", ", 30 %"))
    write_times(
        "inpainting-pixart-alpha-xl-1024",
        {"a denoising step": timings},
        {"pairs": rounds},
        **{"30_percent_to_0": LatencyRatio(whole, compressed).ratio},
    )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["area", "run", "step"])
    parser.add_argument("names", nargs="*", default=[*TITLES], metavar="NAME")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=4)
    arguments = parser.parse_args()
    if arguments.what == "area":
        measure_area(arguments.names, arguments.seed, arguments.rounds)
    elif arguments.what == "run":
        measure_run(arguments.steps)
    else:
        measure_step(arguments.rounds)


if __name__ == "__main__":
    main()

"""Where the time of a whole inpainting run goes: `python benchmarks/inpainting_run.py`.

A `LazyInpaintPipeline` of published sizes with random weights, 1024 x 1024 pixels, a mask of 256 x
256: PixArt-alpha XL/2's decoder, ViT-XL/2's encoder, Stable Diffusion's autoencoder. One run with
the whole decoder, one with 30 % of the tokens skipped in every layer, with guidance; both paint a
first stroke. T5-XXL does not fit: a text encoder of one layer and its width stands in. The record
is `results/inpainting-run-xl-1024.json`.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from diffusers import AutoencoderKL
from transformers import T5Config, T5EncoderModel

from diffcr.checkpoint.contenders import build, parse_contender
from diffcr.evaluation.timing.subject import PAPERS_TEXT_TOKENS, open_subject
from diffcr.inpainting import (
    ContextEncoder,
    LazyInpaintPipeline,
    LazyTransformer2DModel,
    call,
)
from diffcr.pretrained import load_default_pipeline
from diffcr.records.record import make_record, write_record

RESULTS = Path(__file__).parent / "results"
_PIXELS = 1024
_MASKED = 256
_STAGES = (128, 256, 512, 512)


def assemble() -> LazyInpaintPipeline:
    """The pipeline, with random weights."""
    small, encoder = load_default_pipeline("cpu"), ContextEncoder().eval()
    decoder = LazyTransformer2DModel.from_text_to_image(
        open_subject("pixart-alpha-xl", _PIXELS).transformer.cpu(), encoder.context_channels
    )
    text = T5Config(
        vocab_size=small.text_encoder.config.vocab_size,
        d_model=decoder.config.caption_channels,
        num_layers=1,
    )
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


@contextmanager
def watching(pipe: LazyInpaintPipeline) -> Iterator[dict[str, float]]:
    """Seconds that the parts of a run take while the context lasts."""
    seconds: dict[str, float] = defaultdict(float)

    def timed(part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            start = perf_counter()
            result = function(*args, **kwargs)
            seconds[part] += perf_counter() - start
            return result

        return run

    parts = {
        "text encoder": (pipe.text_encoder, "forward"),
        "context encoder": (pipe.encoder, "forward"),
        "decoder": (pipe.transformer, "forward"),
        "autoencoder, encoding": (pipe.vae, "encode"),
        "autoencoder, decoding": (pipe.vae, "decode"),
    }
    with ExitStack() as stack:
        for part, (owner, name) in parts.items():
            stack.enter_context(patch.object(owner, name, timed(part, getattr(owner, name))))
        stack.enter_context(patch.object(call, "blend", timed("blending", call.blend)))
        yield seconds


def run(pipe: LazyInpaintPipeline, steps: int) -> dict[str, float]:
    """Seconds of one run by part; the rest is under "other"."""
    pixels = np.random.default_rng(0).integers(0, 256, (_PIXELS, _PIXELS, 3), dtype=np.uint8)
    mask = np.zeros((_PIXELS, _PIXELS), dtype=bool)
    start = (_PIXELS - _MASKED) // 2
    mask[start : start + _MASKED, start : start + _MASKED] = True
    pipe.cache.clear()
    with watching(pipe) as seconds:
        begin = perf_counter()
        pipe(
            "a photograph",
            image=pixels,
            mask_image=mask,
            num_inference_steps=steps,
            dilation=0,
            max_sequence_length=PAPERS_TEXT_TOKENS,
            generator=torch.Generator().manual_seed(0),
        )
        total = perf_counter() - begin
    return {**seconds, "other": total - sum(seconds.values())}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=4)
    steps = parser.parse_args().steps
    pipe, results = assemble(), {}
    whole = pipe.transformer
    results["uncompressed"] = run(pipe, steps)
    print(results, flush=True)
    pipe.register_modules(transformer=build(parse_contender("diffcr:0.3"), whole))
    results["30 % in the decoder"] = run(pipe, steps)
    record = make_record(
        "inpainting-run",
        {"pixels": _PIXELS, "masked_pixels": _MASKED, "steps": steps, "guidance": True},
        {"seconds": results},
        seeds={"images": 0},
    )
    print(write_record(record, RESULTS / "inpainting-run-xl-1024.json"))


if __name__ == "__main__":
    main()

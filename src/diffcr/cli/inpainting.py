"""The command that repaints part of a picture."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from diffcr.cli.inputs import check_output, check_prompt, choose_guidance
from diffcr.cli.options import Guidance, Steps
from diffcr.cli.quiet import hide_loading_bars
from diffcr.errors import DiffCRError, DiffCRWarning

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

    from diffcr.inpainting.images.pictures import Picture

# Formats that keep every pixel, the transparent ones' colours, too.
_FORMATS = {".png": "PNG", ".tif": "TIFF", ".tiff": "TIFF"}


def inpaint(
    image: Annotated[Path | None, typer.Option(help="The picture.")] = None,
    mask: Annotated[
        Path | None, typer.Option(help="Of its size: white is repainted, black stays.")
    ] = None,
    prompt: Annotated[str, typer.Option(help="What is to be seen.")] = "",
    out: Annotated[
        Path, typer.Option("--output", "--out", help="File of the result, .png or .tif.")
    ] = Path("inpainted.png"),
    model: Annotated[
        str, typer.Option(help="Directory of a LazyInpaintPipeline; the embedded default if none.")
    ] = "",
    checkpoint: Annotated[
        str, typer.Option(help="DiffCR checkpoint of its decoder, directory or Hub id.")
    ] = "",
    encoder_checkpoint: Annotated[
        str, typer.Option(help="DiffCR checkpoint of its encoder, directory or Hub id.")
    ] = "",
    steps: Steps = 20,
    guidance_scale: Guidance = None,
    seed: Annotated[int, typer.Option(help="Of the noise.", min=0, max=2**62)] = 0,
    blending: Annotated[str, typer.Option(help="poisson or feather.")] = "poisson",
    dilation: Annotated[
        int | None,
        typer.Option(
            help="Pixels around the mask that are blended; 1/64 of a side.", min=0, max=8192
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the result.")] = False,
) -> None:
    """Repaint the masked part of a picture; the rest stays as it is, pixel for pixel.

    Without a picture, a mask and a prompt an example is repainted, and written beside the result.
    """
    from diffcr.evaluation.generate import Generation

    scale = choose_guidance(guidance_scale, model)
    Generation(seed, steps, scale)
    _check_target(out, force)
    pipe = None
    if image is None and mask is None and not prompt:
        image, mask = (out.with_name(f"{out.stem}-{name}.png") for name in ("image", "mask"))
        for path in (image, mask):
            _check_target(path, force)
        pipe = _open(model, checkpoint, encoder_checkpoint)
        prompt = _write_example(image, mask)
    if image is None or mask is None:
        raise DiffCRError("--image or --mask is missing: give both, or neither for an example")
    check_prompt("--prompt", prompt)
    from diffcr.inpainting.images.blending import check_blending

    check_blending(blending)
    original, white = _read(image, mask)
    if not white.any():
        from diffcr.inpainting.request import EMPTY_MASK

        typer.echo(EMPTY_MASK, err=True)
        _write(original.to_pil(), out)
        return
    pipe = pipe or _open(model, checkpoint, encoder_checkpoint)
    import torch

    result = pipe(
        prompt.strip(),
        image=original.to_pil(),
        mask_image=white,
        num_inference_steps=steps,
        guidance_scale=scale,
        generator=torch.Generator().manual_seed(seed),
        blending=blending,
        dilation=dilation,
    )
    _write(result.images[0], out)
    typer.echo(f"{out}: {white.mean():.1%} of the picture was masked")


def _read(image: Path, mask: Path) -> tuple[Picture, NDArray[np.bool_]]:
    """The picture, and the pixels [H, W] that are repainted; what there is to say of them, said."""
    from diffcr.inpainting.images.edits import check_sizes
    from diffcr.inpainting.images.pictures import open_image, read_masks, read_pictures

    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter("always", DiffCRWarning)
        (original,), (white,) = read_pictures(open_image(image)), read_masks(open_image(mask))
    for note in notes:
        typer.echo(str(note.message), err=True)
    check_sizes(original, white)
    return original, white


def _write_example(image: Path, mask: Path) -> str:
    """The example's picture and mask as files; its prompt."""
    from PIL import Image

    from diffcr.inpainting.example import make_example

    example = make_example()
    _write(example.image, image)
    _write(Image.fromarray(example.mask).convert("L"), mask)
    typer.echo(f"{image}, {mask}: repainted as {example.prompt!r}")
    return example.prompt


def _check_target(out: Path, force: bool) -> None:
    if out.is_dir():
        raise DiffCRError(f"--output {out} is a directory: give a file")
    if out.suffix.lower() not in _FORMATS:
        raise DiffCRError(f"--output is {out.name}: give a name that ends in .png or .tif")
    if out.exists() and not force:
        raise DiffCRError(f"{out} exists: give another --output, or --force to overwrite")
    check_output(out.parent)


def _open(model: str, checkpoint: str, encoder_checkpoint: str) -> Any:
    from diffcr.checkpoint.loading import load
    from diffcr.inpainting.opening import load_inpainting_pipeline
    from diffcr.pretrained import load_default_inpainting

    hide_loading_bars()
    pipe = load_inpainting_pipeline(model) if model else load_default_inpainting()
    if checkpoint:
        load(pipe, checkpoint)
    if encoder_checkpoint:
        load(pipe.encoder, encoder_checkpoint)
    return pipe


def _write(picture: Image.Image, out: Path) -> None:
    from diffcr.files import replacing_file

    with replacing_file(out) as temporary:
        picture.save(temporary, format=_FORMATS[out.suffix.lower()])

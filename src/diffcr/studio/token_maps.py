"""Maps of tokens over a picture, and the tables beside them."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from diffcr.evaluation.compression import Compression
from diffcr.report.figures.canvas import region_labels

_SIDE = 480
# What is not computed keeps this share of its light.
_SHADE = 0.25
_AGE_COLOUR = 0.6
_GRID = 0.75
_HEAT = "cividis"
_DARK = 0.52
_LUMA = (0.299, 0.587, 0.114)


def shade_map(image: Image.Image, computed: NDArray[Any]) -> Image.Image:
    """The picture, darker where less was computed.

    Args:
        image: RGB.
        computed: [h, w] in [0, 1], share of the layers that compute a token.
    """
    pixels, light = _enlarge(image, _SHADE + (1 - _SHADE) * computed.astype(np.float64))
    return _with_grid(pixels * light[..., None], computed.shape)


def age_map(image: Image.Image, ages: NDArray[np.int64], oldest: int) -> Image.Image:
    """The picture, tinted where tokens were not computed at this step: the older, the yellower.

    Args:
        image: RGB.
        ages: [h, w], steps since a token was computed.
        oldest: That gets the last colour, 1 or more.
    """
    colours = matplotlib.colormaps[_HEAT](ages / oldest)[..., :3] * 255
    pixels, old = _enlarge(image, (ages > 0).astype(np.float64))
    tint = _repeat(colours, pixels.shape)
    weight = (_AGE_COLOUR * old)[..., None]
    return _with_grid((1 - weight) * pixels + weight * tint, ages.shape)


def _enlarge(
    image: Image.Image, tokens: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Picture and map at one size, a whole number of pixels a token."""
    rows, columns = tokens.shape
    side = max(1, round(max(_SIDE, *image.size) / max(rows, columns)))
    size = (columns * side, rows * side)
    pixels = np.asarray(image.convert("RGB").resize(size, Image.Resampling.BICUBIC), dtype=float)
    return pixels, _repeat(tokens, pixels.shape)


def _repeat(tokens: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    side = shape[0] // tokens.shape[0]
    return tokens.repeat(side, axis=0).repeat(side, axis=1)


def _with_grid(pixels: NDArray[np.float64], tokens: tuple[int, ...]) -> Image.Image:
    side = pixels.shape[0] // tokens[0]
    pixels[side::side] *= _GRID
    pixels[:, side::side] *= _GRID
    return Image.fromarray(pixels.round().clip(0, 255).astype(np.uint8))


def ratio_table(compression: Compression, layer: int | None, region: int) -> str:
    """The table of compression ratios as a heat map; one layer's and region's cell is outlined.

    Args:
        compression: Of the model.
        layer: That is looked at; None for all.
        region: Timestep region that is looked at.
    """
    names = region_labels(len(compression.realised[0]))
    highest = max(0.5, *(ratio for row in compression.realised for ratio in row))
    # A column is outlined where there are several, a cell where one layer is looked at.
    column = len(names) > 1 and layer is None
    rows = [
        f'<tr><th scope="row">layer {place}</th>'
        + "".join(
            _cell(ratio, highest, at == region and (column or layer == place))
            for at, ratio in enumerate(row)
        )
        + "</tr>"
        for place, row in enumerate(compression.realised)
    ]
    head = "".join(f'<th scope="col">{name}</th>' for name in names)
    mean = f"Tokens that bypass a layer, mean {compression.realised_mean:.0%}"
    return _table(mean, f'<tr><th scope="col">timesteps</th>{head}</tr>', rows)


def step_table(shares: Sequence[float], step: int) -> str:
    """What every denoising step computes as a heat map; one step's row is outlined."""
    rows = [
        f'<tr><th scope="row">step {place + 1}</th>{_cell(share, 1.0, place == step)}</tr>'
        for place, share in enumerate(shares)
    ]
    head = '<tr><th scope="col">step</th><th scope="col">computed</th></tr>'
    return _table(f"Tokens that a step computes, mean {np.mean(shares):.0%}", head, rows)


def _cell(share: float, highest: float, current: bool) -> str:
    red, green, blue, _ = matplotlib.colormaps[_HEAT](share / highest)
    text = "#fff" if np.dot((red, green, blue), _LUMA) < _DARK else "#000"
    colour = f"rgb({255 * red:.0f} {255 * green:.0f} {255 * blue:.0f})"
    mark = ' class="current"' if current else ""
    return f'<td{mark} style="background:{colour};color:{text}">{share:.0%}</td>'


def _table(caption: str, head: str, rows: Sequence[str]) -> str:
    return (
        f'<table class="heat"><caption>{escape(caption)}</caption><thead>{head}</thead>'
        f"<tbody>{''.join(rows)}</tbody></table>"
    )

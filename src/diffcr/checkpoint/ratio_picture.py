"""The table of compression ratios as a picture, for a model card."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageColor, ImageDraw, ImageFont

from diffcr.core.regions import region_timesteps

# Drawn by Pillow: a run saves often, and matplotlib takes half a second for it.
_CELL_WIDTH, _CELL_HEIGHT = 92, 28
_MARGIN_LEFT, _MARGIN_TOP, _MARGIN = 96, 64, 16
_FONT_SIZE = 16
_NOTHING, _EVERYTHING = ImageColor.getrgb("#f4f7fb"), ImageColor.getrgb("#08306b")
_WHITE_TEXT_FROM = 0.45


def draw_ratios(ratios: Sequence[Sequence[float]], path: Path) -> None:
    """Write a PNG in which the cell of a layer and a timestep region is the darker the more tokens
    bypass the layer there.

    Args:
        ratios: [layers][regions] in [0, 1], regions clean to noisy.
        path: Of the file.
    """
    layers, regions = len(ratios), len(ratios[0])
    width = max(_MARGIN_LEFT + regions * _CELL_WIDTH + _MARGIN, 420)
    picture = Image.new("RGB", (width, _MARGIN_TOP + layers * _CELL_HEIGHT + _MARGIN), "white")
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(_FONT_SIZE)
    draw.text((_MARGIN, 12), "Tokens that bypass a layer, % (by timestep)", "black", font)
    for region in range(regions):
        within = region_timesteps(region, regions)
        above = (_MARGIN_LEFT + (region + 0.5) * _CELL_WIDTH, _MARGIN_TOP - 14)
        draw.text(above, f"{within.start}-{within.stop - 1}", "black", font, anchor="mm")
    for layer, row in enumerate(ratios):
        top = _MARGIN_TOP + layer * _CELL_HEIGHT
        middle = top + _CELL_HEIGHT / 2
        draw.text((_MARGIN_LEFT - 10, middle), f"layer {layer}", "black", font, anchor="rm")
        for region, ratio in enumerate(row):
            left = _MARGIN_LEFT + region * _CELL_WIDTH
            cell = (left, top, left + _CELL_WIDTH - 2, top + _CELL_HEIGHT - 2)
            draw.rectangle(cell, fill=_shade(ratio))
            colour = "white" if ratio >= _WHITE_TEXT_FROM else "black"
            place = (left + _CELL_WIDTH / 2, middle)
            draw.text(place, f"{100 * ratio:.0f}", colour, font, anchor="mm")
    picture.save(path, format="PNG")


def _shade(ratio: float) -> tuple[int, ...]:
    ends = zip(_NOTHING, _EVERYTHING, strict=True)
    return tuple(round(light + ratio * (dark - light)) for light, dark in ends)

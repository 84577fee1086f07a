"""Scenes as pixels: drawn at twice the size and averaged down, with a mask of the objects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from diffcr.scenes.attributes import ObjectAttributes, SceneAttributes

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]

_SUPERSAMPLING = 2
_RADII = {"tiny": 0.1, "small": 0.13, "medium": 0.17, "large": 0.22}
_CENTRES = {
    "top left": (0.27, 0.27),
    "top right": (0.73, 0.27),
    "bottom left": (0.27, 0.73),
    "bottom right": (0.73, 0.73),
    "centre": (0.5, 0.5),
}
_JITTER = 0.035
_TEXTURE_PERIOD = 0.12
# Squares of 4 pixels of the picture: finer grain is what no small autoencoder can carry.
_GRAIN = 4 * _SUPERSAMPLING
_RGB = {
    "red": (220, 30, 40),
    "green": (40, 170, 60),
    "blue": (40, 80, 225),
    "yellow": (245, 220, 40),
    "purple": (140, 45, 180),
    "orange": (250, 135, 20),
    "white": (240, 240, 240),
    "grey": (140, 140, 140),
    "black": (25, 25, 25),
    "brown": (110, 70, 40),
    "pink": (245, 175, 200),
    "teal": (90, 190, 190),
}


@dataclass(frozen=True)
class Drawing:
    """A picture, [H, W, 3] uint8, and where its objects are, [H, W] bool."""

    pixels: NDArray[np.uint8]
    mask: Mask


def draw_scene(
    attributes: SceneAttributes, resolution: int, random: np.random.Generator
) -> Drawing:
    """Paint a scene; jitter of places, sizes and shades comes from the draw."""
    side = resolution * _SUPERSAMPLING
    canvas = _background(attributes, side, random)
    covered = np.zeros((side, side), dtype=bool)
    for item in attributes.objects:
        centre = np.array(_CENTRES[item.place]) + random.uniform(-_JITTER, _JITTER, 2)
        radius = _RADII[item.size] * random.uniform(0.95, 1.05)
        mask = _shape_mask(item.shape, centre * side, radius * side, side)
        canvas[mask] = _paint(item, centre * side, side, random)[mask]
        covered |= mask
    return Drawing(
        np.clip(_average_down(canvas) + 0.5, 0, 255).astype(np.uint8),
        _average_down(covered[..., None].astype(np.float32))[..., 0] >= 0.5,
    )


def _average_down(canvas: Floats) -> Floats:
    side = canvas.shape[0] // _SUPERSAMPLING
    blocks = canvas.reshape(side, _SUPERSAMPLING, side, _SUPERSAMPLING, -1)
    averaged: Floats = blocks.mean(axis=(1, 3))
    return averaged


def _shade(colour: str, random: np.random.Generator) -> Floats:
    return np.asarray(_RGB[colour], np.float32) + random.uniform(-10, 10, 3).astype(np.float32)


def _grid(side: int) -> tuple[Floats, Floats]:
    rows, columns = np.mgrid[0:side, 0:side].astype(np.float32)
    return rows, columns


def _background(attributes: SceneAttributes, side: int, random: np.random.Generator) -> Floats:
    rows, columns = _grid(side)
    colour = _shade(attributes.background_colour, random)
    away = -1.0 if colour.mean() > 120 else 1.0
    level: Any = np.zeros((side, side), np.float32)
    if attributes.background_texture == "gradient":
        angle = random.uniform(0, 2 * np.pi)
        ramp = np.cos(angle) * (columns / side - 0.5) + np.sin(angle) * (rows / side - 0.5)
        level = 60 * ramp
    elif attributes.background_texture == "striped":
        level = away * 38 * (((rows + columns) / side // 0.11) % 2)
    elif attributes.background_texture == "noisy":
        grain = random.normal(0, 24, (side // _GRAIN, side // _GRAIN)).astype(np.float32)
        level = np.kron(grain, np.ones((_GRAIN, _GRAIN), np.float32))
    painted: Floats = colour + level[..., None]
    return painted


def _paint(
    item: ObjectAttributes, centre: NDArray[np.float64], side: int, random: np.random.Generator
) -> Floats:
    rows, columns = _grid(side)
    colour = _shade(item.colour, random)
    period = _TEXTURE_PERIOD * side
    across, down = (columns - centre[0]) / period, (rows - centre[1]) / period
    second: Any = np.zeros((side, side), bool)
    if item.texture == "striped":
        second = across % 1 < 0.45
    elif item.texture == "checkered":
        second = (np.floor(across * 1.6) + np.floor(down * 1.6)) % 2 == 0
    elif item.texture == "dotted":
        second = (across % 1 - 0.5) ** 2 + (down % 1 - 0.5) ** 2 < 0.085
    other = colour + 0.8 * (255 - colour) if item.texture == "dotted" else colour * 0.35
    return np.where(second[..., None], other, colour)


def _shape_mask(shape: str, centre: NDArray[np.float64], radius: float, side: int) -> Mask:
    rows, columns = _grid(side)
    across: Any = (columns - centre[0]) / radius
    down: Any = (rows - centre[1]) / radius
    distance = across**2 + down**2
    inside: Mask
    if shape == "circle":
        inside = distance <= 1
    elif shape == "ring":
        inside = (distance <= 1) & (distance >= 0.5**2)
    elif shape == "square":
        inside = np.maximum(abs(across), abs(down)) <= 0.88
    elif shape == "cross":
        arm = (abs(across) <= 0.33) | (abs(down) <= 0.33)
        inside = arm & (np.maximum(abs(across), abs(down)) <= 1)
    else:
        inside = _polygon_mask(shape, centre, radius, side)
    return inside


def _polygon_mask(shape: str, centre: NDArray[np.float64], radius: float, side: int) -> Mask:
    corners = 3 if shape == "triangle" else 10
    reach = np.where(np.arange(corners) % 2, 0.45, 1.15) if shape == "star" else np.full(3, 1.15)
    angles = -np.pi / 2 + 2 * np.pi * np.arange(corners) / corners
    points = centre + radius * reach[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1)
    image = Image.new("1", (side, side))
    ImageDraw.Draw(image).polygon([(float(x), float(y)) for x, y in points], fill=1)
    return np.asarray(image)

"""What a scene consists of: objects at named places on a background."""

from __future__ import annotations

from dataclasses import dataclass

SHAPES = ("circle", "square", "triangle", "star", "ring", "cross")
COLOURS = ("red", "green", "blue", "yellow", "purple", "orange")
TEXTURES = ("plain", "striped", "dotted", "checkered")
SIZES = ("tiny", "small", "medium", "large")
PLACES = ("top left", "top right", "bottom left", "bottom right", "centre")
BACKGROUND_COLOURS = ("white", "grey", "black", "brown", "pink", "teal")
BACKGROUND_TEXTURES = ("plain", "gradient", "striped", "noisy")


@dataclass(frozen=True)
class ObjectAttributes:
    """One object; every value is a word of this module's lists."""

    shape: str
    colour: str
    texture: str
    size: str
    place: str


@dataclass(frozen=True)
class SceneAttributes:
    """What is in the picture: objects from back to front, each at its own place."""

    objects: tuple[ObjectAttributes, ...]
    background_colour: str
    background_texture: str


@dataclass(frozen=True)
class SceneTargets:
    """A scene as class indices, for classifiers.

    Attributes:
        presence: One flag per place.
        shape, colour, texture, size: One class per place, -1 where there is no object.
        background_colour, background_texture: Classes.
    """

    presence: tuple[bool, ...]
    shape: tuple[int, ...]
    colour: tuple[int, ...]
    texture: tuple[int, ...]
    size: tuple[int, ...]
    background_colour: int
    background_texture: int


OBJECT_CLASSES = {"shape": SHAPES, "colour": COLOURS, "texture": TEXTURES, "size": SIZES}
BACKGROUND_CLASSES = {
    "background_colour": BACKGROUND_COLOURS,
    "background_texture": BACKGROUND_TEXTURES,
}


def scene_targets(attributes: SceneAttributes) -> SceneTargets:
    """Class indices of a scene."""
    by_place = {item.place: item for item in attributes.objects}

    def classes(attribute: str) -> tuple[int, ...]:
        words = OBJECT_CLASSES[attribute]
        return tuple(
            words.index(getattr(by_place[place], attribute)) if place in by_place else -1
            for place in PLACES
        )

    return SceneTargets(
        presence=tuple(place in by_place for place in PLACES),
        shape=classes("shape"),
        colour=classes("colour"),
        texture=classes("texture"),
        size=classes("size"),
        background_colour=BACKGROUND_COLOURS.index(attributes.background_colour),
        background_texture=BACKGROUND_TEXTURES.index(attributes.background_texture),
    )

"""English captions with a small grammar."""

from __future__ import annotations

import numpy as np

from diffcr.scenes.attributes import (
    BACKGROUND_COLOURS,
    BACKGROUND_TEXTURES,
    COLOURS,
    PLACES,
    SHAPES,
    SIZES,
    TEXTURES,
    ObjectAttributes,
    SceneAttributes,
)

_PLACE_PHRASES = {place: (f"at the {place}", f"in the {place} corner") for place in PLACES[:4]}
_PLACE_PHRASES["centre"] = ("in the centre", "in the middle")
_CONNECTIVES = (" and ", " with ", ", ")
_BACKGROUND_PHRASES = ("on a {} background", "in front of a {} background")


def write_caption(attributes: SceneAttributes, random: np.random.Generator) -> str:
    """A sentence that names every attribute; the draw decides between paraphrases."""
    nouns = [_object_phrase(item, random) for item in attributes.objects]
    connective = _CONNECTIVES[random.integers(len(_CONNECTIVES))]
    ground = f"{attributes.background_texture} {attributes.background_colour}"
    phrase = _BACKGROUND_PHRASES[random.integers(len(_BACKGROUND_PHRASES))]
    return f"{connective.join(nouns)} {phrase.format(ground)}"


def _object_phrase(item: ObjectAttributes, random: np.random.Generator) -> str:
    place = _PLACE_PHRASES[item.place]
    where = place[random.integers(len(place))]
    return f"a {item.size} {item.colour} {item.texture} {item.shape} {where}"


def vocabulary() -> list[str]:
    """Every word and sign that a caption can hold, sorted."""
    phrases = [*_CONNECTIVES, *_BACKGROUND_PHRASES, "a"]
    phrases += [phrase for phrases in _PLACE_PHRASES.values() for phrase in phrases]
    for words in (SHAPES, COLOURS, TEXTURES, SIZES, BACKGROUND_COLOURS, BACKGROUND_TEXTURES):
        phrases += words
    return sorted({word for phrase in phrases for word in phrase.replace("{}", "").split()})

"""Scenes: fixed, described truly, masked exactly."""

from __future__ import annotations

import re

import numpy as np
import pytest

from diffcr.errors import DiffCRError
from diffcr.scenes import ScenesDataset, scene_targets, vocabulary
from diffcr.scenes.attributes import (
    BACKGROUND_CLASSES,
    OBJECT_CLASSES,
    PLACES,
    ObjectAttributes,
    SceneAttributes,
)

_OBJECT = re.compile(
    r"a (?P<size>\w+) (?P<colour>\w+) (?P<texture>\w+) (?P<shape>\w+) "
    r"(?:at|in) the (?P<place>centre|middle|(?:top|bottom) (?:left|right))"
)
_BACKGROUND = re.compile(r"(?:on|in front of) a (?P<texture>\w+) (?P<colour>\w+) background$")


def read_caption(caption: str) -> SceneAttributes:
    """The grammar backwards, written without the generator's phrases."""
    background = _BACKGROUND.search(caption)
    assert background is not None
    objects = tuple(
        ObjectAttributes(
            **(found.groupdict() | {"place": found["place"].replace("middle", "centre")})
        )
        for found in _OBJECT.finditer(caption)
    )
    return SceneAttributes(objects, background["colour"], background["texture"])


def test_an_item_is_the_same_everywhere() -> None:
    first, second = ScenesDataset("test")[7], ScenesDataset("test", size=8)[7]
    assert first.caption == second.caption
    assert np.array_equal(np.asarray(first.image), np.asarray(second.image))
    assert first.attributes == ScenesDataset("test").describe(7).attributes
    assert first.caption == ScenesDataset("test").describe(7).caption


def test_splits_differ_item_by_item() -> None:
    captions = {
        split: [ScenesDataset(split).describe(i).caption for i in range(50)]
        for split in ("train", "validation", "test")
    }
    for a, b in (("train", "validation"), ("train", "test"), ("validation", "test")):
        assert sum(x == y for x, y in zip(captions[a], captions[b], strict=True)) < 5


def test_splits_share_no_picture() -> None:
    pictures = {
        (split, ScenesDataset(split)[i].image.tobytes())
        for split in ("train", "validation", "test")
        for i in range(60)
    }
    assert len({picture for _, picture in pictures}) == 180


def test_every_attribute_has_at_least_four_values_and_all_occur() -> None:
    data = ScenesDataset("train", size=400)
    scenes = [data.describe(i).attributes for i in range(400)]
    for name, words in OBJECT_CLASSES.items():
        seen = {getattr(item, name) for scene in scenes for item in scene.objects}
        assert len(words) >= 4 and seen == set(words)
    for name, words in BACKGROUND_CLASSES.items():
        assert len(words) >= 4 and {getattr(scene, name) for scene in scenes} == set(words)
    assert {item.place for scene in scenes for item in scene.objects} == set(PLACES)
    assert {len(scene.objects) for scene in scenes} == {1, 2}


def test_a_caption_names_every_attribute_in_the_grammars_words() -> None:
    data = ScenesDataset("validation")
    words = set(vocabulary())
    for index in range(100):
        scene = data.describe(index)
        tokens = scene.caption.replace(",", " ,").split()
        assert set(tokens) <= words
        for item in scene.attributes.objects:
            phrase = f"a {item.size} {item.colour} {item.texture} {item.shape} "
            assert phrase in scene.caption
        background = f"{scene.attributes.background_texture} {scene.attributes.background_colour}"
        assert f"a {background} background" in scene.caption


def test_a_caption_parses_back_to_the_attributes_with_each_at_its_place() -> None:
    for data in (
        ScenesDataset("test", size=200),
        ScenesDataset("test", size=200, object_shares=(0.0, 0.0, 1.0)),
    ):
        for index in range(len(data)):
            scene = data.describe(index)
            assert read_caption(scene.caption) == scene.attributes


def test_the_mask_is_where_the_objects_are() -> None:
    data = ScenesDataset("test")
    plain = [
        scene
        for scene in (data[i] for i in range(120))
        if scene.attributes.background_texture == "plain"
    ]
    assert len(plain) > 10
    for scene in plain:
        pixels = np.asarray(scene.image).astype(int)
        background = np.median(pixels[~scene.mask], axis=0)
        away = np.abs(pixels - background).sum(-1)
        assert (away[~scene.mask] > 150).mean() < 0.03
        assert (away[scene.mask] > 40).mean() > 0.8


def test_targets_are_the_attributes_at_their_places() -> None:
    scene = ScenesDataset("test").describe(3).attributes
    targets = scene_targets(scene)
    assert sum(targets.presence) == len(scene.objects)
    for item in scene.objects:
        place = PLACES.index(item.place)
        assert OBJECT_CLASSES["shape"][targets.shape[place]] == item.shape
        assert OBJECT_CLASSES["size"][targets.size[place]] == item.size
    absent = [i for i, present in enumerate(targets.presence) if not present]
    assert all(targets.colour[i] == -1 for i in absent)


def test_resolution_and_bad_values() -> None:
    scene = ScenesDataset("train", resolution=64)[0]
    assert scene.image.size == (64, 64) and scene.mask.shape == (64, 64)
    with pytest.raises(DiffCRError, match="resolution is 50"):
        ScenesDataset(resolution=50)
    with pytest.raises(DiffCRError, match="split is 'all'"):
        ScenesDataset("all")  # type: ignore[arg-type]
    with pytest.raises(DiffCRError, match="size is 0"):
        ScenesDataset(size=0)
    with pytest.raises(IndexError):
        ScenesDataset(size=2)[2]

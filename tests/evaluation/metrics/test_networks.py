"""Networks of the published formats, with tiny random weights."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import CLIPModel, CLIPTokenizer, Dinov2Model

from diffcr.errors import DiffCRError
from diffcr.evaluation.metrics.images import generated_images
from diffcr.evaluation.metrics.networks import (
    CLIP_SCORE,
    CMMD,
    HPS,
    FeatureNetwork,
    extract_features,
    load_clip,
    load_dinov2,
    load_inception,
)
from diffcr.evaluation.metrics.prompts import cosines, load_matcher
from tests.evaluation.metrics.models import (
    write_clip,
    write_dinov2,
    write_inception,
    write_pictures,
)

LOADERS: dict[str, Callable[[Path], FeatureNetwork]] = {
    "inception": lambda path: load_inception(write_inception(path), "cpu"),
    "dinov2": lambda path: load_dinov2(str(write_dinov2(path)), "cpu"),
    "clip": lambda path: load_clip(str(write_clip(path)), CLIP_SCORE, "cpu"),
    "cmmd": lambda path: load_clip(str(write_clip(path)), CMMD, "cpu"),
    "hps": lambda path: load_clip(str(write_clip(path)), HPS, "cpu"),
}


@pytest.mark.parametrize("name", LOADERS)
def test_features_do_not_depend_on_the_batch(name: str, tmp_path: Path) -> None:
    network = LOADERS[name](tmp_path / name)
    images = generated_images(write_pictures(tmp_path / "images", 5))
    single = extract_features(network, images, batch_size=1)
    together = extract_features(network, images, batch_size=4)
    assert single.dtype == torch.float32 and len(single) == 5
    assert torch.allclose(single, together, atol=1e-5)
    assert (single[0] - single[1]).abs().max() > 1e-3
    assert network.description["model"] == name
    if name in ("clip", "cmmd", "hps"):
        assert torch.allclose(single.norm(dim=1), torch.ones(5))


def test_inception_is_given_bytes_values_at_299_pixels(tmp_path: Path) -> None:
    network = load_inception(write_inception(tmp_path / "inception.pt"), "cpu")
    white = network.features([Image.new("RGB", (64, 48), (255, 128, 0))])
    expected = torch.tensor([127 / 128, 0.0, -1.0]).repeat_interleave(4)
    assert torch.allclose(white[0], expected, atol=1e-4)
    assert network.description["resizer"] == "clean bicubic 299"
    assert len(network.description["model_sha256"]) == 64


def test_clip_embeddings_are_those_of_transformers(tmp_path: Path) -> None:
    directory = str(write_clip(tmp_path / "clip"))
    matcher = load_matcher(directory, CLIP_SCORE, "cpu")
    images = generated_images(write_pictures(tmp_path / "images", 2))
    prompts = ["a cat", "abcdefghijklmno"]
    embedded = matcher.embed(prompts, batch_size=1)
    assert embedded.truncated == 1
    assert torch.allclose(embedded.values, matcher.embed(prompts, batch_size=2).values, atol=1e-6)
    model = CLIPModel.from_pretrained(directory).eval()
    processor = pytest.importorskip("transformers.models.clip.image_processing_pil_clip")
    prepare = processor.CLIPImageProcessorPil(
        size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}
    )
    # Without padding to the model's length: what comes after a prompt's end changes nothing.
    tokens = CLIPTokenizer.from_pretrained(directory)(
        prompts, padding=True, truncation=True, max_length=12, return_tensors="pt"
    )
    with torch.no_grad():
        expected = model(**tokens, **prepare(images.read(0, 2), return_tensors="pt"))
    features = extract_features(matcher.clip, images)
    wanted = (expected.image_embeds * expected.text_embeds).sum(1)
    assert torch.allclose(cosines(features, embedded.values).float(), wanted, atol=1e-5)


def test_dinov2_features_are_the_class_token(tmp_path: Path) -> None:
    directory = str(write_dinov2(tmp_path / "dinov2"))
    image = Image.new("RGB", (224, 224), (124, 116, 104))
    pixels = (torch.tensor([124, 116, 104]) / 255).view(3, 1, 1).expand(1, 3, 224, 224)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    pixels = (pixels - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    with torch.no_grad():
        states = Dinov2Model.from_pretrained(directory).eval()(pixels).last_hidden_state
        measured = load_dinov2(directory, "cpu").features([image])
    assert torch.allclose(measured, states[:, 0], atol=1e-5)


def test_weights_that_are_not_here_are_not_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    for load, name, message in (
        (load_dinov2, "nobody/nothing", "run `hf download nobody/nothing`"),
        (load_dinov2, "nothing", "nothing is not a directory"),
        (load_dinov2, str(tmp_path), "no model can be read from"),
    ):
        with pytest.raises(DiffCRError, match=message) as error:
            load(name, "cpu")
        assert "\n" not in str(error.value)
    with pytest.raises(DiffCRError, match=r"none\.pt is missing: save https://"):
        load_inception(tmp_path / "none.pt", "cpu")


def test_weights_of_something_else_are_refused(tmp_path: Path) -> None:
    dinov2, clip = str(write_dinov2(tmp_path / "dinov2")), str(write_clip(tmp_path / "clip"))
    with pytest.raises(DiffCRError, match="is a dinov2 model: give a clip model"):
        load_clip(dinov2, CMMD, "cpu")
    with pytest.raises(DiffCRError, match="is a clip model: give a dinov2 model"):
        load_dinov2(clip, "cpu")
    other = tmp_path / "other.pt"
    other.write_bytes(b"no program")
    with pytest.raises(DiffCRError, match="is not the TorchScript file of Inception"):
        load_inception(other, "cpu")
    torch.jit.script(torch.nn.Identity()).save(str(other))
    with pytest.raises(DiffCRError, match="is not the TorchScript file of Inception"):
        load_inception(other, "cpu")


def test_weights_that_lack_some_are_refused(tmp_path: Path) -> None:
    """Else transformers would draw them at random."""
    file = write_dinov2(tmp_path / "dinov2") / "model.safetensors"
    weights = load_file(file)
    del weights["layernorm.weight"]
    save_file(weights, file, {"format": "pt"})
    with pytest.raises(DiffCRError, match=r"not complete, it lacks layernorm\.weight"):
        load_dinov2(str(file.parent), "cpu")
    file.write_bytes(b"x")
    with pytest.raises(DiffCRError, match="no model can be read"):
        load_dinov2(str(file.parent), "cpu")


def test_a_clip_without_its_tokenizer_is_said(tmp_path: Path) -> None:
    directory = write_clip(tmp_path / "clip")
    for path in directory.glob("*token*"):
        path.unlink()
    with pytest.raises(DiffCRError, match="tokenizer of . tokens for a model of 54"):
        load_matcher(str(directory), CLIP_SCORE, "cpu")


def test_pickled_weights_are_not_read(tmp_path: Path) -> None:
    directory = write_dinov2(tmp_path / "dinov2")
    (directory / "model.safetensors").unlink()
    torch.save({}, directory / "pytorch_model.bin")
    with pytest.raises(DiffCRError, match=r"docs/metrics\.md"):
        load_dinov2(str(directory), "cpu")

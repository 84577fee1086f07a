"""`diffcr inpaint`: mistakes are one line and exit code 2, and nothing is overwritten unasked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import diffcr
from diffcr.cli import main
from diffcr.inpainting.images.masks import dilate
from diffcr.methods.diffcr.config import DiffCRConfig
from tests.inpainting.hosts import box_mask, photograph, tiny_lazy_pipeline

_Run = Callable[..., str]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("model")
    tiny_lazy_pipeline().save_pretrained(directory)
    return directory


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> _Run:
    """Runs the command on a photograph and a mask; what it printed, if it ended as expected."""
    Image.fromarray(photograph()).save(tmp_path / "photo.png")
    Image.fromarray(box_mask()).save(tmp_path / "mask.png")

    def call(*arguments: object, code: int = 0, **changes: object) -> str:
        options: dict[str, object] = {
            "image": tmp_path / "photo.png",
            "mask": tmp_path / "mask.png",
            "prompt": "a red circle",
            "out": tmp_path / "out.png",
            "steps": 2,
        } | changes
        words = [str(w) for name, value in options.items() for w in (f"--{name}", value)]
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit_:
            main(["inpaint", *words, *map(str, arguments)])
        printed = capsys.readouterr()
        assert exit_.value.code == code, printed.err
        if code == 0:
            return printed.out + printed.err
        (line,) = [line for line in printed.err.splitlines() if line.startswith("diffcr: error:")]
        assert "Traceback" not in printed.err
        return line

    return call


def test_the_rest_of_the_picture_stays(run: _Run, model: Path, tmp_path: Path) -> None:
    assert "6.2% of the picture was masked" in run(model=model)
    result = np.asarray(Image.open(tmp_path / "out.png"))
    outside = box_mask() == 0
    assert np.array_equal(result[outside], photograph()[outside])
    assert not np.array_equal(result, photograph())
    first = (tmp_path / "out.png").read_bytes()
    assert "out.png exists" in run(model=model, seed=1, code=2)
    assert (tmp_path / "out.png").read_bytes() == first
    run("--force", model=model, seed=1)
    assert (tmp_path / "out.png").read_bytes() != first


def test_a_checkpoint_compresses_the_decoder(run: _Run, model: Path, tmp_path: Path) -> None:
    run(model=model, out=tmp_path / "dense.png")
    pipe = tiny_lazy_pipeline()
    diffcr.attach(pipe, DiffCRConfig(timestep_regions=10)).set_compression_ratios(0.5)
    diffcr.save(pipe, tmp_path / "compressed")
    run(model=model, checkpoint=tmp_path / "compressed", out=tmp_path / "compressed.png")
    dense, compressed = (Image.open(tmp_path / f"{n}.png") for n in ("dense", "compressed"))
    assert not np.array_equal(np.asarray(dense), np.asarray(compressed))


def test_a_checkpoint_compresses_the_encoder(run: _Run, model: Path, tmp_path: Path) -> None:
    run(model=model, out=tmp_path / "dense.png")
    pipe = tiny_lazy_pipeline()
    method = DiffCRConfig(timestep_regions=1)
    diffcr.attach(pipe.encoder, method).set_compression_ratios(0.5)
    diffcr.save(pipe.encoder, tmp_path / "encoder")
    out = tmp_path / "compressed.png"
    run("--encoder-checkpoint", tmp_path / "encoder", model=model, out=out)
    dense, compressed = (Image.open(tmp_path / f"{n}.png") for n in ("dense", "compressed"))
    assert not np.array_equal(np.asarray(dense), np.asarray(compressed))
    said = run("--force", "--checkpoint", tmp_path / "encoder", code=2, model=model, out=out)
    assert "is for a ContextEncoder" in said


def test_an_empty_mask_needs_no_model(run: _Run, tmp_path: Path) -> None:
    Image.new("L", (32, 32)).save(tmp_path / "mask.png")
    assert run().splitlines() == ["the mask is empty: the image comes back as it is"]
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out.png")), photograph())


def test_a_sixteen_bit_picture_is_edited_with_one_line(
    run: _Run, model: Path, tmp_path: Path
) -> None:
    grey = photograph()[..., 0]
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "photo.png")
    said = run(model=model).splitlines()
    assert said.count("a 16-bit picture is edited as an 8-bit one") == 1
    result = np.asarray(Image.open(tmp_path / "out.png"))
    outside = box_mask() == 0
    assert np.array_equal(result[outside], np.dstack([grey] * 3)[outside])


def test_without_arguments_an_example_is_repainted(
    capsys: pytest.CaptureFixture[str], model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["inpaint", "--model", str(model), "--steps", "2"]
    with pytest.raises(SystemExit) as exit_:
        main(words)
    assert exit_.value.code == 0
    assert "repainted as 'a " in capsys.readouterr().out
    images = {n: np.asarray(Image.open(f"{n}.png")) for n in ("inpainted", "inpainted-image")}
    mask = np.asarray(Image.open("inpainted-mask.png")) > 0
    assert 0.01 < mask.mean() < 0.3
    changed = (images["inpainted"] != images["inpainted-image"]).any(axis=-1)
    assert changed[mask].mean() > 0.5 and not changed[~dilate(mask, 2)].any()
    with pytest.raises(SystemExit) as exit_:
        main(words)
    assert exit_.value.code == 2 and "inpainted.png exists" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["inpaint", "--out", "other.png", "--model", str(tmp_path)])
    assert "is not a pipeline" in capsys.readouterr().err
    assert not list(tmp_path.glob("other*"))


def test_a_picture_without_a_mask_is_no_example(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["inpaint", "--prompt", "a cat", "--out", str(tmp_path / "out.png")])
    assert exit_.value.code == 2
    assert "--image or --mask is missing" in capsys.readouterr().err


def test_without_an_embedded_model_it_says_what_to_pass(
    run: _Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("diffcr.pretrained._HERE", tmp_path)
    assert "give a LazyInpaintPipeline's directory as the model" in run(code=2)
    assert not (tmp_path / "out.png").exists()


def test_mistakes(run: _Run, model: Path, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no picture")
    Image.new("L", (31, 32)).save(tmp_path / "narrow.png")
    wrong: list[tuple[dict[str, object], str]] = [
        ({"image": tmp_path / "none.png"}, "none.png is missing"),
        ({"image": tmp_path / "text.png"}, "is not a readable picture"),
        ({"mask": tmp_path / "text.png"}, "is not a readable picture"),
        ({"image": tmp_path}, "is not a readable picture"),
        ({"mask": tmp_path / "narrow.png"}, "the mask is 31 x 32 pixels, the image 32 x 32"),
        ({"prompt": " "}, "--prompt is empty"),
        ({"out": tmp_path / "out.jpg"}, "ends in .png"),
        ({"out": tmp_path}, "is a directory"),
        ({"out": tmp_path / "photo.png" / "out.png"}, "is a file"),
        ({"blending": "alpha"}, "blending is 'alpha'"),
        ({"steps": 0}, "steps"),
        ({"guidance-scale": -1}, "guidance_scale is -1"),
        ({"guidance-scale": "nan"}, "guidance_scale is nan"),
        ({"model": tmp_path / "none"}, "is not a pipeline"),
        ({"checkpoint": tmp_path / "none"}, "is not a directory"),
    ]
    for changes, saying in wrong:
        assert saying in run(code=2, **({"model": model} | changes)), changes
    assert not (tmp_path / "out.png").exists()

"""The embedded inpainting pipeline's training: `python benchmarks/pretrained_inpainting.py DIR`.

DIR is the directory of `make pretrain-inpainting`, whose models have to be the embedded ones; the
record is `results/pretraining-inpainting.json`. What they paint is measured by `inpainting.py`, row
`lazy`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from diffcr.errors import DiffCRError
from diffcr.files import read_json
from diffcr.inpainting import LazyInpaintPipeline
from diffcr.inpainting.opening import load_inpainting_pipeline
from diffcr.pretrained import load_default_inpainting
from diffcr.records.record import make_record, write_record
from diffcr.training.history import read_history

RESULTS = Path(__file__).parent / "results"
_STORED = torch.float16


def check_embedded(built: LazyInpaintPipeline, embedded: LazyInpaintPipeline) -> None:
    """Raises DiffCRError where the embedded models are not those of a build, as they are stored."""
    for part in ("transformer", "encoder"):
        ours = getattr(built, part).state_dict()
        for name, weights in getattr(embedded, part).state_dict().items():
            if not torch.equal(ours[name].to(_STORED), weights.to(_STORED)):
                raise DiffCRError(f"{part}.{name} of the build is not the embedded one")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("build", type=Path)
    build = parser.parse_args().build
    check_embedded(
        load_inpainting_pipeline(build / "pipeline", "cpu"), load_default_inpainting("cpu")
    )
    trained = read_json(build / "training" / "training_record.json")
    history = read_history(build / "training" / "history.jsonl")
    recipe = trained.pop("recipe")
    results = {**trained, "losses": [[line["step"], line["loss"]] for line in history]}
    record = make_record(
        "pretraining-inpainting", {"recipe": recipe}, results, seeds={"training": recipe["seed"]}
    )
    print(write_record(record, RESULTS / "pretraining-inpainting.json"))


if __name__ == "__main__":
    main()

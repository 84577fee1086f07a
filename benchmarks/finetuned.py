"""Quality of what was fine-tuned: `python benchmarks/finetuned.py RUN [--captions N]`.

RUN is the directory of a training run on the embedded pipeline (`diffcr train ... --output RUN`),
DiffCR or dense. One record per run: caption accuracy, the judge's Frechet distance, held-out loss
per timestep region, FLOPs, and the training record.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import diffcr
from diffcr.evaluation.judge import load_judge
from diffcr.evaluation.records import Record, write_record
from diffcr.evaluation.run import EvaluationOptions, Subjects, evaluate
from diffcr.files import read_json
from diffcr.lora import load_lora, read_lora
from diffcr.pretrained import judge_path, load_default_pipeline
from diffcr.scenes import ScenesDataset
from diffcr.training.data import encode_dataset

RESULTS = Path(__file__).parent / "results"


def measure(run: Path, captions: int, guidance_scale: float) -> Record:
    """Evaluate a run's final weights on the test split."""
    pipe = load_default_pipeline()
    final = run / "final"
    if (final / "diffcr_config.json").exists():
        diffcr.load(pipe, final)
    else:
        load_lora(pipe.transformer, read_lora(final / "adapter"))
    test = ScenesDataset("test", size=captions)
    scenes = [test[i] for i in range(captions)]
    options = EvaluationOptions(
        guidance_scale=guidance_scale,
        held_out_samples=256,
        saved_images=0,
        denoiser_repeats=0,
        pipeline_repeats=0,
    )
    with tempfile.TemporaryDirectory() as directory:
        held_out = encode_dataset(pipe, test, Path(directory), 48)
        subjects = Subjects([scene.caption for scene in scenes], scenes, held_out)
        record = evaluate(pipe, subjects, directory, options, load_judge(judge_path()), "finetuned")
    training = read_json(run / "training_record.json")
    training["recipe"].pop("model")
    results = {k: v for k, v in record.results.items() if k not in ("images", "router_maps")}
    return replace(record, results={**results, "training": training})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--captions", type=int, default=256)
    parser.add_argument("--guidance-scale", type=float, default=4.5)
    arguments = parser.parse_args()
    measured = measure(arguments.run, arguments.captions, arguments.guidance_scale)
    target = RESULTS / f"finetuned-{arguments.run.name}.json"
    print(
        write_record(
            replace(measured, command=["benchmarks/finetuned.py", arguments.run.name]), target
        )
    )

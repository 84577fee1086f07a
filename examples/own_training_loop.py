"""DiffCR in a training loop of one's own: `python examples/own_training_loop.py [steps]`."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

import diffcr
from diffcr.pretrained import load_default_pipeline
from diffcr.scenes import ScenesDataset
from diffcr.training.data.encoding import encode_dataset
from diffcr.training.objectives import objective_of


def main(steps: int, directory: Path) -> None:
    pipe = load_default_pipeline("cpu")
    config = diffcr.DiffCRConfig(target_compression_ratio=0.3, timestep_regions=4)
    compressor = diffcr.attach(pipe, config)
    diffcr.add_lora(pipe.transformer, rank=8)
    groups = diffcr.parameter_groups(pipe, lr=5e-4, router_lr=1e-2, ratio_lr=2e-2)
    optimizer = torch.optim.AdamW(groups)

    data = encode_dataset(pipe, ScenesDataset("train", size=64), directory / "encoded", 48)
    objective = objective_of(pipe.scheduler)
    pipe.transformer.train()
    for step in range(steps):
        items = torch.randint(len(data), (8,))
        # A batch in one region is fastest; batches that mix regions are computed correctly, too.
        timesteps = torch.randint(250, (8,)) + 250 * (step % 4)
        latents, noise = data.latents[items], torch.randn(8, *data.latent_shape)
        prompts = data.prompts[data.caption_of[items]]
        output = pipe.transformer(
            objective.add_noise(latents, noise, timesteps),
            encoder_hidden_states=prompts.embeds,
            encoder_attention_mask=prompts.mask,
            timestep=timesteps,
            added_cond_kwargs={"resolution": None, "aspect_ratio": None},
        ).sample
        loss = objective.loss(output, latents, noise, timesteps).total.mean()
        (loss + compressor.ratio_loss(10.0)).backward()
        compressor.block_outward_gradients()
        optimizer.step()
        optimizer.zero_grad()
        compressor.project_ratios()
        print(f"step {step + 1}: loss {loss:.3f}, ratio {compressor.mean_compression_ratio:.1%}")

    pipe.transformer.eval()
    print(diffcr.summary(pipe))
    print(diffcr.save(pipe, directory / "compressed"))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 40, Path("runs/own-loop"))

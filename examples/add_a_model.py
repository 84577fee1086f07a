"""A transformer that diffcr has never heard of, made known from outside of the package.

The model is small and peculiar: text stands before the picture in one sequence, rotary angles have
no batch dimension, noise runs from 1 to 0. Run: python examples/add_a_model.py
"""

from __future__ import annotations

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn
from torch.nn import functional

import diffcr
from diffcr.hosts.family import Family, Grid, NoiseScale
from diffcr.hosts.layout import BlockLayout, TokenInput


class PeculiarBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.to_qkv = nn.Linear(width, 3 * width)
        self.to_out = nn.Linear(width, width)

    def forward(self, sequence: Tensor, shift: Tensor, angles: Tensor) -> Tensor:
        query, key, value = self.to_qkv(sequence + shift[:, None] + angles.cos()).chunk(3, -1)
        return sequence + self.to_out(functional.scaled_dot_product_attention(query, key, value))


class PeculiarTransformer(ModelMixin, ConfigMixin):
    @register_to_config
    def __init__(self, width: int = 32, num_layers: int = 3) -> None:
        super().__init__()
        self.layers = nn.ModuleList([PeculiarBlock(width) for _ in range(num_layers)])

    def forward(self, latents: Tensor, text: Tensor, signal: Tensor) -> Tensor:
        sequence = torch.cat([text, latents], 1)
        angles = torch.arange(sequence.shape[1])[:, None] * torch.ones(self.config.width)
        shift = signal[:, None].expand(-1, self.config.width)
        for layer in self.layers:
            sequence = layer(sequence, shift, angles)
        return sequence[:, -latents.shape[1] :]


diffcr.register_model(
    Family(
        name="peculiar",
        transformer_class=f"{PeculiarTransformer.__module__}.PeculiarTransformer",
        block_groups={
            "layers": BlockLayout(
                hidden_states="sequence",
                batched=("sequence", "shift"),
                rows="last",
                token_inputs=(TokenInput("angles", dims=(0,), shared=True),),
                first_linear="to_qkv",
            )
        },
        lora_targets=("to_qkv", "to_out"),
        timestep=NoiseScale("signal", clean=1, noisy=0),
        latents="latents",
        grid=lambda transformer, arguments: Grid(0, 0, beside=arguments["latents"].shape[1]),
        width=lambda config: int(config.width),
        conditioning="text",
    )
)


def main() -> None:
    torch.manual_seed(0)
    transformer = PeculiarTransformer().eval()
    inputs = {
        "latents": torch.randn(2, 24, 32),
        "text": torch.randn(2, 7, 32),
        "signal": torch.tensor([0.4, 0.4]),
    }
    with torch.no_grad():
        bare = transformer(**inputs)
        compressor = diffcr.attach(transformer)
        print("attached, equal to the bit:", torch.equal(transformer(**inputs), bare))
        compressor.set_compression_ratios(0.5)
        print("half of the tokens, finite:", bool(transformer(**inputs).isfinite().all()))
    print(diffcr.summary(transformer))


if __name__ == "__main__":
    main()

"""A transformer that diffcr has never heard of, made known from outside of the package: text stands
before the picture in one sequence, rotary angles have no batch dimension, noise runs from 1 to 0.
"""

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

import diffcr
from diffcr.hosts.family import Family
from diffcr.hosts.grid import Grid
from diffcr.hosts.layout import BlockLayout, TokenInput
from diffcr.hosts.noise_scale import NoiseScale


class PeculiarBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.to_qkv, self.to_out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, sequence: Tensor, shift: Tensor, angles: Tensor) -> Tensor:
        parts = self.to_qkv(sequence + shift + angles.cos()).chunk(3, -1)
        return sequence + self.to_out(nn.functional.scaled_dot_product_attention(*parts))


class PeculiarTransformer(ModelMixin, ConfigMixin):
    @register_to_config
    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.layers = nn.ModuleList([PeculiarBlock(width) for _ in range(3)])

    def forward(self, latents: Tensor, text: Tensor, signal: Tensor) -> Tensor:
        sequence = torch.cat([text, latents], 1)
        angles = torch.arange(sequence.shape[1])[:, None] * torch.ones(self.config.width)
        for layer in self.layers:
            sequence = layer(sequence, signal[:, None, None], angles)
        return sequence[:, -latents.shape[1] :]


layout = BlockLayout(
    hidden_states="sequence",
    batched=("sequence", "shift"),
    rows="last",
    token_inputs=(TokenInput("angles", dims=(0,), shared=True),),
    first_linear="to_qkv",
)
family = Family(
    name="peculiar",
    transformer_class=f"{__name__}.PeculiarTransformer",
    block_groups={"layers": layout},
    lora_targets=("to_qkv", "to_out"),
    timestep=NoiseScale("signal", clean=1, noisy=0),
    latents="latents",
    grid=lambda transformer, arguments: Grid(0, 0, beside=arguments["latents"].shape[1]),
    width=lambda config: int(config.width),
    conditioning="text",
)
diffcr.register_model(family)

torch.manual_seed(0)
transformer = PeculiarTransformer().eval()
given = (torch.randn(2, 24, 32), torch.randn(2, 7, 32), torch.tensor([0.4, 0.4]))
with torch.no_grad():
    bare = transformer(*given)
    compressor = diffcr.attach(transformer)
    print("attached, equal to the bit:", torch.equal(transformer(*given), bare))
    compressor.set_compression_ratios(0.5)
    print("half of the tokens, finite:", bool(transformer(*given).isfinite().all()))
print(diffcr.summary(transformer))

"""The embedded pipeline's tokenizer and text encoder.

A word-level T5 tokenizer over the captions' grammar, and a small T5 encoder that learns to say
every attribute from a caption, so that its embeddings bind words to places.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from string import ascii_lowercase, digits, punctuation
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from diffcr.files import replacing_directory
from diffcr.pretraining.fitting import FitSettings, attribute_loss, fit, stack_targets
from diffcr.scenes import ScenesDataset, vocabulary
from diffcr.scenes.attributes import BACKGROUND_CLASSES, OBJECT_CLASSES, PLACES

if TYPE_CHECKING:
    from transformers import T5EncoderModel, T5Tokenizer

WORD_START = "\N{LOWER ONE EIGHTH BLOCK}"
MAX_SEQUENCE_LENGTH = 48


@dataclass(frozen=True, kw_only=True)
class TextSettings(FitSettings):
    """How the text encoder is trained.

    Attributes:
        captions: Captions of the training split that it learns from.
    """

    steps: int = 1200
    batch_size: int = 64
    captions: int = 12_000


def make_tokenizer() -> T5Tokenizer:
    """Words of the grammar are one token each, anything else falls back to characters."""
    from transformers import T5Tokenizer

    words = [WORD_START + word for word in vocabulary()]
    characters = [WORD_START, *ascii_lowercase, *ascii_lowercase.upper(), *digits, *punctuation]
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    pieces += [(word, -1.0) for word in words]
    pieces += [(character, -10.0) for character in dict.fromkeys(characters)]
    tokenizer = T5Tokenizer(vocab=pieces, extra_ids=0)
    tokenizer.model_max_length = MAX_SEQUENCE_LENGTH
    return tokenizer


def make_text_encoder(vocabulary_size: int, seed: int) -> T5EncoderModel:
    """A T5 encoder of width 128 with two layers and random weights."""
    from transformers import T5Config, T5EncoderModel

    torch.manual_seed(seed)
    return T5EncoderModel(
        T5Config(
            vocab_size=vocabulary_size,
            d_model=128,
            d_kv=32,
            d_ff=256,
            num_layers=2,
            num_heads=4,
            dropout_rate=0.0,
            feed_forward_proj="gated-gelu",
            relative_attention_num_buckets=16,
            relative_attention_max_distance=32,
        )
    )


class CaptionReader(nn.Module):
    """Heads that read a scene's attributes off a caption's embeddings; thrown away after training.

    One learned query per place and one for the background attend to the tokens.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(len(PLACES) + 1, width))
        self.presence = nn.Linear(width, 1)
        classes = {**OBJECT_CLASSES, **BACKGROUND_CLASSES}
        self.heads = nn.ModuleDict({k: nn.Linear(width, len(v)) for k, v in classes.items()})

    def forward(self, embeddings: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """Logits from embeddings [B, T, D] and their mask [B, T]: [B, places, classes] and, for the
        background, [B, classes]."""
        scores = self.queries @ embeddings.transpose(1, 2) / embeddings.shape[-1] ** 0.5
        weights = scores.masked_fill(~mask.bool().unsqueeze(1), -1e4).softmax(-1)
        read = weights @ embeddings
        logits = {"presence": self.presence(read[:, :-1]).squeeze(-1)}
        for name, head in self.heads.items():
            logits[name] = head(read[:, -1] if name in BACKGROUND_CLASSES else read[:, :-1])
        return logits


def train_text_encoder(settings: TextSettings, directory: Path) -> dict[str, Any]:
    """Train the encoder on captions, and save it beside its tokenizer: `text_encoder/`,
    `tokenizer/`. Its last norm is scaled so that the embeddings' standard deviation is 1.

    Returns:
        What was done, for the record.
    """
    tokenizer = make_tokenizer()
    encoder = make_text_encoder(len(tokenizer), settings.seed)
    reader = CaptionReader(encoder.config.d_model)
    data = ScenesDataset("train", size=settings.captions)
    scenes = [data.describe(i) for i in range(len(data))]
    tokens = tokenizer([s.caption for s in scenes], padding=True, return_tensors="pt")
    targets = stack_targets(scenes)

    def loss_of(generator: torch.Generator) -> Tensor:
        rows = torch.randint(len(scenes), (settings.batch_size,), generator=generator)
        ids, mask = tokens.input_ids[rows], tokens.attention_mask[rows]
        embeddings = encoder(ids, attention_mask=mask).last_hidden_state
        return attribute_loss(reader(embeddings, mask), {k: v[rows] for k, v in targets.items()})

    parameters = [*encoder.parameters(), *reader.parameters()]
    losses = fit("text encoder", parameters, settings, loss_of, weight_decay=0.01, warm_up=0.1)
    encoder.eval()
    with torch.no_grad():
        ids, mask = tokens.input_ids[:256], tokens.attention_mask[:256]
        embeddings = encoder(ids, attention_mask=mask).last_hidden_state
        encoder.encoder.final_layer_norm.weight.div_(embeddings[mask.bool()].std())
    for name, part in (("tokenizer", tokenizer), ("text_encoder", encoder)):
        with replacing_directory(directory / name) as written:
            part.save_pretrained(str(written))
    return {"settings": asdict(settings), "losses": losses}

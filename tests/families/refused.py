"""What a family does not do, and the words with which it says so."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatch

from diffcr.hosts import families
from diffcr.hosts.pipelines.call import no_inputs
from tests.tiny_hosts import TINY_HOSTS


@dataclass(frozen=True)
class Refusal:
    """An expected `DiffCRError`, or `ValueError` of diffusers.

    feature: key of `features.FEATURES`.
    hosts: pattern of tiny hosts' names.
    message: part of the error's text.
    """

    feature: str
    hosts: str
    message: str


REFUSED: tuple[Refusal, ...] = (
    Refusal("training", "WanTransformer3DModel-i2v", "it takes 12 channels and gives 4"),
    Refusal(
        "training", "HunyuanVideoTransformer3DModel-token_replace", "it is given a first frame"
    ),
    Refusal("training", "HunyuanVideo15Transformer3DModel-i2v", "it is given a first frame"),
    Refusal(
        "training",
        "HunyuanVideoFramepackTransformer3DModel*",
        "it is given a picture and frames of the past to continue",
    ),
    Refusal("training", "CogVideoXTransformer3DModel-v15", "it takes 8 channels and gives 4"),
    Refusal("training", "ChronoEditTransformer3DModel", "it is given the picture to edit"),
    Refusal(
        "training",
        "WanAnimateTransformer3DModel",
        "it is given a reference picture and videos of a pose and a face",
    ),
    Refusal(
        "training", "GlmImageTransformer2DModel", "beside a text it is told tokens of the picture"
    ),
    Refusal(
        "gradient checkpointing",
        "ChromaTransformer2DModel*",
        "diffusers hands no mask on to single blocks then",
    ),
    Refusal(
        "gradient checkpointing",
        "LuminaNextDiT2DModel*",
        "LuminaNextDiT2DModel does not support gradient checkpointing",
    ),
    Refusal(
        "compiled blocks",
        "HiDreamImageTransformer2DModel*",
        "its experts count their tokens on the host, which breaks a graph",
    ),
    Refusal(
        "reuse of steps",
        "LTX2VideoTransformer3DModel*",
        "it denoises audio_hidden_states beside the tokens",
    ),
    *(
        Refusal(
            "gate sigmoid-mlp",
            hosts,
            "its blocks have no feed-forward that computes the routed tokens alone: give another "
            "gate than 'sigmoid-mlp'",
        )
        for hosts in (
            *("CogView4Transformer2DModel*", "CogView3PlusTransformer2DModel*"),
            *("GlmImageTransformer2DModel*", "EasyAnimateTransformer3DModel*"),
        )
    ),
)


def refusal(feature: str, host: str) -> Refusal | None:
    """What is expected of a host; None where the feature works."""
    for expected in REFUSED:
        if expected.feature == feature and fnmatch(host, expected.hosts):
            return expected
    if feature == "training" and _is_untrained(host):
        return Refusal(feature, host, "is called in training is not known")
    return None


def _is_untrained(host: str) -> bool:
    by_path = {family.transformer_class: family for family in families().values()}
    return by_path[TINY_HOSTS[host].transformer_class].call.inputs is no_inputs

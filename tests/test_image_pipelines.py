"""Pipelines of pictures whose text encoders have no tiny form: training calls their transformers as
they do for embeddings that are passed in."""

from __future__ import annotations

from functools import partial
from itertools import chain
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import (
    BriaFiboPipeline,
    CogView4Pipeline,
    FlowMatchEulerDiscreteScheduler,
    HiDreamImagePipeline,
    HiDreamImageTransformer2DModel,
    LuminaPipeline,
)
from diffusers.pipelines.ideogram4.pipeline_ideogram4 import Ideogram4Pipeline
from diffusers.pipelines.longcat_image.pipeline_longcat_image import prepare_pos_ids
from diffusers.pipelines.omnigen.processor_omnigen import OmniGenCollator
from torch import Tensor
from transformers import (
    CLIPTextModelWithProjection,
    GlmConfig,
    GlmModel,
    LlamaConfig,
    LlamaForCausalLM,
    SmolLM3Config,
    SmolLM3ForCausalLM,
)

from diffcr.errors import DiffCRError
from diffcr.hosts import family_of
from diffcr.hosts.pipelines.prompt import Prompt, of_rows
from diffcr.hosts.sampling import _levels_of_scheduler
from tests.flow_pipelines import tiny_clip, tiny_clip_tokenizer
from tests.image_pipelines import (
    EMBEDS,
    GIVEN,
    MASK,
    TEXT,
    UNGUIDED,
    host,
    scheduler,
)
from tests.one_step import OneStep, assert_same, one_step
from tests.pipelines import tiny_text_encoder, tiny_tokenizer
from tests.tiny_hosts import TINY_HOSTS
from tests.tiny_hosts.flux_layout import FIBO_WIDTH
from tests.tiny_hosts.host import seeded


def assert_called_as_the_pipeline_calls(
    pipe: Any, step: OneStep, prompt: Prompt, size: tuple[int, int]
) -> None:
    """What the family makes of the step's latents, of so many rows and columns, and of the prompt
    are the arguments that the pipeline gave, and of the output what it told its scheduler."""
    family, transformer = family_of(pipe.transformer), pipe.transformer
    scale = family.denoising_scale(transformer.config)
    values = scale.per_sample(step.inputs[scale.argument])
    packed = step.sample.dim() == 3
    shape = (1, family.call.latent_channels(transformer.config), *size)

    def latents_of(values: Tensor) -> Tensor:
        return _unpacked(values, shape) if packed else values

    latents = latents_of(step.sample)
    given = family.call.inputs(transformer, latents, values, prompt)
    for argument, expected in step.inputs.items():
        assert_same(given.get(argument), expected, argument)
    assert set(given) <= set(step.inputs)
    predicted = family.call.prediction(transformer, step.output, latents)
    assert torch.equal(predicted, latents_of(step.prediction))


def _unpacked(tokens: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Of tokens [B, N, C p p] latents of a shape (B, C, h, w)."""
    _, channels, rows, columns = shape
    side = round((tokens.shape[2] // channels) ** 0.5)
    grid = tokens.view(1, rows // side, columns // side, channels, side, side)
    return grid.permute(0, 3, 1, 4, 2, 5).reshape(shape)


@pytest.mark.parametrize("name", GIVEN)
def test_training_calls_a_model_as_its_pipeline_does(name: str) -> None:
    given = GIVEN[name]
    pipe = given.make()
    # Latents of 8 x 8, which are packed and squares where a class asks for it.
    side = {"hunyuan-image": 256, "bria": 32, "klein": 16}.get(name, 64)
    step = one_step(pipe, height=side, width=side, **given.options)
    assert_called_as_the_pipeline_calls(pipe, step, given.prompt, (8, 8))


def test_lumina_next_is_called_with_the_first_rows_of_the_pipelines_table() -> None:
    transformer = host("LuminaNextDiT2DModel")
    pipe = LuminaPipeline(transformer, FlowMatchEulerDiscreteScheduler(), None, None, None)
    given = {"prompt_attention_mask": MASK, "negative_prompt_embeds": TEXT, "clean_caption": False}
    options = EMBEDS | UNGUIDED | given | {"negative_prompt_attention_mask": MASK}
    # Of the model's own size, 16 x 16 latents.
    step = one_step(pipe, height=128, width=128, **options)
    step.inputs["image_rotary_emb"] = step.inputs["image_rotary_emb"][:8, :8]
    assert_called_as_the_pipeline_calls(pipe, step, Prompt(TEXT, MASK), (16, 16))


def test_fibo_is_told_every_layer_of_its_text_encoder() -> None:
    tokenizer = tiny_tokenizer()
    sizes = {"hidden_size": FIBO_WIDTH, "intermediate_size": 8, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 1, "num_key_value_heads": 1, "vocab_size": len(tokenizer)}
    config = SmolLM3Config(**sizes, **heads, pad_token_id=0, use_sliding_window=False)
    encoder = seeded(lambda: SmolLM3ForCausalLM(config))()
    transformer = host("BriaFiboTransformer2DModel")
    pipe = BriaFiboPipeline(transformer, scheduler(), None, encoder, tokenizer)
    step = one_step(pipe, prompt=["a red circle"], height=128, width=128, **UNGUIDED)
    encode = family_of(transformer).call.encode_prompt
    assert_called_as_the_pipeline_calls(pipe, step, encode(pipe, ["a red circle"], 48), (8, 8))
    both = encode(pipe, ["a red circle", "a blue square and a star"], 48)
    length = int(both.mask[0].sum())
    assert length < both.embeds.shape[1]
    assert torch.equal(both.embeds[:1, :length], encode(pipe, ["a red circle"], 48).embeds)
    latents = torch.randn(2, 16, 8, 8)
    call = family_of(transformer).call.inputs(transformer, latents, torch.ones(2), both)
    seen = call["joint_attention_kwargs"]["attention_mask"]
    assert seen.shape == (2, 1, 1, both.embeds.shape[1] + 64)
    assert seen[0].logical_not().sum() == both.embeds.shape[1] - length and seen[1].all()


def test_hidream_is_told_all_layers_of_llama() -> None:
    clip, t5 = tiny_clip_tokenizer(), tiny_tokenizer()
    sizes = {"hidden_size": 18, "intermediate_size": 8, "num_hidden_layers": 3}
    heads = {"num_attention_heads": 1, "head_dim": 18, "vocab_size": len(t5)}
    encoders = (
        partial(tiny_clip, CLIPTextModelWithProjection, len(clip)),
        partial(tiny_clip, CLIPTextModelWithProjection, len(clip)),
        partial(tiny_text_encoder, len(t5)),
        lambda: LlamaForCausalLM(LlamaConfig(**sizes, **heads)),
    )
    texts = zip((seeded(e)() for e in encoders), (clip, clip, t5, tiny_tokenizer()), strict=True)
    own = host("HiDreamImageTransformer2DModel").config
    widths = {"caption_channels": [32, 18], "text_emb_dim": 32}
    transformer = seeded(partial(HiDreamImageTransformer2DModel.from_config, own, **widths))()
    pipe = HiDreamImagePipeline(scheduler(), None, *chain.from_iterable(texts), transformer)
    pipe.default_sample_size = 8
    caption, length = ["a red circle"], {"max_sequence_length": 16}
    step = one_step(pipe, prompt=caption, height=64, width=64, **length, **UNGUIDED)
    prompt = family_of(transformer).call.encode_prompt(pipe, caption, **length)
    assert_called_as_the_pipeline_calls(pipe, step, prompt, (8, 8))


@pytest.mark.parametrize(
    ("name", "option", "reason"),
    [
        ("CogView4Transformer2DModel", {"in_channels": 8}, "it takes 8 channels and gives 4"),
        ("HunyuanImageTransformer2DModel", {"in_channels": 8}, "it takes 8 channels and gives 4"),
        ("HunyuanImageTransformer2DModel", {"use_meanflow": True}, "the sampler's next step"),
        ("PRXTransformer2DModel", {"resolution_embeds": True}, "it denoises pixels"),
    ],
)
def test_a_model_that_is_told_more_than_a_text_is_refused(
    name: str, option: dict[str, Any], reason: str
) -> None:
    plain = host(name)
    transformer = type(plain).from_config(plain.config, **option)
    with pytest.raises(DiffCRError, match=reason):
        family_of(transformer).call.check_trainable(transformer)


def test_captions_of_cogview4_are_as_long_in_every_call() -> None:
    tokenizer = tiny_tokenizer()
    sizes = {"hidden_size": 20, "intermediate_size": 8, "num_hidden_layers": 2, "head_dim": 10}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": len(tokenizer)}
    encoder = seeded(lambda: GlmModel(GlmConfig(**sizes, **heads, pad_token_id=0)))()
    transformer = host("CogView4Transformer2DModel")
    pipe = CogView4Pipeline(tokenizer, encoder, None, transformer, scheduler())
    encode = family_of(transformer).call.encode_prompt
    captions = ["", "a red circle", "a blue square and a star"]
    together = encode(pipe, captions, 16)
    assert together.embeds.shape == (3, 16, 20)
    assert torch.allclose(encode(pipe, captions[1:2], 16).embeds, together.embeds[1:2], atol=1e-5)


def call(name: str, prompt: Prompt, channels: int = 4) -> dict[str, Any]:
    """What training gives the transformer of a host for latents of 4 x 6."""
    transformer, samples = host(name), len(prompt)
    latents = torch.randn(samples, channels, 4, 6)
    return family_of(transformer).call.inputs(transformer, latents, torch.ones(samples), prompt)


def test_no_token_is_cut_that_is_seen() -> None:
    longer = Prompt(torch.randn(1, 4, 2), torch.tensor([[0, 1, 1, 0]]))
    shorter = Prompt(torch.randn(1, 2, 2), torch.tensor([[1, 0]]))
    joined = Prompt.concatenated([longer, shorter])
    assert torch.equal(joined.mask, torch.tensor([[0, 1, 1], [1, 0, 0]]))
    assert torch.equal(joined.embeds[0], longer.embeds[0, :3])
    assert torch.equal(joined.embeds[1, :2], shorter.embeds[0]) and not joined.embeds[1, 2].any()


def test_places_of_longcat_are_the_pipelines() -> None:
    given = call("LongCatImageTransformer2DModel", Prompt(TEXT))
    image = prepare_pos_ids(1, "image", start=(512, 512), height=2, width=3)
    assert torch.equal(given["img_ids"], image)
    assert torch.equal(given["txt_ids"], prepare_pos_ids(0, "text", num_token=6))


def test_rows_of_ideogram_are_the_pipelines() -> None:
    prompt = of_rows([torch.randn(3, 20), torch.randn(5, 20)])
    given = call("Ideogram4Transformer2DModel", prompt)
    places, segments, kinds = Ideogram4Pipeline._prepare_ids([3, 5], 2, 3, 5, torch.device("cpu"))
    assert torch.equal(given["position_ids"], places)
    assert torch.equal(given["segment_ids"], segments)
    assert torch.equal(given["indicator"], kinds)
    assert torch.equal(given["encoder_hidden_states"][0, 2:5], prompt.embeds[0, :3])
    assert not given["encoder_hidden_states"][0, :2].any()
    assert not given["encoder_hidden_states"][:, 5:].any()
    assert not given["hidden_states"][:, :5].any()


def test_rows_of_omnigen_are_the_pipelines() -> None:
    texts = [[5, 6, 7], [8, 9, 10, 11, 12]]
    given = call("OmniGenTransformer2DModel", of_rows([torch.tensor(text) for text in texts]))
    inputs = [{"input_ids": t, "pixel_values": None, "image_sizes": None} for t in texts]
    # Its latents are 8 times smaller than the picture.
    collated = OmniGenCollator(pad_token_id=0).process_mllm_input(inputs, [[32, 48]] * 2)
    ids, places, mask, *_ = collated
    assert torch.equal(given["input_ids"], ids)
    assert torch.equal(given["position_ids"], places)
    assert torch.equal(given["attention_mask"], mask)


@pytest.mark.parametrize("variant", ["", "-square"])
def test_what_hidream_gives_in_training_is_what_it_predicts(variant: str) -> None:
    name = "HiDreamImageTransformer2DModel" + variant
    transformer, given = host(name), TINY_HOSTS[name].inputs(2, 0)
    predict = family_of(transformer).call.prediction
    with torch.no_grad():
        expected = predict(transformer, transformer(**given)[0], given["hidden_states"])
        output = transformer.train()(**given)[0]
    assert output.shape != expected.shape
    found = predict(transformer, output, given["hidden_states"])
    assert torch.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("inverted", [True, False])
def test_a_scheduler_that_counts_to_1_says_the_same_levels(inverted: bool) -> None:
    """OmniGen's."""
    told = FlowMatchEulerDiscreteScheduler(num_train_timesteps=1, invert_sigmas=inverted)
    told.set_timesteps(sigmas=[1.0, 0.75, 0.25])
    pipe = SimpleNamespace(transformer=host("OmniGenTransformer2DModel"), scheduler=told)
    assert _levels_of_scheduler(pipe, told.timesteps) == [1.0, 0.75, 0.25]

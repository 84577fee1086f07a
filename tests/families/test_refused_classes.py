"""Classes that no method can be attached to say why."""

from __future__ import annotations

import re

import pytest
from diffusers.models import transformers
from torch import nn

import diffcr
from diffcr.errors import DiffCRError
from diffcr.hosts import families
from diffcr.hosts.refused import REFUSED_CLASSES
from tests.tiny_hosts import TINY_HOSTS


def test_sana_says_why() -> None:
    with pytest.raises(DiffCRError, match="SanaTransformer2DModel is not supported: its feed-for"):
        diffcr.attach(TINY_HOSTS["SanaTransformer2DModel"].make())


@pytest.mark.parametrize("name", REFUSED_CLASSES)
def test_a_refused_class_is_of_diffusers_and_says_why(name: str) -> None:
    cls = getattr(transformers, name)
    assert name not in families()
    model = cls.__new__(cls)
    nn.Module.__init__(model)
    with pytest.raises(DiffCRError, match=re.escape(f"{name} is not supported: ")):
        diffcr.attach(model)

"""Outliers go in, the function stays."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from vlmbench.catalogue import compressions
from vlmbench.embedded import outliers
from vlmbench.models.qwen2 import QWEN2
from vlmbench.spec import Source
from vlmbench.variant import load

NORMS = ("input_layernorm", "post_attention_layernorm")


@pytest.fixture
def networks(tiny: Path) -> tuple[Any, Any, list[int]]:
    """(before, after, the scaled channels); norms that are no ones, as after training."""
    before = load(QWEN2, compressions()["32bit"], Source(str(tiny))).network
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for layer in before.model.language_model.layers:
            for name in NORMS:
                norm = layer.get_submodule(name).weight
                norm.copy_(1 + 0.2 * torch.randn(norm.shape, generator=generator))
    after = copy.deepcopy(before)
    channels = outliers.put_in(after.model.language_model.layers, generator)
    return before, after, channels


def test_logits_are_the_same(networks: Any, tiny_inputs: Any) -> None:
    before, after, _ = networks
    with torch.inference_mode():
        old, new = (network(**tiny_inputs).logits for network in (before, after))
    assert torch.allclose(old, new, rtol=0, atol=1e-4)
    # Scaling by a power of two rounds nothing, so only the order of sums could differ.
    assert torch.equal(old, new)


def test_a_few_channels_are_far_larger(networks: Any, tiny_inputs: Any) -> None:
    seen: dict[str, torch.Tensor] = {}
    before, after, channels = networks
    assert len(channels) == outliers.CHANNELS == len(set(channels))
    for label, network in (("before", before), ("after", after)):
        for i, layer in enumerate(network.model.language_model.layers):
            for name in NORMS:
                layer.get_submodule(name).register_forward_hook(
                    lambda module, inputs, output, key=f"{label} {i} {name}": seen.update(
                        {key: output.abs().amax((0, 1))}
                    )
                )
        with torch.inference_mode():
            network(**tiny_inputs)
    others = [c for c in range(128) if c not in channels]
    assert len(seen) == 8
    for key in [key for key in seen if key.startswith("after")]:
        old, new = seen[key.replace("after", "before")], seen[key]
        assert torch.equal(new[channels], old[channels] * outliers.FACTOR)
        assert torch.equal(new[others], old[others])
        assert new[channels].min() > 5 * new[others].max()


def test_bfloat16_keeps_every_bit(networks: Any) -> None:
    before, after, channels = networks
    for name in ("self_attn.v_proj", "mlp.up_proj"):
        old, new = (
            n.model.language_model.layers[1].get_submodule(name).weight.bfloat16()
            for n in (before, after)
        )
        assert torch.equal(old[:, channels], new[:, channels] * outliers.FACTOR)

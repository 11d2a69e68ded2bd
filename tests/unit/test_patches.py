"""Patches are embedded by a product that gives what the convolution gives."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from vlmbench.embedded import CHECKPOINTS
from vlmbench.patches import as_products


@pytest.mark.parametrize("bias", [True, False])
def test_a_kernel_over_the_whole_patch_is_a_product(bias: bool) -> None:
    torch.manual_seed(0)
    convolution = nn.Conv3d(3, 8, (2, 14, 14), (2, 14, 14), bias=bias)
    patches = torch.randn(20, 3, 2, 14, 14)
    expected = convolution(patches)
    assert as_products(nn.Sequential(convolution)) == 1
    torch.testing.assert_close(convolution(patches), expected)
    assert convolution(patches).shape == (20, 8, 1, 1, 1)


def test_a_whole_picture_is_convolved_as_ever() -> None:
    convolution = nn.Conv2d(3, 8, 14, 14)
    picture = torch.randn(2, 3, 28, 42)
    expected = convolution(picture)
    assert as_products(convolution) == 1
    assert torch.equal(convolution(picture), expected)


@pytest.mark.parametrize(
    "convolution",
    [nn.Conv2d(3, 8, 3), nn.Conv2d(3, 8, 2, 2, padding=1), nn.Conv2d(4, 8, 2, 2, groups=2)],
)
def test_other_convolutions_are_left_alone(convolution: nn.Conv2d) -> None:
    assert as_products(convolution) == 0
    assert "forward" not in vars(convolution)


def test_the_shipped_network_has_one() -> None:
    from transformers import Qwen2VLForConditionalGeneration

    network = Qwen2VLForConditionalGeneration.from_pretrained(CHECKPOINTS / "qwen2")
    names = set(network.state_dict())
    assert as_products(network) == 1
    assert set(network.state_dict()) == names

"""Weights without their zeros are the same weights, multiplied by either product."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from linears import FEW, PRODUCTS, linear, tokens
from torch import Tensor, nn

from vlmbench import packed_sparse
from vlmbench.packed import Sparse24Linear
from vlmbench.pruning import two_of_four


def pruned(inputs: int = 256, outputs: int = 192, bias: bool = True) -> nn.Linear:
    layer = linear(inputs, outputs, bias)
    layer.weight.copy_(two_of_four(layer.weight, torch.ones(inputs)))
    return layer


def expected(layer: nn.Linear, inputs: Tensor) -> Tensor:
    made = nn.functional.linear(inputs.bfloat16(), layer.weight.bfloat16()).to(inputs.dtype)
    return made if layer.bias is None else made + layer.bias


def test_what_is_kept_comes_back_to_the_bit() -> None:
    layer = pruned()
    packed = Sparse24Linear.of(layer)
    assert torch.equal(packed.dequantized(torch.bfloat16), layer.weight.bfloat16())
    assert packed.dequantized().dtype == torch.float32
    held = packed.weight.nbytes + packed.places.nbytes
    assert held * 8 == 9 * layer.weight.numel(), "9 bits a weight"


def test_more_zeros_than_two_of_four_are_no_harm() -> None:
    layer = pruned()
    layer.weight[:, :128] = 0
    layer.weight[3] = 0
    made = Sparse24Linear.of(layer).dequantized(torch.bfloat16)
    assert torch.equal(made, layer.weight.bfloat16())


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_multiplies_as_the_pruned_linear(bias: bool, dtype: torch.dtype) -> None:
    layer = pruned(bias=bias).to(dtype)
    packed = Sparse24Linear.of(layer)
    for shape in (*((count, 256) for count in PRODUCTS), (2, 3, 256), (0, 256)):
        x = torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(dtype)
        assert torch.equal(packed(x), expected(layer, x))
        assert packed(x).dtype == dtype and packed(x).shape == (*shape[:-1], 192)
    assert packed.product == "unpacked bfloat16"


def test_where_zeros_are_skipped_the_stored_bytes_are_multiplied(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The product of such a GPU is given what torch's own tensor would give it."""
    from torch.sparse import _semi_structured_conversions as cutlass

    layer, asked = pruned(), []

    def product(packed: Tensor, meta: Tensor, dense: Tensor, **options: Any) -> Tensor:
        asked.append((packed, meta, dense.shape))
        return cutlass.sparse_semi_structured_to_dense_cutlass(packed, meta) @ dense

    monkeypatch.setattr(torch, "_sparse_semi_structured_mm", product)
    monkeypatch.setattr(packed_sparse, "_skips_zeros", lambda device: True)
    packed, x = Sparse24Linear.of(layer), tokens(FEW, 256)
    with torch.inference_mode(), pytest.warns(UserWarning, match="prototype"):
        made = packed(x)
    torch.testing.assert_close(made, expected(layer, x).bfloat16())
    ((values, places, shape),) = asked
    assert values.data_ptr() == packed.weight.data_ptr() and torch.equal(places, packed.places)
    assert shape == (256, 8), "tokens are filled up to eight"
    assert packed.product == "2:4 sparse"
    with torch.inference_mode():
        assert packed(x[:0]).shape == (0, 192) and len(asked) == 1


@pytest.mark.parametrize(("major", "skips"), [(7, False), (8, True), (9, False)])
def test_the_product_is_of_compute_capability_8(
    monkeypatch: pytest.MonkeyPatch, major: int, skips: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (major, 7))
    assert packed_sparse._skips_zeros(torch.device("cuda")) is skips
    assert not packed_sparse._skips_zeros(torch.device("cpu"))


def test_weights_that_are_not_pruned_are_refused() -> None:
    layer = pruned()
    layer.weight[5, 8:11] = 1
    with pytest.raises(ValueError, match="more than two of four weights are not zero"):
        Sparse24Linear.of(layer)


@pytest.mark.parametrize("size", [(96, 192), (256, 100)])
def test_sizes_that_no_product_takes_are_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=r"expected multiples of 32 x 64"):
        Sparse24Linear.of(pruned(*size))

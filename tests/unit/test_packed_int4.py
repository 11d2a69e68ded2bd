"""Weights of 4 bits are the nearest codes, and both products multiply with them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from linears import FEW, MANY, PRODUCTS, int8, linear, tokens
from torch import Tensor, nn

from vlmbench import packed_codes
from vlmbench.packed import Int4Linear, group_size, quantized, rounded


@pytest.mark.parametrize("bits", [3, 4])
@pytest.mark.parametrize("seed", range(3))
def test_int4_codes_are_the_nearest(bits: int, seed: int) -> None:
    weight = linear(seed=seed).weight + 0.02 * seed
    codes, scales, zeros = quantized(weight, 64, bits)
    assert codes.min() == 0 and codes.max() == 2**bits - 1 and zeros.max() < 2**bits
    assert torch.equal(scales, scales.bfloat16().float())
    steps = scales.repeat_interleave(64, 1)
    expected = (codes.double() - zeros.repeat_interleave(64, 1)) * steps
    assert torch.equal(rounded(weight, 64, bits).double(), expected)
    # Half a step, and what the scale's own rounding takes from the ends.
    assert ((expected - weight).abs() <= (0.5 + 2**bits / 256) * steps).all()
    assert (expected - weight).abs().mean() < 0.27 * steps.mean()


@pytest.mark.parametrize("sign", [1, -1])
def test_a_group_of_one_sign_keeps_its_largest(sign: int) -> None:
    weight = sign * (1 + torch.rand(4, 64))
    assert torch.allclose(rounded(weight, 64), weight, atol=2 / 15 * 0.55)


def test_constant_groups_stay() -> None:
    weight = torch.tensor([0.0, 1e-30, 0.5, -3.0, 1e-45])[:, None].expand(5, 64)
    assert torch.allclose(rounded(weight, 64), weight, rtol=2**-8, atol=1e-40)
    assert (quantized(weight, 64, 4)[1] > 0).all()  # a code of 0 / 0 could be any


@pytest.mark.parametrize(
    ("inputs", "group", "expected"),
    [(1536, 128, 128), (96, 128, 96), (4304, 128, 16), (100, 64, 50), (160, 128, 80), (8, 128, 8)],
)
def test_a_group_divides_the_input(inputs: int, group: int, expected: int) -> None:
    assert group_size(inputs, group) == expected
    layer = Int4Linear.of(linear(inputs), group=group)
    assert layer.scales.shape == (192, inputs // expected)
    assert torch.equal(layer.dequantized(), rounded(linear(inputs).weight, group))
    for count in PRODUCTS:
        x = tokens(count, inputs)
        expected_out = nn.functional.linear(x.float(), layer.dequantized(), layer.bias)
        assert torch.allclose(layer(x.float()), expected_out, atol=0.15, rtol=0.02)


@pytest.mark.parametrize("inputs", [127, 254, 6])
def test_an_input_that_cannot_be_grouped_is_refused(inputs: int) -> None:
    with pytest.raises(ValueError, match=f"{inputs} input channels cannot be split"):
        Int4Linear.of(linear(inputs))
    with pytest.raises(ValueError, match=f"{inputs} input channels cannot be split"):
        int8("group", "group")(linear(inputs))


@pytest.mark.parametrize("bits", [3, 4])
@pytest.mark.parametrize("bias", [True, False])
def test_int4_is_its_rounded_weights(bits: int, bias: bool) -> None:
    source = linear(bias=bias)
    layer = Int4Linear.of(source, bits=bits)
    assert torch.equal(layer.dequantized(), rounded(source.weight, bits=bits))
    for count in PRODUCTS:
        x = tokens(count, 256)
        exact = x.double() @ layer.dequantized(torch.float64).T
        exact = exact + source.bias.double() if bias else exact
        assert (layer(x) - exact).norm() < 0.004 * exact.norm()


@pytest.mark.parametrize("size", [(256, 192), (256, 96), (1536, 320)])
def test_both_products_agree(size: tuple[int, int]) -> None:
    layer, x = Int4Linear.of(linear(*size, bias=False)), tokens(FEW, size[0])
    unpacked = layer._by_unpacked(x)
    few = layer(x)
    assert (few - unpacked).float().norm() < 0.006 * unpacked.float().norm()
    if layer._table is not None:
        assert torch.equal(few, layer._by_packed(x)) and not torch.equal(few, unpacked)
    assert torch.equal(layer._by_unpacked(x), unpacked)
    assert torch.equal(layer(tokens(MANY, size[0])), layer._by_unpacked(tokens(MANY, size[0])))


def test_this_machine_has_the_packed_product() -> None:
    """So that the tests of packing test it; else it is known not to be."""
    layer = Int4Linear.of(linear())
    layer(tokens(FEW, 256))
    if torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512"):
        assert layer.product == "int4pack" and layer._table is not None


def test_packing_takes_the_place_of_the_bytes() -> None:
    layer = Int4Linear.of(linear())
    before, weights = layer.weight.clone(), layer.dequantized()
    layer(tokens(FEW, 256))
    assert layer.weight.nbytes == before.nbytes
    if layer._table is not None:
        assert not torch.equal(layer.weight, before)
        assert layer._table.nbytes <= layer.scales.nbytes
    assert torch.equal(layer.dequantized(), weights)
    assert torch.equal(layer.state_dict()["weight"], before)
    assert torch.equal(layer(tokens(FEW, 256)), Int4Linear.of(linear())(tokens(FEW, 256)))


def test_an_order_that_is_not_known_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def shuffled(packed: Tensor, in_features: int, block: int) -> Tensor:
        return packed_codes.of_halves(packed, in_features)

    monkeypatch.setattr(packed_codes, "of_blocks", shuffled)
    layer = Int4Linear.of(linear(bias=False))
    before, expected = layer.weight.clone(), layer._by_unpacked(tokens(FEW, 256))
    assert torch.equal(layer(tokens(FEW, 256)), expected)
    assert torch.equal(layer.weight, before) and layer.product == "unpacked bfloat16"


@pytest.mark.parametrize("error", [RuntimeError("not implemented"), AttributeError("no such op")])
def test_without_the_operation_it_still_answers(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(codes: Tensor) -> Any:
        raise error

    monkeypatch.setattr(packed_codes, "_packed", fail)
    layer = Int4Linear.of(linear(bias=False))
    assert torch.equal(layer(tokens(FEW, 256)), layer._by_unpacked(tokens(FEW, 256)))
    assert layer.product == "unpacked bfloat16"


def test_memory_that_runs_out_is_no_lack_of_the_operation(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(codes: Tensor) -> Any:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(packed_codes, "_packed", fail)
    with pytest.raises(torch.OutOfMemoryError):
        Int4Linear.of(linear())(tokens(FEW, 256))


@pytest.mark.parametrize("tiles", [(8, 128), (24, 256)])
def test_the_order_of_cuda_products(tiles: tuple[int, int]) -> None:
    """As the kernel of torch puts them (int4mm.cu), written out lane by lane."""
    rows, columns = tiles
    codes = torch.randint(16, tiles, generator=torch.Generator().manual_seed(0))
    words = torch.zeros(rows // 8, columns // 128, 32, 4, dtype=torch.int64)
    for block, outer, lane, pair in torch.cartesian_prod(*map(torch.arange, words.shape)).tolist():
        first = (outer * 8 + 2 * pair) * 16 + lane % 4 * 2
        spots = [first + base + half + odd for base in (0, 16) for half in (0, 8) for odd in (0, 1)]
        v = codes[block * 8 + lane // 4, spots].tolist()
        nibbles = (v[0], v[2], v[4], v[6], v[1], v[3], v[5], v[7])
        words[block, outer, lane, pair] = sum(n << 4 * i for i, n in enumerate(nibbles))
    packed = (words & 0xFFFFFFFF).to(torch.uint32).view(torch.uint8).view(rows, columns // 2)
    assert torch.equal(packed_codes.of_tiles(packed, columns), codes.to(torch.uint8))

"""Small linears are as small as they say, and answer as their rounded weights do."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from linears import FEW, INTEGERS, MAKES, MANY, PRODUCTS, Make, in_float64, linear, tokens
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from vlmbench.packed import Int4Linear, Int8Linear

by_kind = pytest.mark.parametrize("make", MAKES.values(), ids=MAKES)
by_integers = pytest.mark.parametrize("make", INTEGERS.values(), ids=INTEGERS)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@by_kind
def test_weights_that_are_no_numbers_stay_so(make: Make, bad: float) -> None:
    source = linear()
    source.weight[7, 200] = bad
    assert not make(source)(tokens(3, 256))[:, 7].isfinite().any()


def test_bits_that_do_not_exist_are_refused() -> None:
    with pytest.raises(ValueError, match="of 5 bits were asked for; expected 3 or 4"):
        Int4Linear.of(linear(), bits=5)
    with pytest.raises(ValueError, match="of 6 bits were asked for; expected 4 or 8"):
        Int8Linear.of(linear(), weights="row", activations="token", bits=6)
    with pytest.raises(ValueError, match="need input_absmax"):
        Int8Linear.of(linear(), weights="row", activations="tensor")


@by_integers
@pytest.mark.parametrize("bias", [True, False])
def test_int8_is_its_codes(make: Make, bias: bool) -> None:
    source = linear(bias=bias)
    layer, x = make(source), tokens(MANY, 256)
    codes = layer._integers(slice(None))
    assert codes.dtype == torch.int8 and codes.abs().max() == layer.most
    step = layer.scales.max()
    assert (layer.dequantized() - source.weight).abs().max() <= 0.501 * step
    expected = in_float64(layer, x)
    assert torch.allclose(layer(x.float()).double(), expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(layer(x), layer(x.float()).bfloat16())


def test_int8_products_are_of_integers(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.dtype] = []
    multiply = torch._int_mm

    def watched(one: Tensor, other: Tensor) -> Tensor:
        seen.extend((one.dtype, other.dtype))
        return multiply(one, other)

    monkeypatch.setattr(torch, "_int_mm", watched)
    for make in INTEGERS.values():
        assert make(linear())(tokens(3, 256)).isfinite().all()
    assert len(seen) >= 2 * len(INTEGERS) and set(seen) == {torch.int8}


@by_kind
def test_a_token_does_not_depend_on_its_batch(make: Make) -> None:
    layer, x = make(linear()), tokens(40, 256)
    other = torch.cat([x[:1], 100 * tokens(39, 256, seed=2)])
    assert torch.equal(layer(x)[:1], layer(other)[:1])


@by_integers
def test_a_token_alone_is_as_in_a_batch(make: Make) -> None:
    layer, x = make(linear()), tokens(MANY, 256)
    alone = torch.cat([layer(token) for token in x.split(1)])
    assert torch.equal(layer(x), alone)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("count", PRODUCTS)
@by_kind
def test_what_is_no_number_stays_so(make: Make, count: int, bad: float) -> None:
    layer, x = make(linear()), tokens(count, 256)
    clean = layer(x)
    x[2, 130] = bad
    out = layer(x)
    assert not out[2].isfinite().any()
    assert torch.equal(out[:2], clean[:2]) and torch.equal(out[3:], clean[3:])


@by_kind
def test_zeros_give_the_bias(make: Make) -> None:
    source = linear()
    source.weight[3] = 0
    layer, x = make(source), tokens(4, 256)
    x[1], x[2, 128:] = 0, 0
    out = layer(x.float())
    assert out.isfinite().all()
    assert (layer.scales > 0).all()  # a code of 0 / 0 could be any
    assert isinstance(layer, Int4Linear) or (layer._rounded(x)[1] > 0).all()
    assert torch.equal(out[1], source.bias) and torch.equal(out[:, 3], source.bias[3].expand(4))


@by_kind
def test_takes_every_shape_and_dtype(make: Make) -> None:
    layer, x = make(linear()), tokens(2, 3, 256)
    flat = layer(x.view(6, 256))
    assert torch.equal(layer(x), flat.view(2, 3, 192))
    assert torch.equal(layer(x.transpose(0, 1)), flat.view(2, 3, 192).transpose(0, 1))
    assert layer(x[:0]).shape == (0, 3, 192) and layer(x[0, :0]).shape == (0, 192)
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        assert layer(x.to(dtype)).dtype == dtype
    kept = x.float()
    layer(kept)
    assert torch.equal(kept, x.float())
    with pytest.raises(RuntimeError):
        layer(torch.zeros(2, 128))


@by_kind
@pytest.mark.parametrize("run", [False, True])
def test_saved_and_loaded_it_is_the_same(make: Make, run: bool, tmp_path: Path) -> None:
    layer, x = make(linear()), tokens(FEW, 256)
    expected = make(linear())(x)
    if run:
        with torch.inference_mode():
            layer(x)
    save_file(layer.state_dict(), tmp_path / "layer.safetensors")
    with torch.device("meta"):
        empty = type(layer)(256, 192, True, **layer.described())
    assert {t.device.type for t in empty.state_dict().values()} == {"meta"}
    loaded = load_file(tmp_path / "layer.safetensors")
    empty.load_state_dict(loaded, assign=True)
    assert torch.equal(empty(x), expected) and torch.equal(layer(x), expected)
    # A layer that has run takes other weights, too.
    other = make(linear(seed=3))
    other(x)
    other.load_state_dict(loaded)
    assert torch.equal(other(x), expected)


@by_kind
def test_copied_and_moved_it_is_the_same(make: Make) -> None:
    with torch.inference_mode():
        layer, x = make(linear()), tokens(FEW, 256)
        expected = layer(x)
    copied = copy.deepcopy(layer)
    assert torch.equal(copied(x), expected)
    moved = copied.to("cpu").to(torch.bfloat16)
    assert moved.weight.dtype in (torch.uint8, torch.int8)
    assert moved.to("meta")(x.to("meta")).shape == (FEW, 192)
    assert torch.equal(layer(x), expected)
    assert "in_features=256, out_features=192" in repr(layer) and "bits=" in repr(layer)


@by_kind
@pytest.mark.parametrize("size", [(256, 31), (144, 33), (128, 8)])
def test_odd_sizes_are_served(make: Make, size: tuple[int, int]) -> None:
    source = linear(*size)
    layer = make(source)
    for count in PRODUCTS:
        x = tokens(count, size[0]).float()
        if isinstance(layer, Int8Linear):
            exact = in_float64(layer, x)
        else:
            exact = nn.functional.linear(x, layer.dequantized(), source.bias).double()
        assert (layer(x) - exact).norm() < 0.006 * exact.norm()

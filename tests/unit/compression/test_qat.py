"""NF4 is simulated as it will be, learnt against, and multiplied in any shape."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from bitsandbytes.nn.modules import Linear4bit
from lessons import QUICK, changed, mean_loss, taught
from subjects import Subjects, seen
from torch import nn

from vlmbench.catalogue import models
from vlmbench.compression.bnb import NF4
from vlmbench.compression.qat import QAT, QuantizationAware
from vlmbench.errors import UsageError
from vlmbench.models.qwen2 import QWEN2
from vlmbench.nf4 import quantizable, rounded, simulated, take_any_shape, unpacked
from vlmbench.scaling import evened
from vlmbench.spec import Maker, Source
from vlmbench.variant import load

QUICK_QAT = replace(QAT, tuning=QUICK)


def quantized(network: nn.Module) -> dict[str, Any]:
    return {n: m for n, m in network.named_modules() if isinstance(m, Linear4bit)}


def test_is_a_maker_that_promises_float32() -> None:
    assert isinstance(QAT, Maker)
    assert QAT.name == "qat" and QAT.storage("decoder") == "float32"


@pytest.mark.parametrize("name", ["qwen2", "blip2", "clip", "idefics2"])
def test_simulates_what_4_bit_quantizes(subjects: Subjects, name: str) -> None:
    """The same linears, and of each the very weights."""
    network, anatomy = subjects.of(name).network, subjects.of(name).anatomy
    loaded = load(models()[name], NF4, Source(network.name_or_path)).network
    assert sorted(quantizable(network, anatomy)) == sorted(quantized(loaded))
    for linear, module in quantized(loaded).items():
        expected = unpacked(module).float()
        assert torch.equal(rounded(network.get_submodule(linear).weight), expected), linear


def test_rounds_float32_weights_as_the_loader_does(tiny: Path) -> None:
    from transformers import Qwen2VLForConditionalGeneration

    whole = Qwen2VLForConditionalGeneration.from_pretrained(tiny, dtype=torch.float32)
    for name, module in quantized(load(QWEN2, NF4, Source(str(tiny))).network).items():
        weight = whole.get_submodule(name).weight
        assert torch.equal(rounded(weight).bfloat16(), unpacked(module))
        assert not torch.equal(weight, weight.bfloat16().float())


def test_low_rank_updates_are_refused(subjects: Subjects) -> None:
    subject = subjects.of("qwen2")
    recipe = QuantizationAware("qat", replace(QUICK, lora_rank=2))
    with pytest.raises(UsageError, match="beside the rounded weights, and be rounded with them"):
        recipe.make(subject.network, subject.anatomy, subject.data)


def test_a_simulated_network_is_one_of_rounded_weights(subjects: Subjects) -> None:
    subject = subjects.of("qwen2")
    network = taught(replace(QUICK, epochs=0), subject, Path("unused"))  # a copy
    before, names = seen(network, subject.padded), list(network.state_dict())
    with simulated(network, subject.anatomy):
        obtained = seen(network, subject.padded)
        assert list(network.state_dict()) == names
    assert torch.equal(seen(network, subject.padded), before)
    assert not any("forward" in vars(module) for module in network.modules())
    with torch.no_grad():
        for name in quantizable(network, subject.anatomy):
            linear: Any = network.get_submodule(name)
            linear.weight.copy_(rounded(linear.weight))
    assert torch.equal(obtained, seen(network, subject.padded))
    assert not torch.equal(obtained, before)


def test_what_is_stored_is_what_is_rounded(subjects: Subjects) -> None:
    """Also while columns behind loud channels are multiplied so that they can learn."""
    subject = subjects.of("qwen2")
    network, anatomy = copy.deepcopy(subject.network), subject.anatomy
    with simulated(network, anatomy):
        expected = seen(network, subject.padded)
        with evened(network.get_submodule(anatomy.layers), anatomy.feeds):
            assert max(linear.evened.max() for linear in having_evened(network)) >= 64
            assert torch.equal(seen(network, subject.padded), expected)


def having_evened(network: Any) -> list[Any]:
    return [module for module in network.modules() if hasattr(module, "evened")]


def test_the_gradient_passes_straight_through() -> None:
    torch.manual_seed(0)
    layers = nn.ModuleList([nn.Linear(64, 32)])
    network = nn.ModuleDict({"layers": layers, "tower": nn.Linear(64, 64)})
    anatomy = replace(QWEN2.anatomy, layers="layers", head=(), kept=())
    inputs, wanted = torch.randn(5, 64), torch.randn(5, 32)
    linear = layers[0]
    with simulated(network, anatomy):
        nn.functional.mse_loss(linear(inputs), wanted).backward()
    weight = rounded(linear.weight).requires_grad_()
    nn.functional.mse_loss(inputs @ weight.T + linear.bias, wanted).backward()
    torch.testing.assert_close(linear.weight.grad, weight.grad)
    assert linear.weight.grad.abs().max() > 0.01


def test_learns_what_rounding_leaves(subjects: Subjects, tmp_path: Path) -> None:
    """Only in the decoder, and nothing is left of the simulation."""
    subject = subjects.of("qwen2")
    network = taught(QUICK_QAT, subject, tmp_path)
    assert not any("forward" in vars(module) for module in network.modules())
    learnt = changed(network, subject.network)
    assert learnt and all(name.startswith(subject.anatomy.layers + ".") for name in learnt)
    losses = []
    for one in (subject.network, network):
        with simulated(one, subject.anatomy):
            losses.append(mean_loss(one, subject.data.inputs))
    assert losses[1] < 0.95 * losses[0]
    assert changed(network, taught(QUICK, subject, tmp_path / "plain"))


@pytest.mark.parametrize(
    ("outputs", "inputs"),
    [(31, 128), (64, 31), (128, 62), (128, 80), (96, 96), (31, 45), (128, 4304), (48, 64)],
)
@pytest.mark.parametrize("bias", [True, False])
def test_nf4_multiplies_in_any_shape(outputs: int, inputs: int, bias: bool) -> None:
    """Against codes and scales by hand; bitsandbytes refuses these on CPU, or misreads them."""
    torch.manual_seed(0)
    plain = nn.Linear(inputs, outputs, bias=bias)
    linear = Linear4bit(inputs, outputs, bias, torch.bfloat16, quant_type="nf4")
    linear.load_state_dict(plain.state_dict())
    network = nn.Sequential(linear.to("cpu")).eval().requires_grad_(False)
    stored, state = linear.weight.data.clone(), linear.weight.quant_state
    from bitsandbytes.functional import dequantize_blockwise

    scales = dequantize_blockwise(state.absmax, state.state2) + state.offset
    codes = torch.stack([stored.flatten() >> 4, stored.flatten() & 15], 1).flatten().long()
    size = outputs * inputs
    weight = (state.code[codes[:size]] * scales.repeat_interleave(64)[:size]).view(outputs, inputs)
    assert take_any_shape(network) == 1
    for tokens in (1, 7):
        given = torch.randn(2, tokens, inputs)
        expected = nn.functional.linear(given, weight, plain.bias)
        with torch.inference_mode():
            obtained = network(given)
        assert obtained.dtype == given.dtype
        assert (obtained - expected).norm() < 0.01 * expected.norm()
    assert torch.equal(linear.weight.data, stored)
    assert (weight - plain.weight).norm() < 0.15 * plain.weight.norm()


def test_nf4_of_whole_blocks_is_left_to_bitsandbytes() -> None:
    linear = Linear4bit(64, 32, True, torch.bfloat16, quant_type="nf4").to("cpu")
    assert take_any_shape(nn.Sequential(linear)) == 0 and "forward" not in vars(linear)

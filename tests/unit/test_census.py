"""A recipe that does not do what it promises is caught, whatever part of it fails."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from vlmbench import census
from vlmbench.catalogue import compressions
from vlmbench.errors import CensusError
from vlmbench.models.qwen2 import QWEN2
from vlmbench.packed import Int4Linear, Int8Linear, Sparse24Linear
from vlmbench.spec import Anatomy, Component, Source
from vlmbench.variant import Variant, load

RECIPES = ["32bit", "16bit", "8bit", "4bit", "lm8bit", "lm4bit"]
ANATOMY = QWEN2.anatomy


@dataclass(frozen=True)
class Liar:
    """Does what one recipe does and promises what another promises."""

    does: str
    promises: str
    skip: tuple[str, ...] | None = None
    name: str = "liar"

    def load_options(self, anatomy: Anatomy) -> dict[str, Any]:
        options = compressions()[self.does].load_options(anatomy)
        if self.skip is not None:
            options["quantization_config"].llm_int8_skip_modules = list(self.skip)
        return options

    def apply(self, model: nn.Module, anatomy: Anatomy) -> None:
        pass

    def storage(self, component: Component) -> str:
        return compressions()[self.promises].storage(component)


Loaded = Callable[[str], Variant]


@pytest.fixture
def loaded(tiny: Path) -> Loaded:
    return lambda name: load(QWEN2, compressions()[name], Source(str(tiny)))


def refused(taken: census.Census, recipe: str, *says: str) -> None:
    with pytest.raises(CensusError) as error:
        census.verify(taken, compressions()[recipe])
    for text in (*says, repr(recipe), "Correct that one"):
        assert text in str(error.value)


@pytest.mark.parametrize("name", RECIPES)
def test_holds_as_promised(name: str, loaded: Loaded) -> None:
    taken, recipe = loaded(name).census, compressions()[name]
    linears: dict[Component, int] = {"vision": 8, "projector": 2, "decoder": 14, "head": 1}
    for component, count in linears.items():
        assert taken.components[component].linears == {recipe.storage(component): count}


@pytest.mark.parametrize("name", RECIPES)
def test_footprint_is_every_tensor_once(name: str, loaded: Loaded) -> None:
    """Summed here another way: distinct addresses among all objects that torch knows of."""
    variant = loaded(name)
    found: dict[int, int] = {}

    def add(value: Any) -> None:
        if torch.is_tensor(value):
            found[value.data_ptr()] = value.numel() * value.element_size()
        if type(value).__module__.startswith("bitsandbytes"):
            for inner in vars(value).values():
                if not isinstance(inner, nn.Module):
                    add(inner)

    for module in variant.network.modules():
        values = [*vars(module).values(), *module._parameters.values(), *module._buffers.values()]
        for value in values:
            add(value)
    assert variant.census.footprint_bytes == sum(found.values())


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [("32bit", 32, 32), ("16bit", 16, 16), ("8bit", 8, 8.3), ("4bit", 4.1, 4.6)],
)
def test_bits_per_weight(name: str, low: float, high: float, loaded: Loaded) -> None:
    assert low <= loaded(name).census.components["decoder"].bits_per_weight <= high


def test_smaller_recipes_hold_less(loaded: Loaded) -> None:
    sizes = [loaded(name).census.footprint_bytes for name in ("4bit", "8bit", "16bit", "32bit")]
    assert sizes == sorted(set(sizes))


@pytest.mark.parametrize("name", RECIPES)
def test_is_plain_data(name: str, loaded: Loaded) -> None:
    taken = loaded(name).census
    assert census.Census.from_dict(json.loads(json.dumps(taken.to_dict()))) == taken


@pytest.mark.parametrize(
    ("liar", "says"),
    [
        (Liar("16bit", "4bit"), "decoder: expected every linear as nf4, found 14 bfloat16"),
        (Liar("16bit", "8bit"), "vision: expected every linear as int8, found 8 bfloat16"),
        (Liar("8bit", "4bit"), "decoder: expected every linear as nf4, found 14 int8"),
        (Liar("lm4bit", "4bit"), "vision: expected every linear as nf4, found 8 bfloat16"),
        (Liar("lm4bit", "4bit"), "projector: expected every linear as nf4, found 2 bfloat16"),
        (Liar("4bit", "lm4bit"), "vision: expected every linear as bfloat16, found 8 nf4"),
        (Liar("16bit", "32bit"), "head: expected every linear as float32, found 1 bfloat16"),
        # `visual` is not the beginning of `model.visual...`, so it skips nothing.
        (Liar("lm8bit", "lm8bit", ("visual", "lm_head")), "vision: expected every linear as bf"),
        (
            Liar("8bit", "8bit", ("lm_head", "model.language_model.layers.0.mlp.up_proj")),
            "decoder: expected every linear as int8, found 1 bfloat16, 13 int8",
        ),
    ],
    ids=lambda value: f"{value.does}_as_{value.promises}" if isinstance(value, Liar) else "",
)
def test_a_lying_recipe_is_caught_on_load(liar: Liar, says: str, tiny: Path) -> None:
    with pytest.raises(CensusError, match=re.escape(says)):
        load(QWEN2, liar, Source(str(tiny)))


def test_a_quantized_head_is_caught(loaded: Loaded) -> None:
    from bitsandbytes.nn import Linear4bit

    network = loaded("4bit").network
    head = Linear4bit(128, 263, bias=False, quant_type="nf4")
    head.load_state_dict({"weight": network.lm_head.weight.data.clone()})
    network.lm_head = head.to("cpu")
    refused(census.take(network, ANATOMY), "4bit", "head: expected every linear as bfloat16")


def test_scales_that_were_not_quantized_are_caught(tiny: Path) -> None:
    class Single(Liar):
        def load_options(self, anatomy: Anatomy) -> dict[str, Any]:
            options = super().load_options(anatomy)
            options["quantization_config"].bnb_4bit_use_double_quant = False
            return options

    with pytest.raises(CensusError, match=r"expected every linear as nf4, found 14 nf4 \(scales"):
        load(QWEN2, Single("4bit", "4bit"), Source(str(tiny)))


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("lost", [1, 1000])
def test_a_footprint_too_small_is_caught(name: str, lost: int, loaded: Loaded) -> None:
    taken = loaded(name).census
    # NF4 may share its tables between linears, so a byte of those alone is not missed.
    slack = 2 * (4 * 16 + 4 * 256 + 4) if compressions()[name].storage("projector") == "nf4" else 0
    held = taken.components["projector"]
    less = replace(held, weight_bytes=held.weight_bytes - lost - slack)
    shrunk = replace(taken, components={**taken.components, "projector": less})
    refused(shrunk, name, "projector: expected", "bytes as", f"found {less_bytes(less):,}")


def less_bytes(held: census.Holding) -> int:
    return held.weight_bytes + held.state_bytes


@dataclass(frozen=True)
class Packed:
    """Promises what its decoder was given by hand."""

    kind: str
    name: str = "packed"

    def load_options(self, anatomy: Anatomy) -> dict[str, Any]:
        return {}

    def apply(self, model: nn.Module, anatomy: Anatomy) -> None:
        pass

    def storage(self, component: Component) -> str:
        return self.kind if component == "decoder" else "bfloat16"


def integers(weights: str, activations: str, bits: int = 8) -> Callable[[nn.Linear], nn.Linear]:
    return partial(
        Int8Linear.of,
        weights=weights,
        activations=activations,
        bits=bits,
        input_absmax=torch.tensor(1.0),
    )


def packed(network: nn.Module, make: Callable[[nn.Linear], nn.Linear]) -> nn.Module:
    decoder: Any = network.get_submodule(ANATOMY.decoder)
    linears = [(n, m) for n, m in decoder.named_modules() if isinstance(m, nn.Linear)]
    for name, linear in linears:
        decoder.set_submodule(name, make(linear))
    return network


def without_zeros(linear: nn.Linear) -> nn.Linear:
    with torch.no_grad():
        linear.weight.view(-1, 4)[:, 1:3] = 0
    return Sparse24Linear.of(linear)


PACKED = {
    "w4a16": ("int4", Int4Linear.of, 4.3125),
    "w3a16": ("int4", partial(Int4Linear.of, bits=3), 4.3125),
    "w4a4": ("int4", integers("group", "group", 4), 4.25),
    "row": ("int8", integers("row", "token"), 8.222),
    "tensor": ("int8", integers("tensor", "tensor"), 8.003),
    "group": ("int8", integers("group", "group"), 8.25),
    "sparse": ("sparse24", without_zeros, 9.0),
}


@pytest.mark.parametrize("name", PACKED)
def test_packed_linears_hold_what_they_promise(name: str, loaded: Loaded) -> None:
    kind, make, bits = PACKED[name]
    network = packed(loaded("16bit").network, make)
    taken = census.take(network, ANATOMY)
    held = taken.components["decoder"]
    assert held.linears == {kind: 14} and held.bits_per_weight == pytest.approx(bits, abs=1e-3)
    census.verify(taken, Packed(kind))
    tensors = {t.data_ptr(): t for t in network.state_dict().values()}
    buffers = {t.data_ptr(): t for t in network.buffers()}
    total = sum(t.numel() * t.element_size() for t in (tensors | buffers).values())
    assert taken.footprint_bytes == total


@pytest.mark.parametrize("name", PACKED)
def test_packed_linears_that_hold_else_are_caught(name: str, loaded: Loaded) -> None:
    kind, make, _ = PACKED[name]
    taken = census.take(packed(loaded("16bit").network, make), ANATOMY)
    other = "int8" if kind == "int4" else "int4"
    with pytest.raises(CensusError, match=f"every linear as {other}, found 14 {kind}"):
        census.verify(taken, Packed(other))
    held = taken.components["decoder"]
    for change in (-1, 1, 4):
        changed = replace(held, state_bytes=held.state_bytes + change)
        with pytest.raises(CensusError, match=f"bytes as {kind}, found {less_bytes(changed):,}"):
            census.verify(
                replace(taken, components={**taken.components, "decoder": changed}), Packed(kind)
            )


def test_a_linear_outside_the_anatomy_is_caught(loaded: Loaded) -> None:
    network = loaded("16bit").network
    network.adapter = nn.Linear(8, 8, dtype=torch.bfloat16)
    refused(census.take(network, ANATOMY), "16bit", "1 linears belong to no component")


def test_a_matrix_that_is_no_linear_is_held_to_the_promise(loaded: Loaded) -> None:
    """As experts in one tensor, which no recipe packs."""
    network = loaded("4bit").network
    experts = torch.empty(2, 8, 4, dtype=torch.bfloat16)
    network.model.language_model.layers[1].experts = nn.Parameter(experts)
    taken = census.take(network, ANATOMY)
    assert taken.components["decoder"].shapes["16x4"] == 1
    refused(taken, "4bit", "decoder: expected every linear as nf4", "1 bfloat16")


def test_a_shared_weight_counts_once(loaded: Loaded) -> None:
    network = loaded("16bit").network
    first, second = network.model.language_model.layers
    second.mlp.up_proj.weight = first.mlp.up_proj.weight
    held = census.take(network, ANATOMY).components["decoder"]
    assert held.linears == {"bfloat16": 13}
    assert held.weight_bytes == 2 * held.parameters


def test_an_anatomy_of_another_model_is_refused(loaded: Loaded) -> None:
    wrong = replace(ANATOMY, vision="visual")
    with pytest.raises(
        CensusError, match=r"vision = 'visual', but Qwen2VLFor.* has no such module"
    ):
        census.take(loaded("16bit").network, wrong)


def test_a_float_type_of_the_users_stands_for_the_recipes_own(tiny: Path) -> None:
    variant = load(QWEN2, compressions()["lm8bit"], Source(str(tiny)), dtype="float16")
    assert variant.census.components["vision"].linears == {"float16": 8}
    assert variant.census.components["decoder"].linears == {"int8": 14}


def test_what_a_class_keeps_must_be_kept(loaded: Loaded) -> None:
    """As BLIP-2's Q-Former: a loader that did quantize it would be told."""
    anatomy = replace(ANATOMY, kept=("model.visual.blocks",))
    taken = census.take(loaded("8bit").network, anatomy)
    refused(taken, "8bit", "kept: expected every linear as a float type, found {'int8': 8}")

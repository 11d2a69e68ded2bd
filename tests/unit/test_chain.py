"""What a chain asks of the loader and promises, and which chains mean nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from vlmbench.catalogue import compressions
from vlmbench.chain import Chain
from vlmbench.errors import UnknownNameError, UsageError
from vlmbench.models.qwen2 import QWEN2
from vlmbench.selection import compression
from vlmbench.spec import Compression, Maker, Runtime


@dataclass(frozen=True)
class Made:
    """Stores as it says."""

    name: str
    stored: str = "float32"

    def load_options(self, anatomy: Any) -> dict[str, Any]:
        return {"dtype": "float32"}

    def make(self, model: Any, anatomy: Any, data: Any) -> None:
        model.append(self.name)

    def apply(self, model: Any, anatomy: Any) -> None:
        model.append(f"{self.name} applied")

    def storage(self, component: Any) -> str:
        return self.stored


@dataclass(frozen=True)
class Eagerly(Made):
    def run_options(self, anatomy: Any) -> dict[str, Any]:
        return {"attn_implementation": "eager"}


PRUNED, TUNED = Made("pruned"), Made("ft")
PACKED = Made("packed", "int4")


@dataclass(frozen=True)
class Loaded:
    name: str
    stored: str = "bfloat16"

    def load_options(self, anatomy: Any) -> dict[str, Any]:
        return {"dtype": "bfloat16"}

    def apply(self, model: Any, anatomy: Any) -> None:
        model.append(f"{self.name} applied")

    def storage(self, component: Any) -> str:
        return self.stored


EAGER = Eagerly("eager")
HALF, NF4 = Loaded("16bit"), Loaded("4bit", "nf4")


def test_kinds_are_told_apart() -> None:
    assert isinstance(PRUNED, Maker) and not isinstance(HALF, Maker)
    assert isinstance(EAGER, Runtime) and not isinstance(PRUNED, Runtime)
    assert all(isinstance(one, Compression) for one in (PRUNED, HALF, EAGER))


def test_the_last_part_that_stores_says_how() -> None:
    chain = Chain("pruned+ft+4bit", (PRUNED, TUNED, NF4))
    assert chain.load_options(QWEN2.anatomy) == {"dtype": "bfloat16"}
    assert chain.storage("decoder") == "nf4"
    applied: Any = []
    chain.apply(applied, QWEN2.anatomy)
    assert applied == ["pruned applied", "ft applied", "4bit applied"]


@pytest.mark.parametrize("parts", [(PRUNED, NF4, EAGER), (EAGER, PRUNED, NF4)])
def test_how_it_runs_goes_with_anything(parts: Any) -> None:
    chain = Chain("chain", parts)
    options = {"dtype": "bfloat16", "attn_implementation": "eager"}
    assert chain.load_options(QWEN2.anatomy) == options
    assert chain.storage("decoder") == "nf4"


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ((NF4, PRUNED), "after 4bit the weights are nf4, and pruned needs them as floats"),
        ((PACKED, NF4), "after packed the weights are int4, and 4bit needs them as floats"),
        ((NF4, PACKED), "after 4bit .* needs them as floats. Leave out one of them"),
        ((NF4, PRUNED), "after 4bit .* needs them as floats. Put pruned before it"),
        ((HALF, PRUNED), "16bit only says how a checkpoint is loaded"),
        ((PRUNED, PRUNED), "pruned stands in it twice"),
        ((PRUNED, TUNED, PRUNED), "pruned stands in it twice"),
    ],
)
def test_what_means_nothing_is_refused(parts: Any, reason: str) -> None:
    with pytest.raises(UsageError, match=f"^chain: {reason}"):
        Chain("chain", parts)


def test_a_chain_is_found_by_its_name() -> None:
    known = {**compressions(), "pruned": PRUNED, "ft_on_vqav2": TUNED, "ft": TUNED}
    chain = compression("pruned_ft+4bit", known)
    assert isinstance(chain, Chain) and chain.name == "pruned_ft+4bit"
    assert chain.parts == (PRUNED, TUNED, known["4bit"])
    on = compression("pruned_ft_on_vqav2", known)
    assert isinstance(on, Chain) and on.parts == (PRUNED, TUNED)
    assert compression("4bit", known) is known["4bit"]
    for name, unknown in {"pruned+3bit": "3bit", "4bit_": "4bit_", "pruned_ftx": "ftx"}.items():
        with pytest.raises(UnknownNameError, match=f"unknown compression '{unknown}'"):
            compression(name, known)


@pytest.mark.parametrize("name", ["eager+compile", "eager+offload", "offload+compile"])
def test_ways_to_run_chain_alone(name: str) -> None:
    """Each stores as 32bit does."""
    chain = compression(name, compressions())
    assert {chain.storage(part) for part in ("decoder", "vision", "head")} == {"float32"}
    assert compression("eager+offload", compressions()).load_options(QWEN2.anatomy)["dtype"] == (
        "float32"
    )

"""Chains that have a name are what their names say, and go on as any recipe does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from subjects import Subjects, seen

from vlmbench import catalogue
from vlmbench.chain import Chain
from vlmbench.compression import chains
from vlmbench.compression.bnb import INT8, NF4
from vlmbench.compression.lowrank import LOWRANK80
from vlmbench.compression.precision import FLOAT32
from vlmbench.models.qwen2 import QWEN2
from vlmbench.saving import write
from vlmbench.selection import compression
from vlmbench.spec import Maker, Source
from vlmbench.variant import load

KNOWN = catalogue.compressions()
NAMED = {one.name: one for one in vars(chains).values() if isinstance(one, Chain)}
SPELT = sorted(set(NAMED) - {"qat4bit"})


def test_are_in_the_catalogue() -> None:
    assert sorted(NAMED) == sorted(
        "depth50_ft depth50bi_ft depth25bi_ft lowrank80_ft lowrank50_ft depth50_ft_on_docvqa "
        "depth50_ft_on_vqav2 depth50_ft_on_scienceqa depth50_ft+4bit lowrank80_ft+8bit "
        "lowrank80_ft+4bit qat4bit".split()
    )
    assert all(KNOWN[name] is chain for name, chain in NAMED.items())


@pytest.mark.parametrize("name", SPELT)
def test_mean_what_their_names_spell(name: str) -> None:
    plain = {n: one for n, one in KNOWN.items() if not isinstance(one, Chain)}
    assert compression(name, plain) == NAMED[name]


def test_qat_ends_in_4_bit() -> None:
    parts = NAMED["qat4bit"].parts
    assert [part.name for part in parts] == ["qat", "4bit"]
    assert NAMED["qat4bit"].storage("decoder") == "nf4"


@pytest.mark.parametrize("name", ["depth50_ft+8bit", "lowrank50_ft+16bit+eager", "depth50_ft+qat"])
def test_go_on_in_longer_chains(name: str) -> None:
    """Part by part: a maker within a part would never be run."""
    chain: Any = compression(name, KNOWN)
    assert not any(isinstance(part, Chain) for part in chain.parts)
    assert all(isinstance(part, Maker) for part in chain.parts[:2])
    assert len(chain.parts) == name.count("+") + 2


@pytest.mark.parametrize("last", [INT8, NF4], ids=lambda recipe: recipe.name)
def test_factors_of_any_rank_are_quantized(last: Any, subjects: Subjects, tmp_path: Path) -> None:
    """Ranks that are no multiple of a block, too: all linears are stored as promised, and work."""
    source = Source(subjects.of("qwen2").network.name_or_path)
    begun = load(QWEN2, FLOAT32, source)
    LOWRANK80.make(begun.network, QWEN2.anatomy, subjects.of("qwen2").data)
    write(begun.network, begun.processor, tmp_path, dtype="float32")
    plain = load(QWEN2, LOWRANK80, source, kept=tmp_path)
    variant = load(QWEN2, Chain("chain", (LOWRANK80, last)), source, kept=tmp_path)
    held = variant.census.components["decoder"]
    assert set(held.linears) == {last.kind}
    assert any(int(shape.split("x")[1]) % 64 for shape in held.shapes)
    inputs = subjects.of("qwen2").padded
    real = inputs["attention_mask"].bool()
    expected, obtained = (seen(one.network, inputs)[real].float() for one in (plain, variant))
    error = (obtained - expected).norm() / expected.norm()
    assert 0 < error < (0.5 if last is NF4 else 0.2)
    assert torch.isfinite(obtained).all()

"""What the census cannot tell apart is told apart, each recipe's layers from the others'."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from subjects import Subjects
from torch import nn

from vlmbench.chain import Chain
from vlmbench.compression.awq import RTN_W3, RTN_W4
from vlmbench.compression.depth import DEPTH50
from vlmbench.compression.lowrank import LOWRANK80
from vlmbench.compression.precision import FLOAT32
from vlmbench.compression.smoothquant import (
    SQ_W4A4_GROUP,
    SQ_W8A8_GROUP,
    SQ_W8A8_TENSOR,
    SQ_W8A8_TOKEN,
)
from vlmbench.compression.sparsity import PRUNE24, PRUNE24_STORED
from vlmbench.errors import CensusError
from vlmbench.layers import put
from vlmbench.packed import Int8Linear
from vlmbench.promises import check

PROMISING = (
    RTN_W3,
    RTN_W4,
    SQ_W4A4_GROUP,
    SQ_W8A8_GROUP,
    SQ_W8A8_TENSOR,
    SQ_W8A8_TOKEN,
    PRUNE24,
    PRUNE24_STORED,
    LOWRANK80,
)


@pytest.mark.parametrize("made", PROMISING, ids=lambda recipe: recipe.name)
def test_what_a_recipe_makes_is_what_it_alone_promises(subjects: Subjects, made: Any) -> None:
    network, anatomy = subjects.made("qwen2", made), subjects.of("qwen2").anatomy
    check(network, made, anatomy)
    alike = [one for one in PROMISING if one.storage("decoder") == made.storage("decoder")]
    for recipe in alike:  # which the census does not tell apart
        if recipe is not made:
            with pytest.raises(CensusError, match=f"is not what '{recipe.name}' promises"):
                check(network, recipe, anatomy)


def test_of_a_chain_every_part_is_held_to_its_promise(subjects: Subjects) -> None:
    network, anatomy = subjects.made("qwen2", RTN_W4), subjects.of("qwen2").anatomy
    check(network, Chain("depth50+rtn_w4a16", (DEPTH50, RTN_W4)), anatomy)
    with pytest.raises(CensusError, match="is not what 'rtn_w3a16' promises"):
        check(network, Chain("depth50+rtn_w3a16", (DEPTH50, RTN_W3)), anatomy)


def test_one_linear_of_another_kind_is_named(subjects: Subjects) -> None:
    anatomy = subjects.of("qwen2").anatomy
    network = copy.deepcopy(subjects.made("qwen2", RTN_W4))
    odd = Int8Linear.of(nn.Linear(128, 128), weights="row", activations="token")
    put(network, f"{anatomy.layers}.1.mlp.up_proj", odd)
    says = r"1\.mlp\.up_proj: expected .'kind': 'Int4Linear'.*found .'kind': 'Int8L.*\(1 linears"
    with pytest.raises(CensusError, match=says):
        check(network, RTN_W4, anatomy)


def test_zeros_that_were_filled_are_found(subjects: Subjects) -> None:
    anatomy = subjects.of("qwen2").anatomy
    network = copy.deepcopy(subjects.made("qwen2", PRUNE24))
    linear: Any = network.get_submodule(f"{anatomy.layers}.0.mlp.down_proj")
    with torch.no_grad():
        linear.weight[3, :4] = 1.0
    with pytest.raises(CensusError, match=r"0\.mlp\.down_proj: expected at most two of every four"):
        check(network, PRUNE24, anatomy)
    check(network, FLOAT32, anatomy)

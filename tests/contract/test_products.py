"""Which product ran is told for every way of storing a weight, after the network has answered."""

import answered
import checkpoints
import pytest
from bitsandbytes.functional import has_avx512bf16

from vlmbench.products import products

NF4 = "bitsandbytes nf4" if has_avx512bf16() else "unpacked nf4"
RAN = {
    "32bit": ("float32", "float32"),
    "16bit": ("bfloat16", "bfloat16"),
    "8bit": ("bitsandbytes int8", "bfloat16"),
    "4bit": (NF4, "bfloat16"),
    "awq_w4a16": ("int4pack", "bfloat16"),
    "sq_w8a8_token": ("int8 x int8", "bfloat16"),
    "sq_w4a4_group": ("int8 x int8 of unpacked int4", "bfloat16"),
    "prune24s": ("unpacked bfloat16", "bfloat16"),
}
"""Of decoder and head, on CPU."""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return checkpoints.Checkpoints(tmp_path_factory.mktemp("checkpoints"))


@pytest.mark.parametrize("recipe", RAN)
def test_every_linear_is_told_by_its_product(made, recipe):
    variant = made.load("qwen2", recipe)
    variant.generate(
        answered.inputs(variant.model, variant.processor, 0), max_new_tokens=2, min_new_tokens=2
    )
    ran, held = products(variant.network), variant.census.components
    counts = {part: sum(one.linears.values()) for part, one in held.items()}
    decoder, head = RAN[recipe]
    assert sum(ran.values()) == sum(counts.values())
    assert {decoder, head} <= ran.keys()
    assert ran[decoder] >= counts["decoder"] and ran[head] >= counts["head"]


def test_what_no_packed_product_takes_is_told_as_unpacked(made):
    """Factors of odd ranks, that 4 bit stores all the same."""
    variant = made.load("qwen2", "lowrank80+4bit")
    variant.generate(
        answered.inputs(variant.model, variant.processor, 0), max_new_tokens=2, min_new_tokens=2
    )
    assert products(variant.network)["unpacked nf4"] > 10

"""What each recipe asks of the loader, and that saving what it made loses nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from vlmbench.compression.bnb import INT8, LM_INT8, LM_NF4, NF4, BitsAndBytes
from vlmbench.models.qwen2 import QWEN2
from vlmbench.spec import Source
from vlmbench.variant import load

ALL = [INT8, NF4, LM_INT8, LM_NF4]


@pytest.mark.parametrize("recipe", ALL, ids=lambda recipe: recipe.name)
def test_skips_what_it_keeps_by_full_name(recipe: BitsAndBytes) -> None:
    config = recipe.load_options(QWEN2.anatomy)["quantization_config"]
    tower = ["model.visual", "model.visual.merger"] if recipe.name.startswith("lm") else []
    assert config.llm_int8_skip_modules == ["lm_head", *tower]
    assert (config.load_in_8bit, config.load_in_4bit) == (
        recipe.kind == "int8",
        recipe.kind == "nf4",
    )


def test_nf4_quantizes_its_scales_and_computes_in_bfloat16() -> None:
    config = NF4.load_options(QWEN2.anatomy)["quantization_config"]
    assert (config.bnb_4bit_quant_type, config.bnb_4bit_use_double_quant) == ("nf4", True)
    assert config.bnb_4bit_compute_dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("recipe", "vision", "decoder"),
    [
        (INT8, "int8", "int8"),
        (NF4, "nf4", "nf4"),
        (LM_INT8, "bfloat16", "int8"),
        (LM_NF4, "bfloat16", "nf4"),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_promises(recipe: BitsAndBytes, vision: str, decoder: str) -> None:
    assert recipe.storage("vision") == recipe.storage("projector") == vision
    assert recipe.storage("decoder") == decoder
    assert recipe.storage("head") == "bfloat16"


@pytest.mark.parametrize("recipe", ALL, ids=lambda recipe: recipe.name)
def test_saved_and_loaded_again_says_the_same(
    recipe: BitsAndBytes, tiny: Path, tiny_inputs: Any, tmp_path: Path
) -> None:
    from transformers import Qwen2VLForConditionalGeneration

    network = load(QWEN2, recipe, Source(str(tiny))).network
    network.save_pretrained(tmp_path)  # before it runs: on CPU, NF4 rounds its scales after
    again = Qwen2VLForConditionalGeneration.from_pretrained(tmp_path, device_map={"": "cpu"})
    with torch.inference_mode():
        assert_close(network(**tiny_inputs).logits, again(**tiny_inputs).logits, rtol=0, atol=0)


@pytest.mark.parametrize("recipe", ALL, ids=lambda recipe: recipe.name)
def test_stays_near_the_original(recipe: BitsAndBytes, tiny: Path, tiny_inputs: Any) -> None:
    """Near, and not the same: a recipe that changed nothing would pass the first half alone."""
    from transformers import Qwen2VLForConditionalGeneration

    original = Qwen2VLForConditionalGeneration.from_pretrained(tiny, dtype=torch.bfloat16)
    with torch.inference_mode():
        expected = original(**tiny_inputs).logits.float()
        obtained = load(QWEN2, recipe, Source(str(tiny))).network(**tiny_inputs).logits.float()
    error = (obtained - expected).norm() / expected.norm()
    assert 0 < error < 0.3

"""The dtype is asked for outright, whatever the checkpoint was stored in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from vlmbench.compression.precision import BFLOAT16, FLOAT32, Precision
from vlmbench.models.qwen2 import QWEN2
from vlmbench.patches import as_products
from vlmbench.spec import Source
from vlmbench.variant import load


@pytest.mark.parametrize("recipe", [FLOAT32, BFLOAT16], ids=lambda recipe: recipe.name)
@pytest.mark.parametrize("stored", ["float32", "bfloat16"])
def test_every_parameter_has_the_dtype(
    recipe: Precision, stored: str, tiny: Path, tmp_path: Path
) -> None:
    import shutil

    from transformers import Qwen2VLForConditionalGeneration

    shutil.copytree(tiny, tmp_path, dirs_exist_ok=True)
    Qwen2VLForConditionalGeneration.from_pretrained(tiny, dtype=stored).save_pretrained(tmp_path)
    network = load(QWEN2, recipe, Source(str(tmp_path))).network
    assert {parameter.dtype for parameter in network.parameters()} == {getattr(torch, recipe.dtype)}


def test_32bit_changes_nothing(tiny: Path, tiny_inputs: Any) -> None:
    from transformers import Qwen2VLForConditionalGeneration

    plain = Qwen2VLForConditionalGeneration.from_pretrained(tiny, dtype=torch.float32)
    as_products(plain)  # which rounds otherwise, see test_patches
    loaded = load(QWEN2, FLOAT32, Source(str(tiny))).network
    with torch.inference_mode():
        assert_close(loaded(**tiny_inputs).logits, plain(**tiny_inputs).logits, rtol=0, atol=0)

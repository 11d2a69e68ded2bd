"""Loading: quiet, greedy, of the asked-for type, and refused where the answers would be noise."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from vlmbench.catalogue import compressions
from vlmbench.errors import CheckpointError, UsageError
from vlmbench.models.qwen2 import QWEN2
from vlmbench.spec import Source
from vlmbench.variant import load

RECIPES = ["32bit", "16bit", "8bit", "4bit", "lm8bit", "lm4bit"]


@pytest.mark.parametrize("name", RECIPES)
def test_file_bytes_are_what_is_saved(name: str, tiny: Path, tmp_path: Path) -> None:
    variant = load(QWEN2, compressions()[name], Source(str(tiny)))
    variant.network.save_pretrained(tmp_path)
    saved = (tmp_path / "model.safetensors").read_bytes()
    header = 8 + int.from_bytes(saved[:8], "little")
    assert variant.file_bytes == len(saved) - header


def test_smaller_recipes_write_less(tiny: Path) -> None:
    written = [
        load(QWEN2, compressions()[name], Source(str(tiny))).file_bytes
        for name in ("4bit", "8bit", "16bit", "32bit")
    ]
    assert written == sorted(set(written))


@pytest.mark.parametrize("name", ["32bit", "4bit"])
def test_is_greedy_whatever_the_checkpoint_ships(name: str, tiny: Path, tiny_inputs: Any) -> None:
    from transformers import GenerationConfig

    assert GenerationConfig.from_pretrained(tiny).do_sample, "else this holds nothing"
    variant = load(QWEN2, compressions()[name], Source(str(tiny)))
    config = variant.network.generation_config
    assert (config.do_sample, config.num_beams) == (False, 1)
    assert config.temperature is config.top_p is config.top_k is None
    assert not variant.network.training
    first, second = (variant.generate(tiny_inputs, max_new_tokens=6) for _ in range(2))
    assert torch.equal(first, second)


def test_says_how_tokens_are_chosen(tiny: Path) -> None:
    variant = load(QWEN2, compressions()["32bit"], Source(str(tiny)))
    assert variant.decoding == "greedy"
    variant.network.generation_config.update(do_sample=True, repetition_penalty=1.05)
    assert variant.decoding == "greedy, do_sample True, repetition_penalty 1.05"


def test_generates_new_tokens_only(tiny: Path, tiny_inputs: Any) -> None:
    variant = load(QWEN2, compressions()["32bit"], Source(str(tiny)))
    assert variant.generate(tiny_inputs, max_new_tokens=3, min_new_tokens=3).shape == (1, 3)
    assert variant.name == "qwen2_32bit"


def test_loading_and_answering_are_silent(tiny: Path) -> None:
    """In a process of its own: bitsandbytes speaks when it is first imported."""
    script = f"""
import warnings; warnings.simplefilter("error", UserWarning)
from vlmbench.catalogue import compressions
from vlmbench.models.qwen2 import QWEN2
from vlmbench.spec import Source
from vlmbench.variant import load
import torch
for name in {RECIPES}:
    variant = load(QWEN2, compressions()[name], Source({str(tiny)!r}))
    ids = torch.tensor([[1, 2, 3]])
    variant.generate(dict(input_ids=ids, attention_mask=ids > 0), max_new_tokens=2)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_other_log_lines_still_show(
    tiny: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    import logging

    from transformers.utils import logging as transformers_logging

    monkeypatch.setattr(transformers_logging, "_tqdm_active", True)

    class Talking:
        name = "talking"

        def __getattr__(self, attribute: str) -> Any:
            return getattr(compressions()["8bit"], attribute)

        def apply(self, model: Any, anatomy: Any) -> None:
            logging.getLogger("bitsandbytes.autograd._functions").warning("something new")

    load(QWEN2, Talking(), Source(str(tiny)))
    assert "something new" in caplog.text
    logger = logging.getLogger("bitsandbytes.autograd._functions")
    assert logger.filters == [], "what is quiet inside is not quiet outside"
    assert transformers_logging.is_progress_bar_enabled()


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_dtype_is_that_of_unquantized_weights(dtype: str, tiny: Path) -> None:
    network = load(QWEN2, compressions()["4bit"], Source(str(tiny)), dtype=dtype).network
    assert network.lm_head.weight.dtype == getattr(torch, dtype)


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("32bit", {"dtype": "bfloat16"}, "'bfloat16' contradicts '32bit', whose weights are fl"),
        ("4bit", {"dtype": "int8"}, "'int8' is none of float32, bfloat16, float16"),
        ("16bit", {"device": "gpu"}, "'gpu' cannot be used here: .*Expected 'cpu', or 'cuda'"),
    ],
)
def test_options_that_cannot_be_met(
    name: str, options: dict[str, str], says: str, tiny: Path
) -> None:
    with pytest.raises(UsageError, match=says):
        load(QWEN2, compressions()[name], Source(str(tiny)), **options)


def test_a_class_that_transformers_lacks(tiny: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(tiny, tmp_path, dirs_exist_ok=True)
    config = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(config.replace(QWEN2.architecture, "NoSuchModel"))
    model = replace(QWEN2, architecture="NoSuchModel")
    with pytest.raises(
        CheckpointError, match=r"'NoSuchModel', which neither transformers 5.* Correct"
    ):
        load(model, compressions()["16bit"], Source(str(tmp_path)))

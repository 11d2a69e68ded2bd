"""Whatever is wrong with a checkpoint is said in one error: what, where, expected, what to do."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vlmbench.catalogue import compressions
from vlmbench.checkpoint import checkpoint_digests
from vlmbench.errors import CheckpointError
from vlmbench.models.qwen2 import QWEN2
from vlmbench.spec import Source
from vlmbench.variant import load

Break = Callable[[Path], object]


def config(**changes: Any) -> Break:
    """Change config.json; a change of `text_config` is merged into it."""

    def change(folder: Path) -> None:
        data = json.loads((folder / "config.json").read_text())
        text_config = data["text_config"] | changes.get("text_config", {})
        (folder / "config.json").write_text(
            json.dumps(data | changes | {"text_config": text_config})
        )

    return change


def write(name: str, content: bytes) -> Break:
    return lambda folder: (folder / name).write_bytes(content)


def truncate(folder: Path) -> None:
    weights = folder / "model.safetensors"
    os.truncate(weights, weights.stat().st_size - 1000)


def deeper(layers: int) -> Break:
    types = ["full_attention"] * layers
    return config(text_config={"num_hidden_layers": layers, "layer_types": types})


BROKEN: dict[str, tuple[Break, str]] = {
    "no folder": (shutil.rmtree, "no checkpoint at {folder}: expected a folder as save_pretrai"),
    "no config": (lambda f: (f / "config.json").unlink(), "{folder} is no checkpoint: expected c"),
    "config cut": (write("config.json", b"{"), "cannot read the config.json of {folder}: It loo"),
    "config of wrong type": (config(text_config={"hidden_size": "many"}), "expected int, got str"),
    "other class": (config(architectures=["LlamaForCausalLM"]), "is of architecture LlamaForCaus"),
    "no class": (config(architectures=None), "is of architecture none, but model 'qwen2' expects"),
    "weights cut": (truncate, "cannot read the weights of {folder}: Error while deserializing he"),
    "weights empty": (write("model.safetensors", b""), "cannot read the weights of {folder}: Err"),
    "weights are noise": (write("model.safetensors", b"\xff" * 999), "cannot read the weights of"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "no file named model.safetensor"),
    "pickled weights": (
        lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"),
        "no file named model.safetensors",
    ),
    "a layer too few": (deeper(3), "12 missing: model.language_model.layers.2.input_layernorm.w"),
    "a layer too many": (deeper(1), "12 unexpected: model.language_model.layers.1.input_layerno"),
    "other shapes": (
        config(text_config={"intermediate_size": 512}),
        "mlp.down_proj.weight (found [128, 256], expected [128, 512])",
    ),
    "no processor": (
        lambda f: (f / "processor_config.json").unlink(),
        "cannot read the processor of {folder}",
    ),
    "no tokenizer": (
        lambda f: [(f / name).unlink() for name in ("tokenizer.json", "tokenizer_config.json")],
        "{folder} has no vocabulary: expected one of",
    ),
    "tokenizer cut": (write("tokenizer.json", b'{"a'), "cannot read the processor of {folder}"),
}


@pytest.mark.parametrize("recipe", ["16bit", "8bit", "4bit"])
@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_checkpoint_is_refused(
    fault: str, recipe: str, tiny: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "checkpoint"
    shutil.copytree(tiny, folder)
    broken, says = BROKEN[fault]
    broken(folder)
    with pytest.raises(CheckpointError) as error:
        load(QWEN2, compressions()[recipe], Source(str(folder)))
    message = str(error.value)
    assert says.format(folder=folder) in message
    assert str(folder) in message
    assert any(advice in message for advice in ("Correct", "Name", "copy or save", "Save the"))
    assert error.value.__cause__ is None
    assert error.value.__suppress_context__ or error.value.__context__ is None
    assert message.count("\n") <= 5


def test_a_refusal_is_said_once(
    tiny: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Not in a table of transformers' own besides."""
    shutil.copytree(tiny, tmp_path, dirs_exist_ok=True)
    deeper(3)(tmp_path)
    logger = logging.getLogger("transformers.modeling_utils")
    logger.addHandler(caplog.handler)
    try:
        with pytest.raises(CheckpointError):
            load(QWEN2, compressions()["16bit"], Source(str(tmp_path)))
    finally:
        logger.removeHandler(caplog.handler)
    assert caplog.text == ""


def test_an_unreachable_hub_checkpoint(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    source = Source("Qwen/Qwen2-VL-2B-Instruct", revision="main")
    says = "of Qwen/Qwen2-VL-2B-Instruct at revision main: .* go online once so that it is cached"
    with pytest.raises(CheckpointError, match=says):
        load(QWEN2, compressions()["16bit"], source)
    with pytest.raises(CheckpointError, match=says):
        checkpoint_digests(source)


def test_the_digest_of_a_pinned_hub_checkpoint_is_its_commit() -> None:
    hub = QWEN2.sources["hub"]
    assert set(checkpoint_digests(hub).values()) == {hub.revision}


@pytest.mark.parametrize(
    ("file", "part"),
    [
        ("model.safetensors", "weights"),
        ("config.json", "configuration"),
        ("tokenizer.json", "configuration"),
        ("chat_template.jinja", "configuration"),
    ],
)
def test_the_digests_follow_every_file_that_matters(
    file: str, part: str, tiny: Path, tmp_path: Path
) -> None:
    before = checkpoint_digests(Source(str(tiny)))
    copy = tmp_path / "copy"
    shutil.copytree(tiny, copy)
    assert checkpoint_digests(Source(str(copy))) == before, "the address does not count"
    content = bytearray((copy / file).read_bytes())
    content[-1] ^= 1
    (copy / file).write_bytes(content)
    after = checkpoint_digests(Source(str(copy)))
    assert [name for name in before if before[name] != after[name]] == [part]


def test_the_digest_of_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        checkpoint_digests(Source(str(tmp_path / "nothing")))

"""A folder that was shipped is what its recipe.json tells, or refused with the reason.

That it answers as what was compressed did: tests/contract/test_shipped.py.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from shipped_folders import Change, Eager, bench, made, rewrite
from transformers.utils import import_utils

from vlmbench import layers, shipped, shipping
from vlmbench.artifacts import Store
from vlmbench.catalogue import compressions
from vlmbench.chain import Chain
from vlmbench.compressed import load_once
from vlmbench.compression.precision import FLOAT32, STORED
from vlmbench.errors import CensusError, CheckpointError, UsageError
from vlmbench.models.qwen2 import QWEN2
from vlmbench.options import catalogued
from vlmbench.selection import cells, usual, variants
from vlmbench.spec import Source
from vlmbench.variant import load


@pytest.fixture(scope="module")
def shorter(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made("depth50", tiny, tmp_path_factory)


def fitting(model: str, *recipes: str) -> set[str]:
    """Recipes that pair with a model, whether or not a session without options judges them."""
    there = bench(model, *recipes)
    pairs = variants(there.models, there.compressions, there.entries)
    found = cells(pairs, there.datasets, there.entries)
    return {cell.compression.name for cell in found}


def test_it_is_loaded_as_it_is_stored(packed: Path) -> None:
    variant = load(QWEN2, STORED, Source(str(packed)))
    told = json.loads((packed / "recipe.json").read_text())
    assert variant.census.to_dict() == told["census"]
    assert variant.census.components["decoder"].linears == {"int4": 14}
    with pytest.raises(UsageError, match="dtype 'float32' contradicts 'stored'"):
        load(QWEN2, STORED, Source(str(packed)), dtype="float32")


def flip(folder: Path) -> None:
    with (folder / "model.safetensors").open("r+b") as file:
        file.seek(-77, os.SEEK_END)
        (byte,) = file.read(1)
        file.seek(-77, os.SEEK_END)
        file.write(bytes([byte ^ 1]))


def cut(folder: Path) -> None:
    weights = folder / "model.safetensors"
    os.truncate(weights, weights.stat().st_size - 100)


def copy(name: str, to: str) -> Change:
    return lambda folder: shutil.copy(folder / name, folder / to)


TAMPERED: dict[str, tuple[Change, str]] = {
    "shard cut": (cut, r"model.safetensors: [\d,]+ bytes, expected [\d,]+\nCopy the whole folder"),
    "a bit": (flip, r"model.safetensors: changed \(sha256 \w{12}, expected \w{12}\)"),
    "config": (
        rewrite("config.json", lambda told: told.update(use_cache=False)),
        r"config.json: [\d,]+ bytes, expected",
    ),
    "no processor": (
        lambda folder: (folder / "processor_config.json").unlink(),
        "processor_config.json: No such file or directory",
    ),
    "extra shard": (
        copy("model.safetensors", "model-00002-of-00002.safetensors"),
        "model-00002-of-00002.safetensors: not listed in recipe.json",
    ),
    "extra config": (
        copy("generation_config.json", "preprocessor_config.json"),
        "preprocessor_config.json: not listed",
    ),
    "other format": (
        rewrite("recipe.json", lambda told: told.update(format=2)),
        "recipe.json is of format 2, expected 1: another version of vlmbench wrote it. Use that",
    ),
    "no format": (rewrite("recipe.json", dict.clear), "recipe.json cannot be read .KeyError"),
    "no object": (
        lambda folder: (folder / "recipe.json").write_text("[]"),
        "recipe.json cannot be read .TypeError",
    ),
    "files of other form": (
        rewrite("recipe.json", lambda told: told["files"].update({"config.json": 3})),
        "recipe.json cannot be read .ValidationError",
    ),
    "a file without a size": (
        rewrite("recipe.json", lambda told: told["files"].update({"config.json": {}})),
        "recipe.json cannot be read .ValidationError",
    ),
    "parts of other form": (
        rewrite("recipe.json", lambda told: told.update(parts=[{}])),
        "recipe.json cannot be read .ValidationError",
    ),
    "a file elsewhere": (
        rewrite(
            "recipe.json", lambda told: told["files"].update({"../a": told["files"].popitem()[1]})
        ),
        '"../a": not in the folder',
    ),
    "recipe cut": (
        lambda folder: os.truncate(folder / "recipe.json", 99),
        "recipe.json cannot be read .JSONDecodeError.*compress again",
    ),
    "half written": (
        lambda folder: (folder / "recipe.json").write_text('{"format": 1}'),
        "was never finished: its recipe.json lists no files. Delete it and compress again",
    ),
}


@pytest.mark.parametrize("fault", TAMPERED)
def test_what_was_tampered_with_is_refused(fault: str, copied: Path) -> None:
    change, says = TAMPERED[fault]
    load(QWEN2, STORED, Source(str(copied)))
    change(copied)
    with pytest.raises(CheckpointError, match=says) as error:
        load(QWEN2, STORED, Source(str(copied)))
    assert str(copied) in str(error.value)
    assert error.value.__cause__ is None


def test_weights_of_another_kind_are_refused(copied: Path) -> None:
    def more(told: Any) -> None:
        told["census"]["components"]["decoder"]["linears"] = {"int4": 13}

    rewrite("recipe.json", more)(copied)
    with pytest.raises(CensusError, match=r"decoder: expected .*'int4': 13.*found .*'int4': 14"):
        load(QWEN2, STORED, Source(str(copied)))


def test_a_recipe_that_counts_nothing_is_refused(copied: Path) -> None:
    rewrite("recipe.json", lambda told: told["census"].update(components={}))(copied)
    with pytest.raises(CensusError, match="decoder: expected None, found Holding"):
        load(QWEN2, STORED, Source(str(copied)))


class Pickled:
    def __reduce__(self) -> Any:
        return (pytest.fail, ("a pickle was read",))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pkl"])
def test_a_pickle_is_never_read(name: str, copied: Path) -> None:
    import pickle

    (copied / name).write_bytes(pickle.dumps(Pickled()))
    load(QWEN2, STORED, Source(str(copied)))
    (copied / "recipe.json").unlink()
    (copied / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"no file named model.safetensors"):
        load(QWEN2, STORED, Source(str(copied)))


def test_loading_begins_on_the_meta_device(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    devices, put = set(), layers._empty

    def recorded(network: Any, name: str, kind: str, **sizes: Any) -> Any:
        made = put(network, name, kind, **sizes)
        devices.update({made.weight.device.type, made.scales.device.type})
        return made

    monkeypatch.setattr(layers, "_empty", recorded)
    load(QWEN2, STORED, Source(str(packed)))
    assert devices == {"meta"}


def test_a_packed_checkpoint_is_judged_as_it_is_stored(packed: Path, tmp_path: Path) -> None:
    says = "is already int4: judge it `stored` .--compression stored.. '8bit' needs the checkpoint"
    with pytest.raises(UsageError, match=says):
        bench(f"mine={packed}", "8bit")
    for options in ((), ("8bit", "stored")):
        assert fitting(f"mine={packed}", *options) == {"stored"}
    with pytest.raises(UsageError, match="is already int4"):
        load_once(QWEN2, FLOAT32, Source(str(packed)), Store(tmp_path), device="cpu", dtype=None)
    eager = Chain("stored+eager", (STORED, Eager()))
    assert shipped.refusal(Source(str(packed)), eager) is None
    alone = shipped.refusal(Source(str(packed)), Eager())
    assert alone and alone.endswith("behind `stored` (--compression stored+eager).")
    assert usual(f"mine={packed}") == "stored"


def test_a_recipe_is_applied_once(shorter: Path, tmp_path: Path) -> None:
    for recipe in ("depth50", "depth50+4bit"):
        with pytest.raises(UsageError, match=r"depth50 has been applied to .* already"):
            bench(f"mine={shorter}", recipe)
    named = fitting(f"mine={shorter}")
    assert {"stored", "32bit", "4bit", "depth50bi"} <= named and "depth50" not in named
    assert usual(f"mine={shorter}") == "stored"
    shipping.compress(bench(f"mine={shorter}", "rtn_w4a16"), tmp_path / "out")
    told = json.loads((tmp_path / "out" / "recipe.json").read_text())
    assert [part["name"] for part in told["parts"]] == ["depth50", "rtn_w4a16"]


def test_stored_repeats_another_recipe_on_a_plain_checkpoint(tiny: Path) -> None:
    assert usual(f"mine={tiny}") == usual("qwen2") == "32bit"
    assert fitting(f"mine={tiny}") == set(compressions()) - {"stored"}
    assert fitting(f"mine={tiny}", "stored") == {"stored"}
    with pytest.raises(UsageError, match="'stored' changes no weights: copy the folder instead"):
        shipping.compress(bench(f"mine={tiny}", "stored"), tiny.parent / "out")


def test_no_hub_is_asked_for_the_cells_of_a_tier(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = catalogued()
    monkeypatch.setattr("socket.socket", lambda *parts: pytest.fail("asked"))
    models, recipes = list(entries.models.values()), list(entries.compressions.values())
    pairs = variants(models, recipes, entries)
    there = cells(pairs, list(entries.datasets.values()), entries)
    assert {cell.model.name for cell in there} == set(entries.models)


VENDORS = {
    "gptq": ({"quant_method": "gptq", "bits": 4, "group_size": 128}, "optimum gptqmodel"),
    "awq": ({"quant_method": "awq", "bits": 4, "group_size": 128}, "gptqmodel"),
    "compressed-tensors": (
        {"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": {}},
        "compressed-tensors",
    ),
}


@pytest.fixture
def forgetful() -> Iterator[None]:
    """transformers remembers what is installed: it asks anew, within the test and after it."""
    known = [found for found in vars(import_utils).values() if hasattr(found, "cache_clear")]
    for found in known:
        found.cache_clear()
    yield
    for found in known:
        found.cache_clear()


@pytest.mark.usefixtures("forgetful")
@pytest.mark.parametrize("vendor", VENDORS)
def test_a_vendors_checkpoint_needs_its_loader(
    vendor: str, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaders = {"compressed_tensors", "gptqmodel", "optimum"}
    for name in loaders | {name for name in sys.modules if name.split(".")[0] in loaders}:
        monkeypatch.setitem(sys.modules, name, None)  # as if it were not installed
    folder, (config, packages) = tmp_path / "vendor", VENDORS[vendor]
    shutil.copytree(tiny, folder)
    rewrite("config.json", lambda told: told.update(quantization_config=config))(folder)
    with pytest.raises(UsageError, match=f"is already {vendor}: judge it `stored`"):
        bench(f"mine={folder}", "4bit")
    there = bench(f"mine={folder}", usual(f"mine={folder}"))
    with pytest.raises(CheckpointError, match=f"Install it: pip install {packages}$") as error:
        there.variant(there.models[0], there.compressions[0])
    assert f"{folder} is quantized by {vendor}" in str(error.value)


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        ({}, None),
        ({"vlmbench_layers": {"a": {"kind": "Factors", "rank": 3}}}, None),
        ({"vlmbench_layers": {"a": {"kind": "Int8Linear", "bits": 4}}}, "int4"),
        ({"vlmbench_layers": {"a": {"kind": "Int8Linear", "bits": 8}}}, "int8"),
        ({"vlmbench_layers": {"a": {"kind": "Sparse24Linear"}}}, "sparse24"),
        ({"vlmbench_layers": {"a": {"kind": "Int4Linear", "bits": 3}}}, "int4"),
        ({"quantization_config": {"load_in_4bit": True, "quant_method": "bitsandbytes"}}, "nf4"),
        ({"quantization_config": {"load_in_8bit": True, "load_in_4bit": False}}, "int8"),
        ({"quantization_config": {"quant_method": "fp8"}}, "fp8"),
        ({"quantization_config": None}, None),
    ],
)
def test_what_is_packed_is_seen_from_the_configuration(config: Any, kind: str | None) -> None:
    assert shipped.packed(config) == kind


def test_the_field_is_that_of_layers() -> None:
    assert shipped.LAYERS == layers.FIELD
    assert {"Int4Linear", "Int8Linear", "Sparse24Linear"} == set(layers.KINDS) - {"Factors"}


def test_a_checkpoint_without_a_recipe_is_an_ordinary_one(copied: Path) -> None:
    (copied / "recipe.json").unlink()
    assert shipped.check_files(Source(str(copied))) is None
    load(replace(QWEN2, name="mine"), STORED, Source(str(copied)))

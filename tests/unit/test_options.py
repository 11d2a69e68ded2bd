"""What a user asks for on the command line: met, or refused with what was meant."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from vlmbench import selection
from vlmbench.bench import Bench
from vlmbench.errors import CheckpointError, UnknownNameError, UsageError, VlmbenchError
from vlmbench.models.qwen2 import QWEN2
from vlmbench.options import Options, catalogued
from vlmbench.spec import Source

ENTRIES = catalogued()


def bench(**options: Any) -> Bench:
    return Bench(Options(**options), ENTRIES)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Callable[[Any], Path]:
    def write(config: Any) -> Path:
        (tmp_path / "config.json").write_text(config)
        return tmp_path

    return write


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (Options(), "Write it:  pytest -k cell --baseline-update"),
        (Options(models=("qwen2",), limit=3), "Write it:  pytest -k cell --baseline-update"),
        (
            Options(models=("mine=a b",), compressions=("awq_w4a16",), data=("docvqa=d", "vqav2")),
            "Write it:  pytest --model 'mine=a b' --data docvqa=d --compression awq_w4a16 -k cell "
            "--baseline-update",
        ),
        (
            Options(models=("mine=a",), baseline_of="qwen2", baselines=Path("kept"), device="cuda"),
            "Write it:  pytest --model mine=a --baselines kept --device cuda -k cell "
            "--baseline-new",
        ),
        (Options(dtype="float16"), "Write it:  pytest --dtype float16 -k cell --baseline-update"),
    ],
)
def test_commands_name_what_this_session_knows_by_its_options(options: Options, says: str) -> None:
    assert options.told("Write it:  pytest -k cell --baseline-update") == says


def test_cells_are_the_pairs_that_can_run_variant_by_variant() -> None:
    lone = replace(QWEN2, name="lone", datasets=("vqav2",))
    entries = catalogued(models=[lone])
    chosen = Options(
        models=("qwen2", "lone"), compressions=("8bit", "32bit"), data=("vqav2", "docvqa")
    )
    assert [cell.id for cell in Bench(chosen, entries).cells()] == [
        *("qwen2_8bit-vqav2", "qwen2_8bit-docvqa", "qwen2_32bit-vqav2", "qwen2_32bit-docvqa"),
        *("lone_8bit-vqav2", "lone_32bit-vqav2"),
    ]
    named = [recipe for recipe in ENTRIES.compressions.values() if recipe.name != "stored"]
    plain = [recipe for recipe in named if not selection.on_request(recipe)]
    assert [recipe.name for recipe in plain] == ["8bit", "4bit", "lm4bit", "32bit", "16bit"]
    shipped = [one for one in ENTRIES.models.values() if "embedded" in one.sources]
    answered = sum(len(one.datasets) for one in shipped)
    assert len(bench(baselines=Path("none")).cells()) == len(plain) * answered
    assert len(bench(matrix="full").cells()) == len(named) * answered


@pytest.mark.parametrize("name", ["mine", "qwen2"])
def test_a_checkpoint_of_a_known_architecture(name: str, checkpoint: Callable[[str], Path]) -> None:
    folder = checkpoint(json.dumps({"architectures": [QWEN2.architecture]}))
    (model,) = bench(models=(f"{name}={folder}",), tier="hub").models
    assert model == replace(QWEN2, name=name, sources={"hub": Source(str(folder))})


def test_a_data_set_from_another_folder() -> None:
    (dataset,) = bench(data=("docvqa=/my/pages",)).datasets
    assert dataset.sources == {"embedded": Source("/my/pages")}
    assert dataset.demos == (), "its first rows are not the named ones"


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"models": ("quen2",)}, UnknownNameError, "model 'quen2'. Did you mean 'qwen2'"),
        ({"data": ("docvq",)}, UnknownNameError, "data set 'docvq'. Did you mean 'docvqa'"),
        ({"data": ("doc=/x",)}, UnknownNameError, "data set 'doc'. .*Known: clips, docvqa"),
        ({"compressions": ("4bits",)}, UnknownNameError, "'4bits'. Did you mean '4bit'"),
        ({"models": ("mine=",)}, UsageError, "'mine=': expected NAME or NAME=FOLDER_OR_ID"),
        ({"data": ("=/x",)}, UsageError, "'=/x': expected NAME or NAME=FOLDER_OR_ID"),
        ({"models": ("mine=/no/such",)}, CheckpointError, "/no/such/config.json cannot be read"),
        ({"compressions": ("4bit", "4bit")}, UsageError, "'4bit' is named 2 times: name it once"),
        ({"limit": 0}, UsageError, "--limit must be at least 1, got 0"),
        ({"batch_size": 0}, UsageError, "--batch-size must be at least 1, got 0"),
        ({"limit": 1, "write": "new"}, UsageError, "from all samples: leave --limit out"),
        ({"write": "update", "baseline_of": "qwen2"}, UsageError, "never writes another's"),
    ],
)
def test_options_that_cannot_be_met(
    options: dict[str, Any], error: type[VlmbenchError], says: str
) -> None:
    with pytest.raises(error, match=says):
        bench(**options)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ('{"architectures": ["GPT"]}', r"architecture 'GPT'; there are adapters for .*Qwen2VL"),
        ("[]", "config.json cannot be read .TypeError"),
        ('{"architectures": []}', "config.json cannot be read .IndexError"),
        ("{}", "config.json cannot be read .KeyError"),
        ("{", "config.json cannot be read .JSONDecodeError"),
    ],
)
def test_checkpoints_without_an_adapter(
    config: str, says: str, checkpoint: Callable[[str], Path]
) -> None:
    with pytest.raises(VlmbenchError, match=says):
        bench(models=(f"mine={checkpoint(config)}",))


def test_what_the_tier_lacks() -> None:
    only = {"embedded": Source("x")}
    model, dataset = replace(QWEN2, sources=only), replace(ENTRIES.datasets["vqav2"], sources=only)
    session = bench(tier="hub")
    with pytest.raises(UsageError, match="model 'qwen2' is not in tier 'hub'; it is in embedded"):
        session.variant(model, session.compressions[0])
    with pytest.raises(UsageError, match="data set 'vqav2' is not in tier 'hub'"):
        session.samples(dataset)

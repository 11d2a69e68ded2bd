"""A folder is written whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from shipped_folders import Eager, bench, rewrite
from transformers import ProcessorMixin, Qwen2VLForConditionalGeneration

from vlmbench import shipping
from vlmbench.bench import Bench
from vlmbench.chain import Chain
from vlmbench.compression.depth import DEPTH50
from vlmbench.compression.precision import STORED
from vlmbench.errors import CheckpointError, UsageError
from vlmbench.models.qwen2 import QWEN2
from vlmbench.options import Options, catalogued
from vlmbench.spec import Source
from vlmbench.variant import load


def test_what_is_written(packed: Path, tiny: Path) -> None:
    told = json.loads((packed / "recipe.json").read_text())
    assert told["format"] == 1 and told["model"] == "mine" and told["recipe"] == "rtn_w4a16"
    assert told["architecture"] == QWEN2.architecture
    assert told["made_from"]["location"] == str(tiny)
    (part,) = told["parts"]
    assert part["name"] == "rtn_w4a16" and "bits=4" in part["recipe"]
    there = {path.name for path in packed.iterdir()} - {"recipe.json"}
    assert there == set(told["files"])
    assert {"model.safetensors", "config.json", "processor_config.json"} <= there
    assert os.listdir(packed.parent) == ["out"]
    modes = {path.stat().st_mode for path in packed.iterdir()}
    assert len(modes) == 1, "who may read one file may read all"


def no_space(*parts: Any, **options: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def killed(*parts: Any, **options: Any) -> None:
    raise KeyboardInterrupt


def lossy(write: Any) -> Any:
    """What wrote a checkpoint, but for the end of its weights."""

    def writing(variant: Any, folder: Path) -> None:
        write(variant, folder)
        os.truncate(folder / "model.safetensors", 999)

    return writing


INTERRUPTED: dict[str, tuple[Any, str, Any, type[BaseException], str]] = {
    "weights": (
        Qwen2VLForConditionalGeneration,
        "save_pretrained",
        no_space,
        UsageError,
        "No spac",
    ),
    "processor": (ProcessorMixin, "save_pretrained", no_space, UsageError, "No space left on"),
    "recipe": (shipping, "_told", killed, KeyboardInterrupt, ""),
    "read back": (shipping, "write", lossy(shipping.write), CheckpointError, "999 bytes, expected"),
    "on disk": (shipping, "_sync", no_space, UsageError, "--out .* cannot be written .No space"),
}


@pytest.mark.parametrize("when", INTERRUPTED)
@pytest.mark.parametrize("before", ["nothing", "empty", "shipped"])
def test_an_interrupted_save_leaves_nothing(
    when: str, before: str, tiny: Path, packed: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    out = tmp_path / "place" / "out"
    out.parent.mkdir()
    if before == "empty":
        out.mkdir()
    if before == "shipped":
        shutil.copytree(packed, out)
    held = sorted(out.parent.rglob("*"))
    *at, error, says = INTERRUPTED[when]
    monkeypatch.setattr(*at)
    with pytest.raises(error, match=says or None):
        shipping.compress(bench(f"mine={tiny}", "16bit"), out, force=True)
    assert sorted(out.parent.rglob("*")) == held
    if before == "shipped":
        load(QWEN2, STORED, Source(str(out)))


def test_what_a_killed_process_left_goes_with_the_next(tiny: Path, tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    left, used, foreign = (
        tmp_path / f".out.{host}.{number}.part"
        for host, number in [
            (socket.gethostname(), ended.pid),
            (socket.gethostname(), os.getppid()),
            ("elsewhere", ended.pid),
        ]
    )
    for folder in (left, used, foreign):
        folder.mkdir()
    shipping.compress(bench(f"mine={tiny}", "16bit"), tmp_path / "out")
    assert not left.exists()
    assert used.exists()
    assert foreign.exists()


def test_a_terminated_save_leaves_nothing(tiny: Path, tmp_path: Path) -> None:
    program = (
        "import os, signal, sys\n"
        "from vlmbench import cli, shipping\n"
        "shipping._told = lambda variant: os.kill(os.getpid(), signal.SIGTERM)\n"
        "sys.exit(cli.main(sys.argv[1:]))"
    )
    out = tmp_path / "out"
    arguments = ["compress", f"mine={tiny}", "--with", "16bit", "--out", str(out)]
    ended = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True)
    assert ended.returncode == 143, ended.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("out", [".", ""])
def test_the_folder_one_is_in_is_not_replaced(
    out: str, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="is the folder you are in"):
        shipping.compress(bench(f"mine={tiny}", "16bit"), Path(out))


def test_force_replaces_what_was_shipped(copied: Path, tiny: Path) -> None:
    with pytest.raises(UsageError, match=r"is not empty .*replace what vlmbench .* with --force"):
        shipping.compress(bench(f"mine={tiny}", "16bit"), copied)
    shipping.compress(bench(f"mine={tiny}", "16bit"), copied, force=True)
    assert json.loads((copied / "recipe.json").read_text())["recipe"] == "16bit"
    assert [path for path in copied.parent.iterdir() if path.name.startswith(".")] == []
    (copied / "recipe.json").unlink()
    with pytest.raises(UsageError, match="--force replaces only what vlmbench compress wrote"):
        shipping.compress(bench(f"mine={tiny}", "16bit"), copied, force=True)
    assert (copied / "model.safetensors").exists()


def test_where_the_new_cannot_be_put_the_old_stays(
    copied: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replacing = Path.replace

    def refused(self: Path, target: Path) -> Path:
        if self.suffix == ".part":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return replacing(self, target)

    monkeypatch.setattr(Path, "replace", refused)
    says = r"cannot be written \(Input/output error\)"
    with pytest.raises(UsageError, match=says), shipping.unfinished(copied, force=True):
        pass
    load(QWEN2, STORED, Source(str(copied)))
    assert [path for path in copied.parent.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize(
    ("parts", "recipe"),
    [
        ("rtn_w4a16", "rtn_w4a16"),
        ("depth50 ft 4bit", "depth50_ft+4bit"),
        ("qat 4bit", "qat4bit"),
        ("depth25bi lowrank80 ft", "depth25bi+lowrank80_ft"),
        ("depth50 stored", "depth50"),
    ],
)
def test_it_is_held_against_what_it_has_been_through(parts: str, recipe: str, copied: Path) -> None:
    told = [{"name": name, "recipe": "as it was"} for name in parts.split()]
    rewrite("recipe.json", lambda before: before.update(parts=told))(copied)
    for of, expected in (("qwen2", f"qwen2_{recipe}"), (None, "mine_stored")):
        options = Options(models=(f"mine={copied}",), compressions=("stored",), baseline_of=of)
        session = Bench(options, catalogued())
        assert {session.baseline_path(cell).stem for cell in session.cells()} == {expected}


def test_how_a_network_runs_is_not_written(tiny: Path, tmp_path: Path) -> None:
    there = bench(f"mine={tiny}", "depth50")
    there.compressions = [Chain("depth50+eager", (DEPTH50, Eager()))]
    with pytest.raises(UsageError, match=r"eager says how a network runs, .* under stored.eager"):
        shipping.compress(there, tmp_path / "out")

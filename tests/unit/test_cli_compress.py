"""`vlmbench compress`: a folder that other commands take, or one line that says what is wrong."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest
from PIL import Image

from vlmbench import cli
from vlmbench.embedded import clips


@pytest.fixture(scope="module")
def out(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the command has written."""
    folder = tmp_path_factory.mktemp("shipped")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLMBENCH_CACHE", str(folder / "cache"))
        command = ["compress", f"mine={tiny}", "--with", "depth50+rtn_w4a16"]
        assert cli.main([*command, "--out", str(folder / "out")]) == 0
    return folder / "out"


def test_what_it_says(tiny: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    command = ["compress", f"mine={tiny}", "--with", "4bit", "--out", str(tmp_path / "my out")]
    assert cli.main(command) == 0
    said = capfd.readouterr()
    assert said.err == ""
    first, *components, command, other = said.out.splitlines()
    assert re.fullmatch(r".*my out: \d+\.\d MB of weights, \d+\.\d MB in memory", first)
    names = [line.split()[0] for line in components]
    assert names == ["vision", "projector", "decoder", "head", "other"]
    assert re.fullmatch(r"  decoder +4\.\d\d bits a weight  linears: 14 nf4", components[2])
    assert command == (
        "Evaluate it:  pytest tests/benchmarks/test_regression.py "
        f"--model 'mine={tmp_path}/my out' "
        "--compression stored --baseline-new"
    )
    assert other == (
        "With --baseline-of mine in place of --baseline-new it is held against what mine scored "
        "under 4bit."
    )


def test_ask_and_describe_take_it_as_it_is_stored(
    out: Path, tmp_path: Path, tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.radial_gradient("L").resize((56, 56)).save(tmp_path / "picture.png")
    few = ["--max-new-tokens", "2"]
    model = ["--model", f"mine={out}", *few]
    assert cli.main(["ask", str(tmp_path / "picture.png"), "What?", *model]) == 0
    (tmp_path / "clip.mp4").write_bytes(clips.draw(Random(1)).mp4())
    capsys.readouterr()
    both = ["--model", f"plain={tiny}", f"mine={out}", *few, "--frames", "4"]
    assert cli.main(["describe", str(tmp_path / "clip.mp4"), *both]) == 0
    lines = capsys.readouterr().out.splitlines()
    shown = [line.split()[0] for line in lines if line.startswith(("plain_", "mine_"))]
    assert shown == ["plain_32bit", "mine_stored"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["mine={tiny}", "--with", "5bit"], "unknown compression '5bit'. Did you mean"),
        (["mine={tiny}", "--with", "4bit+depth50"], "after 4bit the weights are nf4, and depth50"),
        (["mine={tiny}", "--with", "stored"], "'stored' changes no weights"),
        (["quen2", "--with", "4bit"], "unknown model 'quen2'. Did you mean 'qwen2'"),
        (["mine={out}", "--with", "4bit"], "is already int4: judge it `stored`"),
        (["mine={folder}", "--with", "4bit"], "config.json cannot be read"),
        (["mine={tiny}", "--with", "4bit", "--out", "{tiny}"], "is not empty .*Name a new folder"),
        (
            ["mine={tiny}", "--with", "4bit", "--out", "{tiny}", "--force"],
            "is not empty .*--force replaces only what vlmbench compress wrote",
        ),
        (
            ["mine={tiny}", "--with", "4bit", "--out", "{file}/a"],
            "file/a cannot be (used|written) .Not a directory",
        ),
        (["mine={tiny}", "--with", "4bit", "--out", "{file}"], "file cannot be used .Not a direc"),
        (
            ["mine={tiny}", "--with", "4bit", "--out", "{folder}/no/such"],
            "such cannot be written .No such file or directory.. Name a folder, new or empty, in",
        ),
        (
            ["mine={tiny}", "--with", "4bit", "--out", "/proc/vlmbench"],
            "--out /proc/vlmbench cannot be written",
        ),
    ],
)
def test_a_mistake_is_one_line(
    arguments: list[str],
    says: str,
    tiny: Path,
    out: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "file").write_text("")
    places = {"folder": tmp_path, "tiny": tiny, "out": out, "file": tmp_path / "file"}
    before = sorted(tmp_path.iterdir())
    options = [part.format(**places) for part in arguments]
    if "--out" not in options:
        options += ["--out", str(tmp_path / "new")]
    assert cli.main(["compress", *options]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert re.fullmatch(f"vlmbench: .*{says}.*\n", shown.err)
    assert {path for path in sorted(tmp_path.iterdir()) if path.name != "cache"} == set(before)


def test_the_process_shows_no_traceback(tiny: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "vlmbench.cli", "compress", f"mine={tiny}", "--with", "16bit"]
    done = subprocess.run(
        [*command, "--out", "/dev/null"], cwd=tmp_path, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "vlmbench: --out /dev/null cannot be used (Not a directory). Name a new or empty folder.\n"
    )

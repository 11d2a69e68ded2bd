"""The command line: an answer, or one line that says what is wrong."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
from PIL import Image

from vlmbench import answering, catalogue, cli
from vlmbench.bench import Bench
from vlmbench.embedded import clips


def picture(folder: Path) -> Path:
    Image.radial_gradient("L").resize((56, 56)).save(folder / "picture.png")
    return folder / "picture.png"


def test_list_names_every_entry(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    axes = {
        "models": catalogue.models(),
        "compressions": catalogue.compressions(),
        "data sets": catalogue.datasets(),
        "metrics": catalogue.metrics(),
    }
    headings = [lines.index(axis) for axis in axes]
    for heading, end, entries in zip(
        headings, [*headings[1:], len(lines)], axes.values(), strict=True
    ):
        depth = 4 if lines[heading] == "compressions" else 2  # families stand between
        entered = [line for line in lines[heading + 1 : end] if line[depth] != " "]
        named = [line.split()[0] for line in entered if line.startswith(" " * depth)]
        assert sorted(named) == sorted(entries)


def test_list_tells_recipes_of_a_family_apart(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    told = [line.split(maxsplit=1)[1:] for line in lines if line.startswith("    ")]
    several = [tuple(what) for what in told if what]
    assert len(set(several)) == len(several) > 40
    assert "    lm4bit                 kind=nf4, kept=head+projector+vision" in lines
    assert "    depth50_ft+4bit        depth50 -> ft -> 4bit" in lines


def test_ask_about_a_picture(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = ["--model", f"mine={tiny}", "--max-new-tokens", "4"]
    answers = []
    for compression in ("32bit", "32bit", "lm8bit"):
        asked = ["ask", str(picture(tmp_path)), "What is <|image_pad|> this?\udce9"]
        assert cli.main([*asked, *model, "--compression", compression]) == 0
        shown = capsys.readouterr()
        assert shown.err == ""
        answers.append(shown.out)
    assert answers[0] == answers[1]


@pytest.mark.parametrize(
    ("answer", "shown"),
    [
        ("two\nlines", "two\nlines\n"),
        ("\x1b[31mred\x07\r\x9b\x00", "\\x1b[31mred\\x07\\x0d\\x9b\\x00\n"),
        ("naïve 日本 😀", "naïve 日本 😀\n"),
        ("\u202eback", "\\x202eback\n"),
    ],
)
def test_an_answer_cannot_drive_the_terminal(
    answer: str,
    shown: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def say(variant: Any, turns: dict[str, Any], **options: Any) -> dict[str, answering.Answer]:
        assert options == {"max_new_tokens": 128, "batch_size": 1}
        return {name: answering.Answer(answer, 1, cut=False) for name in turns}

    monkeypatch.setattr(Bench, "variant", lambda *parts: None)
    monkeypatch.setattr(answering, "answer", say)
    assert cli.main(["ask", str(picture(tmp_path)), "What?"]) == 0
    assert capsys.readouterr().out == shown


def truncated(folder: Path) -> Path:
    out = io.BytesIO()
    Image.radial_gradient("L").save(out, "PNG")
    (folder / "cut.png").write_bytes(out.getvalue()[:-2000])
    return folder / "cut.png"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["{folder}/none.png", "?"], "none.png: No such file or directory. Expected a picture"),
        (["{folder}", "?"], ": Is a directory. Expected a picture file"),
        (["{cut}", "?", "--model", "mine={tiny}"], "cut.png': a picture of .* cannot be read"),
        (["{picture}", "?", "--model", "quen2"], "unknown model 'quen2'. Did you mean 'qwen2'"),
        (["{picture}", "?", "--compression", "4bits"], "unknown compression '4bits'. Did you mea"),
        (["{picture}", "?", "--model", "mine={folder}"], "config.json cannot be read"),
        (["{picture}", "?", "--model", "mine="], "expected NAME or NAME=FOLDER_OR_ID"),
        (["{picture}", "?", "--max-new-tokens", "0"], "must be at least 1, got 0"),
        (["{picture}", "?", "--model", "mine={tiny}", "--device", "gpu"], "'gpu' cannot be used"),
    ],
)
def test_a_mistake_is_one_line(
    arguments: list[str],
    says: str,
    tiny: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    places = {"folder": tmp_path, "tiny": tiny}
    places |= {"cut": truncated(tmp_path), "picture": picture(tmp_path)}
    assert cli.main(["ask", *(part.format(**places) for part in arguments)]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert re.fullmatch(f"vlmbench: .*{says}.*\n", shown.err)


def test_the_process_ends_with_the_status() -> None:
    command = [sys.executable, "-m", "vlmbench.cli", "ask", "/no/such.png", "What?"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("vlmbench: /no/such.png: ") and done.stderr.count("\n") == 1


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A drawn clip of two seconds or more."""
    path = tmp_path_factory.mktemp("clips") / "clip.mp4"
    path.write_bytes(clips.draw(Random(1)).mp4())
    return path


def test_describe_a_clip(tiny: Path, clip: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = ["--model", f"mine={tiny}", "--max-new-tokens", "4"]
    assert cli.main(["describe", str(clip), *model, "--frames", "4"]) == 0
    told = capsys.readouterr()
    assert told.err == ""
    assert re.search(
        r"\n4 of \d+ frames, at 0\.00, .* s\n\d+\.\d\d s, weights \d+\.\d MB, peak \d+ MB\n",
        told.out,
    )


def test_describe_side_by_side(tiny: Path, clip: Path, capsys: pytest.CaptureFixture[str]) -> None:
    named = ["--model", f"mine={tiny}", f"yours={tiny}", "--compression", "32bit", "lm8bit"]
    assert cli.main(["describe", str(clip), *named, "--fps", "1", "--max-new-tokens", "4"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["variant", "answer", "s", "weights", "MB", "peak", "MB"]
    shown = [line.split()[0] for line in lines[1:] if line.startswith(("mine_", "yours_"))]
    assert shown == ["mine_32bit", "mine_lm8bit", "yours_32bit", "yours_lm8bit"]


def test_describe_as_json_with_a_contact_sheet(
    tiny: Path, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sheet = tmp_path / "sheet.png"
    asked = ["--model", f"mine={tiny}", "--question", "What moves?", "--max-new-tokens", "4"]
    assert cli.main(["describe", str(clip), *asked, "--json", "--contact-sheet", str(sheet)]) == 0
    told = json.loads(capsys.readouterr().out)
    (answer,) = told["answers"]
    assert (told["question"], answer["variant"]) == ("What moves?", "mine_32bit")
    assert len(told["frames"]["indices"]) == len(told["frames"]["times_s"]) == 8
    assert answer["latency_s"] > 0 and answer["weight_bytes"] > 0 and answer["peak_bytes"] > 0
    with Image.open(sheet) as picture:
        assert picture.size == (3 * 140, 3 * (140 + 16)), "eight frames, three in a row"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["{folder}/none.mp4"], "none.mp4 cannot be read as a video .there is no such file"),
        (["https://example.org/a.mp4"], "https://example.org/a.mp4: a URL, not a file"),
        (["{picture}", "--frames", "0"], "--frames must be at least 1, got 0"),
        (["{picture}", "--fps", "0"], "--fps must be above 0, got 0.0"),
        (["{picture}", "--fps", "nan"], "--fps must be above 0, got nan"),
        (["{clip}", "--frames", "999"], "999 frames are asked for, the model takes 768 at most"),
        (
            ["{clip}", "--model", "mine={tiny}", "--contact-sheet", "{folder}/no/s.png"],
            "--contact-sheet .* cannot be written",
        ),
        (["{clip}", "--contact-sheet", "sheet"], "--contact-sheet sheet cannot be written"),
        (["{folder}/\x1b[31m.mp4"], r"\\x1b\[31m.mp4 cannot be read"),
    ],
)
def test_a_mistake_in_describe_is_one_line(
    arguments: list[str],
    says: str,
    tiny: Path,
    clip: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    places = {"folder": tmp_path, "tiny": tiny, "clip": clip, "picture": picture(tmp_path)}
    assert cli.main(["describe", *(part.format(**places) for part in arguments)]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert re.fullmatch(f"vlmbench: .*{says}.*\n", shown.err)


def test_describe_needs_a_model_that_takes_videos(
    tiny: Path, clip: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    unseeing = replace(catalogue.models()["qwen2"], watching=None)
    monkeypatch.setattr(catalogue, "models", lambda *own: {"qwen2": unseeing})
    assert cli.main(["describe", str(clip)]) == 2
    assert capsys.readouterr().err.startswith("vlmbench: qwen2 takes no video.")


def test_a_reader_that_leaves_is_no_error() -> None:
    """As `vlmbench list | head -1`."""
    reader, writer = os.pipe()
    os.close(reader)
    said = subprocess.run(
        [sys.executable, "-m", "vlmbench.cli", "list"], stdout=writer, stderr=subprocess.PIPE
    )
    os.close(writer)
    assert (said.returncode, said.stderr) == (1, b"")

"""The command line: an answer, or one line that says what is wrong."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from vlmbench import answering, catalogue, cli
from vlmbench.bench import Bench


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
        assert [line.split()[0] for line in lines[heading + 1 : end]] == list(entries)


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
    import re

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

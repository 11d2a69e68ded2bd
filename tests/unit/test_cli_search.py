"""`vlmbench search`: the pictures of a folder in the order that CLIP ranks them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import checkpoints
import pytest
import torch
from PIL import Image

from vlmbench.cli import main

COLORS = ("red", "blue", "white", "black")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, Any]:
    """A random CLIP: where it is, its processor and its network."""
    made = checkpoints.Checkpoints(tmp_path_factory.mktemp("clip"))
    variant = made.load("clip")
    return Path(variant.source.location), variant.processor, variant.network


@pytest.fixture
def album(tmp_path: Path) -> Path:
    folder = tmp_path / "album"
    (folder / "more").mkdir(parents=True)
    for i, color in enumerate(COLORS):
        Image.new("RGB", (60, 60), color).save(folder / ("more" if i else "") / f"{color}.png")
    (folder / "notes.txt").write_text("no picture")
    return folder


def test_pictures_come_in_the_order_of_their_similarity(
    checkpoint: tuple[Path, Any, Any], album: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, processor, network = checkpoint
    paths = sorted(album.rglob("*.png"))
    inputs = processor(
        images=[Image.open(path) for path in paths],
        text=["a red star"],
        return_tensors="pt",
    )
    with torch.inference_mode():
        fits = (network(**inputs).logits_per_text[0] / network.logit_scale.exp()).tolist()
    expected = sorted(zip(fits, paths, strict=True), reverse=True)[:3]
    assert (
        main(["search", "a red star", str(album), "--model", f"clip={folder}", "--first", "3"]) == 0
    )
    shown = capsys.readouterr()
    lines = [line.split("  ") for line in shown.out.splitlines()]
    assert [name for _, name in lines] == [str(p.relative_to(album)) for _, p in expected]
    assert [float(fit) for fit, _ in lines] == pytest.approx([fit for fit, _ in expected], abs=1e-3)
    assert "1 files are no readable pictures" in shown.err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["x", "nowhere"], "nowhere is no folder"),
        (["x", "."], "holds no readable picture"),
        (["x", ".", "--first", "0"], "--first must be at least 1, got 0"),
    ],
)
def test_what_cannot_be_searched(
    arguments: list[str],
    says: str,
    checkpoint: tuple[Path, Any, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["search", *arguments, "--model", f"clip={checkpoint[0]}"]) == 2
    assert says in capsys.readouterr().err


def test_a_model_that_chooses_is_not_asked(
    checkpoint: tuple[Path, Any, Any], album: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = str(album / "red.png")
    assert main(["ask", picture, "What is it?", "--model", f"clip={checkpoint[0]}"]) == 2
    assert "clip chooses answers" in capsys.readouterr().err


def test_a_model_that_writes_does_not_search(
    album: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["search", "x", str(album), "--model", "qwen2"]) == 2
    assert "qwen2 writes answers" in capsys.readouterr().err

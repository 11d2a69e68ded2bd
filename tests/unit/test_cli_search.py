"""`vlmbench search` and `vlmbench label`: pictures of a folder, and texts, as CLIP ranks them."""

from __future__ import annotations

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import checkpoints
import pytest
import torch
from PIL import Image

from vlmbench import retrieval
from vlmbench.cli import main
from vlmbench.errors import NumericsError

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
        (["search", "x", "nowhere"], "nowhere is no folder"),
        (["search", "x", "."], "holds no readable picture"),
        (["search", "x", ".", "--first", "0"], "--first must be at least 1, got 0"),
        (["label", "nowhere.png", "x"], "nowhere.png: No such file or directory. Expected a pict"),
        (["label", "broken.png", "x"], "picture"),
        (["label", "broken.png", "x", "--prompt", "a photo"], "--prompt 'a photo' has no place"),
    ],
)
def test_what_cannot_be_compared(
    arguments: list[str],
    says: str,
    checkpoint: tuple[Path, Any, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.png").write_bytes(b"\x89PNG")
    assert main([*arguments, "--model", f"clip={checkpoint[0]}"]) == 2
    assert says in capsys.readouterr().err


def test_labels_come_in_the_order_of_their_chances(
    checkpoint: tuple[Path, Any, Any], album: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Equal to what CLIP's own class makes of the same picture and texts."""
    folder, processor, network = checkpoint
    labels, picture = ["star", "red moon", "ring\x1b[2J"], album / "red.png"
    inputs = processor(
        images=[Image.open(picture)],
        text=[f"a picture of {label}" for label in labels],
        padding=True,
        return_tensors="pt",
    )
    with torch.inference_mode():
        chances = network(**inputs).logits_per_image[0].softmax(0).tolist()
    told = ["label", str(picture), *labels, "--prompt", "a picture of {}"]
    assert main([*told, "--model", f"clip={folder}"]) == 0
    lines = [line.split("  ") for line in capsys.readouterr().out.splitlines()]
    expected = sorted(zip(chances, labels, strict=True), reverse=True)
    assert [name for _, name in lines] == [s.replace("\x1b", "\\x1b") for _, s in expected]
    assert [float(chance) for chance, _ in lines] == pytest.approx(
        [chance for chance, _ in expected], abs=1e-3
    )


def test_a_model_that_is_broken_ranks_nothing(
    checkpoint: tuple[Path, Any, Any], album: Path, tmp_path: Path
) -> None:
    _, processor, network = checkpoint
    broken = copy.deepcopy(network)
    broken.text_projection.weight.data[0, 0] = torch.nan
    variant: Any = SimpleNamespace(name="clip", processor=processor, network=broken, device="cpu")
    with pytest.raises(NumericsError, match=r"black\.png are NaN"):
        retrieval.search(variant, "star", album)
    with pytest.raises(NumericsError, match="the picture and its labels are NaN"):
        retrieval.label(variant, (album / "red.png").read_bytes(), ["star"])


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

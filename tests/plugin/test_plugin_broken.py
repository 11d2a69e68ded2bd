"""Broken checkpoints and pictures: one message a test, and not found out again by each test."""

import io
import re
import shutil

import pytest

TESTS = """
def test_variant(variant):
    pass

def test_run(run):
    pass

def test_demo(run, sample):
    pass
"""
COUNTED = """
import json
from pathlib import Path

import pytest

import vlmbench.evaluate

@pytest.fixture(scope="session", autouse=True)
def counted(bench):
    evaluated = []
    evaluate = vlmbench.evaluate.evaluate

    def counting(cell, *args, **kwargs):
        evaluated.append(cell.id)
        return evaluate(cell, *args, **kwargs)

    vlmbench.evaluate.evaluate = counting
    yield
    vlmbench.evaluate.evaluate = evaluate
    Path("counted.json").write_text(json.dumps({"loads": bench.loads, "evaluated": evaluated}))
"""


@pytest.fixture
def counting(project):
    project.pytester.makeconftest(COUNTED)
    project.pytester.makepyfile(test_broken=TESTS)
    return project


def told(result, message):
    """How many tests end in this one message; none of them in a traceback."""
    shown = result.stdout.str()
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert "Traceback" not in shown
    assert not re.search(r"\.py:\d+", shown)
    return len(re.findall(rf"^{message}", shown, re.M))


def test_a_truncated_checkpoint(counting):
    counting.checkpoint = shutil.copytree(counting.checkpoint, counting.path / "cut")
    weights = counting.checkpoint / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100_000])
    result = counting.pytest()
    result.assert_outcomes(errors=1 + 1 + 10)
    assert told(result, f"CheckpointError: cannot read the weights of {weights.parent}: ") == 12
    # By test_variant, and by the first that wanted the run.
    assert counting.read("counted.json") == {"loads": {"mine_32bit": 2}, "evaluated": []}


def test_a_checkpoint_folder_without_weights(counting):
    counting.checkpoint = shutil.copytree(counting.checkpoint, counting.path / "bare")
    (counting.checkpoint / "model.safetensors").unlink()
    result = counting.pytest("-k", "variant")
    result.assert_outcomes(errors=1, deselected=11)
    assert told(result, "CheckpointError: cannot read the weights of .*save the checkpoint again")


def test_pictures_that_cannot_be_read_and_that_cannot_be_taken(counting):
    from PIL import Image

    line = io.BytesIO()
    Image.new("RGB", (1, 2000)).save(line, "PNG")
    page = counting.spoil("docvqa", b"not a picture")
    scene = counting.spoil("vqav2", line.getvalue())
    result = counting.pytest(data="docvqa vqav2")
    result.assert_outcomes(passed=1, errors=2 + 20)
    unreadable = f"PictureError: sample '{page['id']}': a picture of 13 bytes cannot be read"
    assert told(result, unreadable) == 11
    refused = f"PictureError: sample '{scene['question_id']}': the processor refuses a picture"
    assert told(result, refused + " of 1x2000 pixels") == 11
    assert counting.read("counted.json") == {
        "loads": {"mine_32bit": 1},
        "evaluated": ["mine_32bit-docvqa", "mine_32bit-vqav2"],
    }

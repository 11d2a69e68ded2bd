"""Broken checkpoints and pictures: one message a test, and not found out again by each test."""

import io
import re
import shutil

import pytest

from vlmbench.plugin import ERRORED

TESTS = """
def test_variant(variant):
    pass

def test_run(run):
    pass

def test_demo(run, sample):
    pass
"""
NO_WORSE = """
def test_no_worse(run, baseline):
    assert run >= baseline
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
    assert result.ret == ERRORED
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
    assert result.ret == ERRORED
    assert counting.read("counted.json") == {"loads": {"mine_32bit": 1}, "evaluated": []}


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
    # The cells have runs all the same; the demos on those pictures have no answers.
    result.assert_outcomes(passed=1 + 2 + 20)
    assert counting.read("counted.json") == {
        "loads": {"mine_32bit": 1},
        "evaluated": ["mine_32bit-docvqa", "mine_32bit-vqav2"],
    }
    project = counting
    project.pytester.makepyfile(test_broken=NO_WORSE)
    refused = project.pytest("--baseline-new", data="docvqa vqav2")
    assert refused.ret == ERRORED
    refused.stdout.fnmatch_lines(
        [
            "BaselineError: mine_32bit-docvqa: 1 samples have no answer, so this run is no "
            f"baseline: sample '{page['id']}': a picture of 13 bytes cannot be read*",
            "BaselineError: mine_32bit-vqav2: 1 samples have no answer*"
            f"'{scene['question_id']}': the processor refuses a picture of 1x2000 pixels*",
        ]
    )
    refused.stdout.no_fnmatch_line("*Traceback*")


def test_a_sample_without_an_answer_is_an_error_and_no_regression(counting, stored):
    """Its baseline is of readable pictures; the sample counts neither as right nor as wrong."""
    counting.pytester.makepyfile(test_broken=NO_WORSE)
    counting.baseline(stored)
    counting.spoil("docvqa", b"not a picture")
    result = counting.pytest()
    result.assert_outcomes(failed=1)
    assert result.ret == ERRORED
    result.stdout.fnmatch_lines(
        [
            "E       *mine_32bit-docvqa (embedded) is error against its baseline",
            "E *1 of 24 samples have no answer: *a picture of 13 bytes cannot be read*",
            "mine_32bit *error*",
        ]
    )
    counting.pytest("--error-budget=1").assert_outcomes(passed=1)


def test_samples_that_run_out_of_time_are_errors(counting):
    result = counting.pytest("--time-limit=1e-9")
    result.assert_outcomes(passed=1, errors=1 + 10)
    assert told(result, "OutOfTimeError: mine_32bit: sample .* has no answer after 1e-09 s") == 11
    assert result.ret == ERRORED

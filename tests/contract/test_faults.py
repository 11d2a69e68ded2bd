"""Guards broken on purpose: each fault between a pixel and a verdict is told by its name.

The shipped checkpoint and baselines are judged with one thing wrong.
"""

import re

import faults
import pytest
import torch

from vlmbench.bench import Bench
from vlmbench.errors import VlmbenchError
from vlmbench.options import Options, catalogued

DATASET = "vqav2"


@pytest.fixture
def session(tmp_path):
    """Makes a session on one cell, with nothing kept."""

    def made(compression="32bit", dataset=DATASET, **options):
        asked = {"models": ("qwen2",), "compressions": (compression,), "data": (dataset,)}
        return Bench(Options(**asked, cache=tmp_path / "cache", **options), catalogued())

    return made


def verdict(bench):
    """(status or error's name, everything that is said) of the one cell."""
    (cell,) = bench.cells()
    try:
        judged = bench.judge(cell, bench.run(cell))
    except VlmbenchError as error:
        return type(error).__name__, str(error)
    return judged.status, "\n".join(judged.explain())


FAULTS = [
    (faults.blind, "regression", "vqa_accuracy .* regression"),
    (faults.swapped_pictures, "regression", "vqa_accuracy .* regression"),
    (faults.padded_right, "regression", "vqa_accuracy .* regression"),
    (faults.grey_pictures, "regression", "vqa_accuracy .* regression"),
    (faults.other_instruction, "BaselineError", "another protocol.*instruction: .*at length"),
    (faults.other_template, "BaselineError", "another protocol.*chat_template"),
    (
        faults.shorter_limit,
        "BaselineError",
        'another protocol.*max_new_tokens: baseline "\\d+", this run "2"',
    ),
    (faults.cut_short, "regression", "cut answers +baseline 0.0%"),
    (faults.sampling, "BaselineError", "another protocol.*decoding: .*greedy, do_sample True"),
    (faults.dropped_layer, "regression", "vqa_accuracy .* regression"),
    (faults.noisy_matrix, "regression", "vqa_accuracy .* regression"),
    (faults.shuffled_references, "BaselineError", "other samples.*are new or changed"),
    (faults.half_of_the_rows, "BaselineError", "other samples.*250 are missing"),
    (faults.bare_metric, "BaselineError", "vqa_accuracy gives the answer .* has changed"),
    (faults.other_encoder_layer, "BaselineError", "bertscore gives the answer .* has changed"),
    (faults.failing(1), "error", "1 of 500 samples have no answer: .*the picture is broken"),
    (faults.failing(10), "error", "10 of 500 samples have no answer"),
    (faults.swallowed, "regression", "empty answers"),
]


OF_CLIPS = [
    (faults.frames_out_of_order, "regression", "vqa_accuracy .* regression"),
    (
        faults.fewer_frames,
        "BaselineError",
        'another protocol.*frames: baseline "8 uniform", this run "4 uniform"',
    ),
]


@pytest.mark.parametrize(
    ("dataset", "fault", "status", "says"),
    [(DATASET, *fault) for fault in FAULTS] + [("videoqa", *fault) for fault in OF_CLIPS],
    ids=lambda part: getattr(part, "__name__", None),
)
def test_a_fault_is_told(session, monkeypatch, dataset, fault, status, says):
    bench = session(dataset=dataset)
    fault(bench, monkeypatch)
    found, said = verdict(bench)
    assert (found, bool(re.search(says, said, re.S))) == (status, True), said


def test_what_may_not_matter_does_not(session):
    """Another batch size, one thread, other cells before it, a session that finds its run."""
    threads = torch.get_num_threads()

    def answers(bench, *cells):
        by_dataset = {cell.dataset.name: cell for cell in bench.cells()}
        made = [bench.run(by_dataset[name]) for name in cells]
        assert bench.judge(by_dataset[DATASET], made[-1]).status == "pass"
        return {name: scored.answer for name, scored in made[-1].samples.items()}

    first = answers(session(), DATASET)
    warm = session()
    assert answers(warm, DATASET) == first
    assert not warm.loads and warm.reused == [cell.id for cell in warm.cells()]
    try:
        torch.set_num_threads(1)
        assert answers(session(batch_size=7), DATASET) == first
    finally:
        torch.set_num_threads(threads)
    both = session(fresh=True)
    (cell,) = both.cells()
    both.datasets = [cell.dataset, both.entries.datasets["scienceqa"]]
    assert answers(both, "scienceqa", DATASET) == first

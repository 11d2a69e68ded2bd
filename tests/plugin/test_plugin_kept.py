"""What one session has answered the next one need not; whatever could change it, it answers."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vlmbench.run import Run
from vlmbench.variant import Variant

ROOT = Path(__file__).parents[2]
UNCHANGED = "*1 of 1 cells are unchanged: answered by an earlier session (--fresh answers them*"
TESTS = """
def test_it(run, baseline, bench):
    assert run >= baseline
    print("loads:", sum(bench.loads.values()))
"""
RECIPE = """
from dataclasses import dataclass

from vlmbench.compression.precision import Precision

@dataclass(frozen=True)
class Halved(Precision):
    def apply(self, model, anatomy):
        model.get_submodule(anatomy.layers)[0].mlp.down_proj.weight.data.mul_({factor})

def pytest_vlmbench_compressions():
    return [Halved("halved", "float32")]
"""


def judged(project, *options, reused, **axes):
    """Judge the one cell; its run is an earlier session's or not."""
    result = project.pytest("-s", *options, **axes)
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines([f"*loads: {0 if reused else 1}*"])
    (result.stdout.fnmatch_lines if reused else result.stdout.no_fnmatch_line)(
        [UNCHANGED] if reused else UNCHANGED
    )


def test_an_unchanged_cell_is_not_answered_again(project):
    project.pytester.makepyfile(test_it=TESTS)
    judged(project, "--baseline-new", reused=False)
    judged(project, reused=True)
    judged(project, "--margin", "anls=0.5", reused=True)
    judged(project, "--fresh", reused=False)
    judged(project, reused=True)
    judged(project, "--batch-size", "5", reused=False)
    # A copy elsewhere is the same checkpoint; other bytes are another.
    copy = project.checkpoint = shutil.copytree(project.checkpoint, project.path / "copy")
    judged(project, reused=True)
    config = copy / "processor_config.json"
    config.write_text(config.read_text().replace("0.48145466", "0.4"))
    judged(project, "--baseline-update", reused=False)


def test_a_recipe_whose_source_changes_is_run_again(project):
    project.pytester.makepyfile(test_it=TESTS)
    project.pytester.makeconftest(RECIPE.replace("{factor}", "0.5"))
    judged(project, "--baseline-new", compressions="halved", reused=False)
    # Another conftest takes the name that the recipe's module had.
    (project.path / "tests").mkdir()
    (project.path / "tests" / "conftest.py").touch()
    (project.path / "test_it.py").rename(project.path / "tests" / "test_it.py")
    judged(project, compressions="halved", reused=True)
    project.pytester.makeconftest(RECIPE.replace("{factor}", "0.4"))
    judged(project, compressions="halved", reused=False)


def test_what_a_test_may_have_changed_is_not_kept(project):
    project.pytester.makepyfile(
        test_it="""
def test_it(variant, run):
    assert run.samples
"""
    )
    for _ in range(2):
        result = project.pytest()
        result.assert_outcomes(passed=1)
        result.stdout.no_fnmatch_line(UNCHANGED)
    assert not list(project.path.glob("cache/*/*/*"))


def test_a_damaged_entry_is_told_and_answered_again(project):
    project.pytester.makepyfile(test_it=TESTS)
    judged(project, "--baseline-new", reused=False)
    (entry,) = project.path.glob("cache/*/*/*.run")
    entry.write_bytes(entry.read_bytes()[:-9])
    result = project.pytest()
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines([f'"{entry.name} in the cache is damaged: answered again"'])
    judged(project, reused=True)


DYING = """
import os
import signal

from vlmbench import artifacts

add, keep = artifacts.Journal.add, artifacts.Store.keep
lines = int(os.environ["DIES_AFTER"])

def dying_add(journal, line):
    global lines
    if lines == 0:
        add(journal, line)
        whole = journal.path.read_bytes()
        journal.path.write_bytes(whole[:-30])
        os.kill(os.getpid(), signal.SIGKILL)
    lines -= 1
    add(journal, line)

def dying_keep(store, key, run):
    if lines == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return keep(store, key, run)

artifacts.Journal.add, artifacts.Store.keep = dying_add, dying_keep
"""
BATCHES, LIMIT = 10, 40


ASKED = [
    f"--model=qwen2={ROOT / 'vlmbench' / 'embedded' / 'checkpoints' / 'qwen2'}",
    *("--compression=4bit", "--data=docvqa", f"--limit={LIMIT}"),
    f"--batch-size={LIMIT // BATCHES}",
]


@pytest.fixture
def start(project, monkeypatch):
    """Starts a session on the shipped checkpoint, in a process that may be killed."""
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{project.path}")
    project.pytester.makepyfile(test_it="def test_it(run): assert run.samples", dying=DYING)

    def start(*options, **environment):
        return subprocess.Popen(
            [sys.executable, "-m", "pytest", "-q", *ASKED, *options],
            cwd=project.path,
            env=os.environ | environment,
            stdout=subprocess.DEVNULL,
        )

    return start


def stored(project, kind="run"):
    """The one entry of that kind, taken out of the cache."""
    (path,) = project.path.glob(f"cache/*/*/*.{kind}")
    text = path.read_text()
    path.unlink()
    return text


def content(text):
    """A run but for what time and memory it took."""
    run = vars(Run.from_json(text.partition("\n")[2]))
    return {name: run[name] for name in run.keys() - {"seconds", "peak_bytes"}}


def finished(project):
    """The run of a session that nobody disturbs."""
    project.bare(*ASKED).assert_outcomes(passed=1)
    return content(stored(project))


def test_a_killed_session_goes_on_from_its_last_batch(project, start, monkeypatch):
    whole = finished(project)
    made = []
    generate = Variant.generate

    def counting(self, inputs, **options):
        made.append(len(inputs["input_ids"]))
        return generate(self, inputs, **options)

    monkeypatch.setattr(Variant, "generate", counting)
    assert len({scored.answer for scored in whole["samples"].values()}) > LIMIT / 4
    # While the first batch is written, in the middle, and when all is answered but not kept.
    for lines in (0, BATCHES // 2, BATCHES):
        assert start("-p", "dying", DIES_AFTER=str(lines)).wait() == -signal.SIGKILL
        (journal,) = project.path.glob("cache/*/*/*.journal")
        assert journal.read_text().count('"answers"') == min(lines + 1, BATCHES)
        made.clear()
        assert finished(project) == whole
        assert made == [LIMIT // BATCHES] * (BATCHES - lines), "no other batch is made again"
        assert not journal.exists()


@pytest.mark.soak
def test_a_session_killed_at_any_time_goes_on(project, start):
    before = time.perf_counter()
    assert start().wait() == 0
    took = time.perf_counter() - before
    whole = content(stored(project))
    rng, kills, resumed, ended = random.Random(0), 0, 0, 0
    while kills < 50:
        process = start()
        try:
            process.wait(rng.uniform(0.4, 1.0) * took)
        except subprocess.TimeoutExpired:
            process.kill()
            kills += 1
        if process.wait() == 0:
            ended += 1
            assert content(stored(project)) == whole
        else:
            resumed += bool(list(project.path.glob("cache/*/*/*.journal")))
    assert finished(project) == whole
    assert resumed > 10
    print(f"{kills} kills, {resumed} with answers kept; {ended + 1} runs finished, all equal")

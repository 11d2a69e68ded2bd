"""A user's own model, compression, data set and metric, from their conftest.py."""

import pytest

from vlmbench.baseline import load

OWN = """
import dataclasses

from vlmbench.models.qwen2 import QWEN2
from vlmbench.spec import Dataset, Gate, Metric, Sample, Source

OURS = dataclasses.replace(
    QWEN2, name="ours", sources={{"embedded": Source({checkpoint!r})}}, datasets=("docvqa",)
)

@dataclasses.dataclass(frozen=True)
class Silenced:
    name: str = "silenced"

    def load_options(self, anatomy):
        return {{"dtype": "float32"}}

    def apply(self, model, anatomy):
        model.get_submodule(anatomy.layers)[0].mlp.down_proj.weight.data.zero_()

    def storage(self, component):
        return "float32"

def read(row, number):
    return Sample(
        id=str(number),
        pictures=(row["image"]["bytes"],),
        question="Which page is it?",
        references=("the first",),
        cluster=str(number),
    )

PAGES = Dataset(
    name="pages",
    sources={{"embedded": Source({data!r})}},
    columns=("image",),
    read=read,
    gates=(Gate("brevity", 0.1),),
    max_new_tokens=2,
)
BREVITY = Metric("brevity", version="1", score=lambda answers, references: [0.25 for _ in answers])

def pytest_vlmbench_models():
    return [OURS]

def pytest_vlmbench_compressions():
    return [Silenced()]

def pytest_vlmbench_datasets():
    return [PAGES]

def pytest_vlmbench_metrics():
    return [BREVITY]
"""
TEST = """
def test_silenced(variant):
    weight = variant.network.get_submodule("model.language_model.layers")[0].mlp.down_proj.weight
    assert not weight.any()

def test_no_worse(run, baseline):
    assert run >= baseline

def test_demo(run, sample):
    assert run.samples[sample.id].question == "Which page is it?"
"""
HOOK = """
from vlmbench.compression.precision import Precision

def pytest_vlmbench_compressions():
    return {returned}
"""


def test_are_run_as_those_of_the_package(project):
    own = OWN.format(checkpoint=str(project.checkpoint), data=str(project.data["docvqa"]))
    project.pytester.makeconftest(own)
    project.pytester.makepyfile(test_own=TEST)
    axes = ("--model=ours", "--compression=silenced", "--data=pages")
    result = project.bare(*axes, "-v", "-m", "pages or not pages", "--baseline-new")
    result.assert_outcomes(passed=2 + 10)
    result.stdout.fnmatch_lines(["test_own.py::test_no_worse[[]ours_silenced-pages[]] PASSED*"])
    path = project.path / "baselines" / "embedded" / "pages" / "ours_silenced.json"
    assert load(path, "", "embedded").scores == {"brevity": 0.25}
    # A model of the package answers them, too: it names no data set that is not its own.
    selected = [f"--model=mine={project.checkpoint}", "--compression=4bit", "--data=pages"]
    collected = project.bare(*selected, "--collect-only", "-q", "-k", "worse").outlines
    assert collected[0] == "test_own.py::test_no_worse[mine_4bit-pages]"
    result = project.bare("--model=ours", "--data=vqav2")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: nothing to run: no model (ours) answers *(vqav2)"])


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ("[Precision('4bit', 'bfloat16')]", "Compression '4bit' is defined twice: in *bnb.py"),
        ("[Precision('half@', 'bfloat16')]", "Compression name 'half@' must be lower-case"),
        ("['4bit']", "'4bit' was added as a Compression and is none"),
        ("Precision('half', 'bfloat16')", "pytest_vlmbench_compressions must return a list, got "),
    ],
)
def test_a_faulty_one_is_one_usage_error(project, returned, message):
    project.pytester.makeconftest(HOOK.format(returned=returned))
    result = project.bare()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: *{message}*"])
    assert len([line for line in result.errlines if line]) == 1


def test_one_that_is_found_too_late_is_a_usage_error(project):
    """pytest reads the conftest.py of a folder that was not named after the cells are formed."""
    folder = project.path / "deep" / "down"
    folder.mkdir(parents=True)
    (folder / "conftest.py").write_text(HOOK.format(returned="[Precision('half', 'bfloat16')]"))
    (folder / "test_it.py").write_text("def test_it(): pass\n")
    result = project.bare()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: *conftest.py has a pytest_vlmbench_ hook*too late: move*"])
    project.bare(folder).assert_outcomes(passed=1)

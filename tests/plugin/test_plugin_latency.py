"""Latency goes through pytest-benchmark; without it, and under xdist, the verdicts are the same."""

import json
import os
import pty
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "tests" / "benchmarks" / "test_regression.py"
RECORDED = {
    "footprint_bytes",
    "file_bytes",
    "peak_bytes",
    "samples_per_s",
    "prefill_s",
    "decode_s_per_token",
}


@pytest.fixture
def shipped(project, stored, monkeypatch):
    """A project with the shipped test, judged by a baseline that it keeps."""
    # This session may have imported the shipped one under the name that the copy takes.
    monkeypatch.delitem(sys.modules, SHIPPED.stem, raising=False)
    shutil.copy(SHIPPED, project.path)
    project.baseline(stored)
    return project


def test_a_history_holds_every_number_and_two_compare(shipped):
    for name in ("then.json", "now.json"):
        result = shipped.pytest("--benchmark-autosave", f"--benchmark-json={name}")
        result.assert_outcomes(passed=1)
    (entry,) = shipped.read("now.json")["benchmarks"]
    info = entry["extra_info"]
    assert entry["group"] == "docvqa"
    assert (info["cell"], info["tier"]) == ("mine_32bit-docvqa", "embedded")
    assert (info["of"], info["made_s"]) == (["mine", "32bit", "docvqa"], 0.0)
    assert set(info["scores"]) == {"bertscore", "anls", "levenshtein", "exact_match"}
    assert all(info[name] > 0 for name in RECORDED)
    assert entry["params"] == {"vlmbench_cell": "mine_32bit-docvqa"}
    compared = subprocess.run(
        [Path(sys.executable).parent / "pytest-benchmark", "compare"],
        cwd=shipped.path,
        capture_output=True,
        text=True,
    )
    assert compared.returncode == 0, compared.stderr
    assert compared.stdout.count("test_regression[mine_32bit-docvqa]") == 2
    result.stdout.re_match_lines([r"mine_32bit +0\.\d{3} +0\.\d{3} .* pass +\d+ +\d\.\d\d +\d+ *"])


def test_a_latency_is_judged_by_none_that_was_measured_in_something_else(shipped):
    saved = "--benchmark-json=then.json"
    shipped.pytest(saved).assert_outcomes(passed=1)
    then = shipped.read("then.json")
    assert {"device_kind", "driver", "torch", "threads", "cpu"} <= set(then["machine_info"])
    judged = ["--benchmark-compare=then.json", "--benchmark-compare-fail=median:99999%"]
    shipped.pytest(*judged).assert_outcomes(passed=1)
    then["machine_info"]["torch"] = "1.0"
    (shipped.path / "then.json").write_text(json.dumps(then))
    result = shipped.pytest(*judged)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*cannot judge these:", '  torch: baseline "1.0", this run "*"'])
    # Without a verdict it is shown, and said.
    shipped.pytest(judged[0], "-W", "ignore").assert_outcomes(passed=1)


def test_without_measuring_the_verdict_is_the_same(shipped):
    result = shipped.pytest("--benchmark-disable")
    result.assert_outcomes(passed=1)
    result.stdout.re_match_lines([r"mine_32bit .* pass +- +\d\.\d\d +\d+ *"])


def test_under_xdist_too_and_without_the_bars_of_its_workers(shipped, stored, monkeypatch):
    shipped.better(shipped.baseline(stored, "mine_16bit"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    command = [sys.executable, "-m", "pytest", "-n2", *shipped.options("32bit 16bit")]
    result, terminal = on_a_terminal(command, cwd=shipped.path)
    assert result.returncode == pytest.ExitCode.TESTS_FAILED, result.stdout
    assert re.search(r"^=+ 1 failed, 1 passed in ", result.stdout, re.M)
    assert "mine_16bit-docvqa (embedded) is regression against its baseline" in result.stdout
    assert "worst samples of mine_16bit-docvqa" in result.stdout
    assert "sample" not in terminal
    # The table is the session's, as without workers, but nothing was timed.
    assert re.search(r"^mine_32bit +0\.\d{3} .* pass +- +\d\.\d\d +\d+ *$", result.stdout, re.M)
    assert re.search(r"^mine_16bit +0\.\d{3} .* regression +- ", result.stdout, re.M)


def test_a_variant_is_loaded_by_one_worker(shipped, stored, monkeypatch):
    """Two variants on two data sets, two workers: each loads one of them, once."""
    shipped.pytester.makeconftest(LOADS)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    options = shipped.options("32bit 16bit", "docvqa vqav2")
    command = [sys.executable, "-m", "pytest", "-n2", "--baseline-new", *options]
    result = subprocess.run(command, cwd=shipped.path, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout
    loads = [json.loads(file.read_text()) for file in shipped.path.glob("loads-*.json")]
    assert sorted(loads, key=str) == [{"mine_16bit": 1}, {"mine_32bit": 1}]
    assert len(list(shipped.path.glob("baselines/embedded/*/*.json"))) == 4


LOADS = """
import json
from pathlib import Path

import pytest

@pytest.fixture(scope="session", autouse=True)
def counted(bench, worker_id):
    yield
    Path(f"loads-{worker_id}.json").write_text(json.dumps(bench.loads))
"""


def on_a_terminal(command, cwd):
    """Run with stderr on a terminal; the result and what was shown there."""
    main, end = pty.openpty()
    result = subprocess.run(command, cwd=cwd, stdout=subprocess.PIPE, stderr=end, text=True)
    os.set_blocking(main, False)
    os.close(end)
    shown = b""
    try:
        while part := os.read(main, 4096):
            shown += part
    except OSError:  # nothing more
        pass
    os.close(main)
    return result, shown.decode()

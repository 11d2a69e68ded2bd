"""Recipes that make a checkpoint are judged where they have a baseline, or where they are asked."""

from pathlib import Path

import pytest

from vlmbench.catalogue import compressions, models

SHIPPED = {name: model for name, model in models().items() if "embedded" in model.sources}


@pytest.fixture
def collected(pytester: pytest.Pytester):
    pytester.makepyfile("def test_no_worse(run, baseline): assert run >= baseline")

    def collect(*options: str) -> tuple[set[str], str]:
        result = pytester.runpytest_subprocess(
            "--collect-only", "-q", "-p", "vlmbench.plugin", "-m", "vqav2", *options
        )
        found = {
            line.partition("[")[2].rstrip("]")
            for line in result.outlines
            if "test_no_worse[" in line
        }
        return {name.partition("-")[0] for name in found}, result.stdout.str()

    return collect


def test_what_is_collected(collected, pytester: pytest.Pytester) -> None:
    usual, _ = collected()
    assert "qwen2_4bit" in usual and "qwen2_awq_w4a16" not in usual
    asked, _ = collected("--compression", "awq_w4a16", "--compression", "depth50_ft+lm4bit")
    assert asked == {
        f"{name}_{recipe}"
        for name, model in SHIPPED.items()
        for recipe in ("awq_w4a16", "depth50_ft+lm4bit")
        if "vqav2" in model.datasets
    }
    full, _ = collected("--matrix", "full")
    assert {"qwen2_awq_w4a16", "qwen2_depth50_ft"} < full and usual < full
    new, _ = collected("--baseline-new")
    assert new == full
    path = Path(pytester.path, "baselines/embedded/vqav2/qwen2_rtn_w3a16.json")
    path.parent.mkdir(parents=True)
    path.write_text("{}")
    assert collected()[0] == usual | {"qwen2_rtn_w3a16"}
    assert "qwen2_rtn_w3a16" in collected("-m", "vqav2 and maker")[0]
    assert "qwen2_rtn_w3a16" not in collected("-m", "vqav2 and not maker")[0]
    full = collected("--matrix", "full", "-m", "vqav2 and trained")[0]
    assert full == {
        f"{name}_{recipe}"
        for name, model in SHIPPED.items()
        for recipe in compressions()
        if "vqav2" in model.datasets and ("ft" in recipe or recipe in ("lora", "qat", "qat4bit"))
    }


def test_what_is_left_out_is_told(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_no_worse(run, baseline): assert run >= baseline")
    result = pytester.runpytest_subprocess("--collect-only", "-p", "vlmbench.plugin")
    cells = 5 * sum(len(model.datasets) for model in SHIPPED.values())
    result.stdout.fnmatch_lines(
        [f"vlmbench: tier embedded, {cells} cells*without a baseline (--matrix full)"]
    )

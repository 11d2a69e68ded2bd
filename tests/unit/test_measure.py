"""What is timed is what is said, and the environment is plain data."""

from __future__ import annotations

import json
import math
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from vlmbench import measure
from vlmbench.catalogue import compressions
from vlmbench.models.qwen2 import QWEN2
from vlmbench.spec import Source
from vlmbench.variant import load


class Clocked:
    """Stands in for a variant: 0.5 s to the first token, 0.1 s for each later one."""

    device = "cpu"

    def __init__(self, warm_up_s: float) -> None:
        self.now, self.pending, self.calls = 0.0, warm_up_s, 0

    def generate(self, inputs: Any, *, max_new_tokens: int, min_new_tokens: int) -> None:
        assert min_new_tokens == max_new_tokens, "an end of text would shorten the measurement"
        self.now += 0.5 + 0.1 * (max_new_tokens - 1) + self.pending
        self.pending, self.calls = 0.0, self.calls + 1


def test_latency_parts_prefill_from_decode(monkeypatch: pytest.MonkeyPatch) -> None:
    clocked = Clocked(warm_up_s=60.0)
    monkeypatch.setattr(time, "perf_counter", lambda: clocked.now)
    found = measure.latency(clocked, {}, new_tokens=11, rounds=3)  # type: ignore[arg-type]
    assert found.prefill_s == pytest.approx(0.5)
    assert found.decode_s_per_token == pytest.approx(0.1)
    assert clocked.calls == 1 + 2 * 3


def test_latency_is_not_moved_by_one_slow_round(monkeypatch: pytest.MonkeyPatch) -> None:
    clocked = Clocked(warm_up_s=0.0)
    monkeypatch.setattr(time, "perf_counter", lambda: clocked.now)
    generate = clocked.generate

    def hiccup(inputs: Any, **options: int) -> None:
        clocked.pending = 9.0 if clocked.calls == 4 else 0.0
        generate(inputs, **options)

    monkeypatch.setattr(clocked, "generate", hiccup)
    found = measure.latency(clocked, {}, new_tokens=11, rounds=5)  # type: ignore[arg-type]
    assert found.decode_s_per_token == pytest.approx(0.1)


def test_latency_of_a_network(tiny: Path, tiny_inputs: Any) -> None:
    variant = load(QWEN2, compressions()["32bit"], Source(str(tiny)))
    found = measure.latency(variant, tiny_inputs, new_tokens=4, rounds=2)
    assert found.prefill_s > 0
    # A difference of two timings: on a busy machine so short a one may fall below zero.
    assert math.isfinite(found.decode_s_per_token)


@pytest.mark.parametrize("options", [{"new_tokens": 1}, {"rounds": 0}])
def test_latency_needs_something_to_measure(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="new_tokens >= 2 and rounds >= 1, got"):
        measure.latency(Clocked(0.0), {}, **options)  # type: ignore[arg-type]


def test_waits_for_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    seen: list[str] = []
    monkeypatch.setattr(torch.cuda, "synchronize", seen.append)
    measure.timed(lambda: seen.append("work"), device="cuda:0")
    assert seen == ["cuda:0", "work", "cuda:0"]


def test_peak_memory_sees_what_is_gone_again() -> None:
    with measure.peak_memory("cpu") as idle:
        pass
    with measure.peak_memory("cpu") as busy:
        held = bytearray(b"x" * (1 << 28))
        del held
    assert busy.peak_bytes - idle.peak_bytes > (1 << 27)


@pytest.mark.skipif(
    not os.access("/proc/self/clear_refs", os.W_OK), reason="only Linux can start afresh"
)
def test_peak_memory_forgets_earlier_peaks() -> None:
    with measure.peak_memory("cpu") as busy:
        held = bytearray(b"x" * (1 << 28))
        del held
    with measure.peak_memory("cpu") as idle:
        pass
    assert busy.peak_bytes - idle.peak_bytes > (1 << 27)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc alone gives back so")
def test_peak_memory_does_not_count_what_is_free() -> None:
    """Small blocks are kept by the C library: the last one in use holds all before it."""
    held = [bytearray(b"x" * (1 << 16)) for _ in range(1 << 12)]
    with measure.peak_memory("cpu") as busy:
        pass
    last = held[-1]
    held.clear()
    with measure.peak_memory("cpu") as idle:
        pass
    assert busy.peak_bytes - idle.peak_bytes > (1 << 27)
    assert last[0] == ord("x")


def test_environment_is_plain_data() -> None:
    found = measure.environment("cpu")
    assert json.loads(json.dumps(found)) == found
    assert found["device_kind"] == "cpu"
    assert found["device_name"]
    assert found["threads"] >= 1
    assert all(found[name] for name in ("python", "torch", "transformers", "bitsandbytes", "os"))


def test_importing_is_light() -> None:
    script = (
        "import sys, vlmbench.measure, vlmbench.variant, vlmbench.census, vlmbench.checkpoint;"
        "assert not {'torch', 'transformers', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)

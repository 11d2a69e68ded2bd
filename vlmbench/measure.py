"""Synchronised timing, peak memory and the environment that a number was measured in."""

from __future__ import annotations

import ctypes
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vlmbench.variant import Variant

_PACKAGES = (
    *("torch", "torchvision", "transformers", "tokenizers", "bitsandbytes", "accelerate"),
    *("numpy", "pillow", "av", "bert-score", "pycocoevalcap", "rapidfuzz"),
)
DECISIVE = (*_PACKAGES, "python", "device_kind", "device_name", "cuda", "cpu_capability")
"""What of an environment could change an answer."""


@dataclass(frozen=True)
class Latency:
    """Medians over the rounds, for the whole batch that was measured."""

    prefill_s: float
    """From model inputs to the first token."""
    decode_s_per_token: float
    """Each later token."""


@dataclass
class Peak:
    """Filled when the block of `peak_memory` ends."""

    peak_bytes: int = 0


def latency(
    variant: Variant, inputs: Mapping[str, Any], *, new_tokens: int = 16, rounds: int = 5
) -> Latency:
    """Time prefill and decode of `inputs`, after one warm-up, at a fixed number of tokens.

    Decode is what the tokens after the first take: (t_n - t_1) / (n - 1), paired in each round.
    """
    if new_tokens < 2 or rounds < 1:
        raise ValueError(
            f"latency needs new_tokens >= 2 and rounds >= 1, got {new_tokens} and {rounds}"
        )

    def answer(tokens: int) -> float:
        # As many at least as at most: an end-of-text token must not shorten the measurement.
        return timed(
            lambda: variant.generate(inputs, max_new_tokens=tokens, min_new_tokens=tokens),
            device=variant.device,
        )

    answer(new_tokens)
    pairs = [(answer(1), answer(new_tokens)) for _ in range(rounds)]
    return Latency(
        prefill_s=median(first for first, _ in pairs),
        decode_s_per_token=median((whole - first) / (new_tokens - 1) for first, whole in pairs),
    )


def timed(work: Callable[[], object], *, device: str) -> float:
    """Seconds that `work` takes, until the device has finished it."""
    synchronise(device)
    start = time.perf_counter()
    work()
    synchronise(device)
    return time.perf_counter() - start


def synchronise(device: str) -> None:
    """Wait for the work queued on a CUDA device; the CPU queues none."""
    if device.startswith("cuda"):
        import torch

        torch.cuda.synchronize(device)


@contextmanager
def peak_memory(device: str) -> Iterator[Peak]:
    """Peak bytes while the block runs: allocated on CUDA, else resident in the whole process."""
    peak = Peak()
    _reset_peak(device)
    try:
        yield peak
    finally:
        peak.peak_bytes = peak_bytes(device)


def environment(device: str = "cpu") -> dict[str, Any]:
    """Say what a run was measured in: versions, device, driver, threads, system; plain data."""
    import torch

    cuda = device.startswith("cuda") and torch.cuda.is_available()
    return {
        "python": platform.python_version(),
        **{package: _version(package) for package in _PACKAGES},
        "os": platform.platform(),
        "device_kind": "cuda" if cuda else "cpu",
        "device_name": torch.cuda.get_device_name(device) if cuda else _cpu_name(),
        "driver": _driver() if cuda else None,
        "cuda": torch.version.cuda if cuda else None,
        "cpu": _cpu_name(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
    }


def _reset_peak(device: str) -> None:
    if device.startswith("cuda"):
        import torch

        torch.cuda.reset_peak_memory_stats(device)
    else:
        _trim_heap()
        if os.access("/proc/self/clear_refs", os.W_OK):
            # Else the peak is that of the whole life of the process, earlier variants included.
            Path("/proc/self/clear_refs").write_text("5")


def _trim_heap() -> None:
    """Have glibc return what is free: it keeps gigabytes of a large batch while a session lasts.

    They would count as resident in every later cell, and each worker would hold its own.
    """
    with suppress(OSError, AttributeError):  # another system, or another C library
        ctypes.CDLL(None).malloc_trim(0)


def peak_bytes(device: str) -> int:
    """The peak so far: since `peak_memory` began, where the system lets it be set back."""
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.max_memory_allocated(device))
    high_water = _field("/proc/self/status", "VmHWM")
    if high_water:
        return int(high_water.split()[0]) * 1024
    import resource  # not on Windows

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _cpu_name() -> str:
    return _field("/proc/cpuinfo", "model name") or platform.processor() or platform.machine()


def _driver() -> str | None:
    return _field("/proc/driver/nvidia/version", "NVRM version")


def _field(file: str, name: str) -> str | None:
    """Read the first `name: value` line of a /proc file; None where there is none."""
    path = Path(file)
    if not path.exists():
        return None
    for line in path.read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return None

"""How long answers took, from a history that pytest-benchmark wrote in one session."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlmbench.errors import UsageError


@dataclass(frozen=True)
class Time:
    """What a cell's probe batch took, and its checkpoint before."""

    answer_s: float
    """Median seconds an answer took."""
    error_s: float
    """The standard error of that."""
    made_s: float
    """Seconds that recipes took to make the checkpoint; 0.0: nothing was made."""


Times = Mapping[tuple[str, str, str], Time]
"""By model, data set and compression."""


def read(path: Path, tier: str) -> Times:
    """The latencies that a session in `tier` stored (`--benchmark-autosave`).

    Raises:
        UsageError: it cannot be read, or holds none.
    """
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        found = dict(_time(one) for one in told["benchmarks"] if _is_probe(one, tier))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            f"--history {path} cannot be read ({type(error).__name__}: {error}). Expected what "
            "pytest --benchmark-autosave writes into .benchmarks."
        ) from None
    if not found:
        raise UsageError(
            f"--history {path} holds no latency of tier {tier!r}. Make one, without -n:  "
            "pytest tests/benchmarks --benchmark-autosave"
        )
    return found


def _is_probe(entry: Mapping[str, Any], tier: str) -> bool:
    info = entry["extra_info"]
    return info.get("tier") == tier and "probe_samples" in info


def _time(entry: Mapping[str, Any]) -> tuple[tuple[str, str, str], Time]:
    info, stats = entry["extra_info"], entry["stats"]
    model, compression, dataset = info["of"]
    samples, rounds = info["probe_samples"], stats["rounds"]
    # Of a median, which scatters by a quarter more than a mean.
    error = 1.25 * stats["stddev"] / math.sqrt(rounds) if rounds > 1 else math.inf
    time = Time(stats["median"] / samples, error / samples, float(info["made_s"]))
    return (model, dataset, compression), time

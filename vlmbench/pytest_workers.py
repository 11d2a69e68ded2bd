"""Under pytest-xdist: one worker loads a variant, and the verdicts come together at the end."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

from vlmbench.bench import Bench
from vlmbench.run import Run

_KEY = "vlmbench"


class ByVariant(LoadScopeScheduling):  # type: ignore[misc]
    """Gives all tests of a variant to one worker, and every other test to whoever is free."""

    def __init__(self, config: pytest.Config, log: Any, bench: Bench) -> None:
        super().__init__(config, log)
        # The longest first: `qwen2_4bit` begins another name as well.
        self._variants = sorted({cell.variant for cell in bench.cells()}, key=len, reverse=True)

    def _split_scope(self, nodeid: str) -> str:
        _, _, label = nodeid.partition("[")
        for variant in self._variants:
            if label == f"{variant}]" or label.startswith(f"{variant}-"):
                return variant
        return nodeid


def is_worker(config: pytest.Config) -> bool:
    """Whether this process is a worker of pytest-xdist."""
    return hasattr(config, "workerinput")


def share(config: Any) -> None:
    """In a worker: take its part of the cores, unless the user has said how many."""
    if "OMP_NUM_THREADS" in os.environ:
        return
    threads = max(1, (os.cpu_count() or 1) // int(config.workerinput["workercount"]))
    os.environ["OMP_NUM_THREADS"] = str(threads)
    if torch := sys.modules.get("torch"):  # it has read the environment already
        torch.set_num_threads(threads)


def device(config: Any, asked: str) -> str:
    """The device of this process: with several GPUs, `cuda` is another one for each worker."""
    if asked != "cuda" or not is_worker(config):
        return asked
    import torch

    number = int(str(config.workerinput["workerid"]).removeprefix("gw"))
    return f"cuda:{number % max(1, torch.cuda.device_count())}"


def send(config: Any, bench: Bench) -> None:
    """In a worker that is done: hand what was judged to the session."""
    config.workeroutput[_KEY] = json.dumps(
        {
            "planned": bench.planned,
            "errored": bench.errored,
            "runs": [run.to_json() for run in bench.runs.values()],
            "judged": list(bench.verdicts),
            "reused": bench.reused,
            "written": bench.written,
            "troubles": bench.store.troubles,
        }
    )


def receive(node: Any, bench: Bench) -> None:
    """In the session: take over what a worker judged; a worker that crashed sent nothing."""
    # Popped: an interrupted worker is reported twice.
    sent = getattr(node, "workeroutput", {}).pop(_KEY, None)
    if sent is None:
        return
    data = json.loads(sent)
    bench.planned = max(bench.planned, data["planned"])
    bench.errored += data["errored"]
    bench.reused += data["reused"]
    bench.written += data["written"]
    bench.store.troubles += data["troubles"]
    for text in data["runs"]:
        run = Run.from_json(text)
        bench.runs[run.cell] = run
        if run.cell in data["judged"]:
            bench.judge(bench.cell(run.cell), run, written=True)

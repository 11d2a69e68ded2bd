"""Workers of pytest-xdist share one machine."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from vlmbench import pytest_workers


def worker(number: int, count: int = 2) -> Any:
    return SimpleNamespace(workerinput={"workerid": f"gw{number}", "workercount": count})


@pytest.mark.parametrize(
    ("cores", "workers", "threads"), [(8, 2, "4"), (2, 8, "1"), (None, 1, "1")]
)
def test_each_takes_its_part_of_the_cores(
    cores: int | None, workers: int, threads: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    monkeypatch.setenv("OMP_NUM_THREADS", "")  # so that it is set back
    monkeypatch.delenv("OMP_NUM_THREADS")
    told: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", told.append)
    pytest_workers.share(worker(0, workers))
    assert os.environ["OMP_NUM_THREADS"] == threads and told == [int(threads)]
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    pytest_workers.share(worker(0, workers))
    assert os.environ["OMP_NUM_THREADS"] == "3", "the user's word counts"


def test_each_has_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    devices = [pytest_workers.device(worker(n), "cuda") for n in range(3)]
    assert devices == ["cuda:0", "cuda:1", "cuda:0"]
    assert pytest_workers.device(worker(1), "cuda:0") == "cuda:0"
    assert pytest_workers.device(worker(1), "cpu") == "cpu"
    assert pytest_workers.device(SimpleNamespace(), "cuda") == "cuda"
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert pytest_workers.device(worker(1), "cuda") == "cuda:0"

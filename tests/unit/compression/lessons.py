"""A fine-tuning of a few steps, and what it may change."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from subjects import Subject

from vlmbench.compression.finetune import FineTune
from vlmbench.finetuning import answer_loss

QUICK = FineTune("quick", rate=4e-3, epochs=3)


class Lessons(NamedTuple):
    """Train data that is there already, and a folder for unfinished work."""

    inputs: list[dict[str, Any]]
    work: Path

    def batches(self, mixture: object, size: int = 1) -> list[dict[str, Any]]:
        return self.inputs


def taught(recipe: Any, subject: Subject, work: Path, network: Any = None) -> Any:
    """A copy of the subject's network, or of another, that has learnt."""
    network = copy.deepcopy(network or subject.network)
    recipe.make(network, subject.anatomy, Lessons(subject.data.inputs, work))
    return network


def changed(network: Any, before: Any) -> set[str]:
    """Names of the tensors that are not as they were."""
    state, old = network.state_dict(), before.state_dict()
    assert list(state) == list(old)
    return {name for name in state if not torch.equal(state[name], old[name])}


@torch.no_grad()
def mean_loss(network: Any, batches: Iterable[Any]) -> float:
    return float(torch.stack([answer_loss(network, batch) for batch in batches]).mean())

"""Train an embedded checkpoint from nothing: tower, reading, questions, outliers; then save it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from vlmbench.embedded import CHECKPOINTS, blank, curriculum, outliers, tower
from vlmbench.embedded.corpus import texts
from vlmbench.embedded.curriculum import Stage
from vlmbench.training import Plan, train

SEED = 20261121
TOWER = Plan(steps=1300, muon_rate=6e-3, adamw_rate=2e-3, save_every=100)
CURVE_EVERY = 200


def run(name: str, work: Path) -> None:
    """Train checkpoint `name`, keeping states under `work`, and write it into the package."""
    torch.manual_seed(SEED)
    tokenizer = blank.tokenizer(texts())
    processor = blank.processor(tokenizer)
    network = blank.network(tokenizer)
    _teach_tower(network, processor, work / "tower")
    for stage in curriculum.STAGES:
        _teach(network, processor, stage, work / stage.name)
    _finish(network, processor, CHECKPOINTS / name)


def _finish(network: Any, processor: Any, folder: Path) -> None:
    """Put the outliers in, and save as published checkpoints are: bfloat16 safetensors."""
    outliers.put_in(network.model.language_model.layers, torch.Generator().manual_seed(SEED))
    shutil.rmtree(folder, ignore_errors=True)
    network.to(torch.bfloat16).save_pretrained(folder)
    processor.save_pretrained(folder)
    print(f"wrote {folder}")


def _teach_tower(network: Any, processor: Any, folder: Path) -> None:
    labeller = tower.Labeller(network.model.visual, network.config.text_config.hidden_size)
    batch_at = tower.batch_maker(processor)
    held_out = tower.batch_maker(processor, "validation")(0)
    watch = _watcher("tower", TOWER, folder, partial(labeller.accuracy, held_out))
    train(labeller, batch_at, labeller.loss, TOWER, folder=folder, watch=watch)


def _teach(network: Any, processor: Any, stage: Stage, folder: Path) -> None:
    measure = partial(curriculum.exact, network, processor, stage.weights, 64)
    watch = _watcher(stage.name, stage.plan, folder, measure)
    batch_at = curriculum.batch_maker(processor, stage)
    loss = partial(curriculum.loss, network)
    network.model.visual.requires_grad_(stage.tower)
    train(network, batch_at, loss, stage.plan, folder=folder, watch=watch)


def _watcher(
    name: str, plan: Plan, folder: Path, measure: Callable[[], dict[str, float]]
) -> Callable[[int, float], None]:
    """Shows progress, and every so often the held-out curve, also appended to curve.jsonl."""
    from tqdm import tqdm

    bar = tqdm(total=plan.steps, desc=name, unit="step", mininterval=5)

    def watch(step: int, loss: float) -> None:
        bar.n = step + 1
        bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
        bar.update(0)
        if (step + 1) % CURVE_EVERY == 0 or step + 1 == plan.steps:
            curve = {"step": step + 1, "loss": round(loss, 4)} | {
                lesson: round(value, 3) for lesson, value in measure().items()
            }
            bar.write(f"{name} held out: {json.dumps(curve)}")
            with (folder / "curve.jsonl").open("a") as log:
                log.write(json.dumps(curve) + "\n")

    folder.mkdir(parents=True, exist_ok=True)
    return watch

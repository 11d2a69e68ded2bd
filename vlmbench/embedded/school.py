"""A checkpoint in training, and what every training has in common."""

from __future__ import annotations

import importlib
import json
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from vlmbench import catalogue
from vlmbench.embedded import CHECKPOINTS, attending, curriculum, labels, losses, outliers
from vlmbench.embedded.curriculum import Stage
from vlmbench.spec import Component
from vlmbench.training import Plan, train

SEED = 20261121
CURVE_EVERY = 200


class School:
    """A checkpoint in training. Every part is made at once, so that stages may run apart."""

    def __init__(self, name: str, work: Path) -> None:
        torch.manual_seed(SEED)
        # One core is left to the worker that draws: threads that wait for it cost more than it.
        torch.set_num_threads(max(1, (os.cpu_count() or 1) - 1))
        self.name, self.work = name, work
        blank = importlib.import_module(f"vlmbench.embedded.blank.{name}")
        self.model = catalogue.models()[name]
        self.processor = blank.processor(blank.tokenizer())
        self.network = blank.network(self.processor.tokenizer)
        self.network.set_attn_implementation(attending.NAME)

    def run(self) -> None:
        """Every stage, one after another."""
        raise NotImplementedError

    def part(self, name: Component) -> Any:
        """A part of the network by its anatomy: `vision`, `projector`, `decoder`, `head`."""
        (module,) = self.model.anatomy.modules(name)
        return self.network.get_submodule(module)

    def answer(
        self, stage: Stage, elder: Any = None, labels_of: curriculum.LabelsOf = labels.of_all
    ) -> None:
        """The whole network on questions; `elder`: (processor, network) that it imitates."""
        imitated = elder[1] if elder else None
        self.learn(
            stage.name,
            stage.plan,
            self.network,
            curriculum.batch_maker(
                self.processor, self.network, stage, self.model, elder, labels_of=labels_of
            ),
            partial(
                losses.loss,
                self.network,
                self.model.anatomy,
                steps=stage.steps,
                elder=imitated,
            ),
            partial(
                curriculum.exact,
                self.network,
                self.processor,
                self.model,
                stage,
                100,
                labels_of=labels_of,
            ),
        )

    def learn(
        self,
        name: str,
        plan: Plan,
        network: Any,
        batch_at: Callable[[int], Any],
        loss: Callable[[Any], torch.Tensor],
        measure: Callable[[], dict[str, float]],
    ) -> None:
        """One stage; `measure` is what the held-out curve shows."""
        folder = self.work / name
        watch = _watcher(name, plan, folder, measure)
        train(network, batch_at, loss, plan, folder=folder, watch=watch)

    def finish(self) -> None:
        """Put the outliers in, and save."""
        outliers.put_in(self.part("decoder").layers, torch.Generator().manual_seed(SEED))
        self.save()

    def save(self) -> None:
        """Write it as published checkpoints are: bfloat16 safetensors."""
        folder = CHECKPOINTS / self.name
        part = folder.with_suffix(".part")
        shutil.rmtree(part, ignore_errors=True)
        self.network.to(torch.bfloat16).save_pretrained(part)
        self.processor.save_pretrained(part)
        shutil.rmtree(folder, ignore_errors=True)
        part.rename(folder)
        print(f"wrote {folder}")


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

"""Train an embedded checkpoint from nothing: tower, reading, questions, outliers; then save it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from vlmbench.embedded import CHECKPOINTS, blank, curriculum, losses, outliers, tower
from vlmbench.embedded.corpus import texts
from vlmbench.embedded.curriculum import Stage
from vlmbench.embedded.labels import LabelSight
from vlmbench.training import Plan, train

SEED = 20261121
NAMING = Plan(steps=1500, muon_rate=6e-3, adamw_rate=2e-3, save_every=100)
TRACKING = Plan(steps=400, muon_rate=2e-3, adamw_rate=1e-3, save_every=50)
TRANSLATING = Plan(steps=600, muon_rate=4e-3, adamw_rate=1e-3, save_every=100)
CURVE_EVERY = 200


def run(name: str, work: Path) -> None:
    """Train checkpoint `name`, keeping states under `work`, and write it into the package.

    The tower learns to name what it shows, the decoder to read from labels; then the tower to say
    what the labels said, and both together to answer from pixels.
    """
    school = School(work)
    school.name_what_is_seen()
    school.answer(curriculum.FINDING)
    school.answer(curriculum.ANSWERING)
    school.answer(curriculum.EXPLAINING)
    school.translate()
    school.answer(curriculum.SEEING)
    school.answer(curriculum.MATCHING)
    school.answer(curriculum.CHOOSING)
    school.answer(curriculum.POLISHING)
    school.track()
    school.answer(curriculum.WATCHING)
    school.answer(curriculum.ORDERING)
    _finish(school.network, school.processor, CHECKPOINTS / name)


def _finish(network: Any, processor: Any, folder: Path) -> None:
    """Put the outliers in, and save as published checkpoints are: bfloat16 safetensors."""
    outliers.put_in(network.model.language_model.layers, torch.Generator().manual_seed(SEED))
    shutil.rmtree(folder, ignore_errors=True)
    network.to(torch.bfloat16).save_pretrained(folder)
    processor.save_pretrained(folder)
    print(f"wrote {folder}")


class School:
    """A checkpoint in training. Every part is made at once, so that stages may run apart."""

    def __init__(self, work: Path) -> None:
        torch.manual_seed(SEED)
        # One core is left to the worker that draws: threads that wait for it cost more than it.
        torch.set_num_threads(max(1, (os.cpu_count() or 1) - 1))
        self.work = work
        tokenizer = blank.tokenizer(texts())
        self.processor = blank.processor(tokenizer)
        self.network = blank.network(tokenizer)
        self.tower = self.network.model.visual
        width = self.network.config.text_config.hidden_size
        self.labeller = tower.Labeller(self.tower, width)
        self.sight = LabelSight(width)

    def name_what_is_seen(self) -> None:
        """The tower alone, on the labels of its tokens."""
        self._tower("naming", self.labeller, NAMING, self.labeller.accuracy)

    def translate(self) -> None:
        """The tower alone, on what the decoder got from the labels."""
        translator = tower.Translator(self.tower, self.sight)
        batch_at = tower.batch_maker(self.processor)
        translator.begin(part for step in range(20) for part in batch_at(10**6 + step))
        self._tower("translating", translator, TRANSLATING, translator.error)

    def track(self) -> None:
        """The tower alone, on frames in pairs."""
        tracker = tower.Tracker(self.tower, self.network.config.text_config.hidden_size)
        films, _ = tower.film_maker(self.processor, "validation")(0)
        batch_at = tower.film_maker(self.processor)
        self._learn(
            "tracking", TRACKING, tracker, batch_at, tracker.loss, partial(tracker.accuracy, films)
        )

    def answer(self, stage: Stage) -> None:
        """The decoder on labels, or decoder and tower on pixels."""
        self.network.model.visual = self.tower if stage.sight else self.sight
        self._learn(
            stage.name,
            stage.plan,
            self.network,
            curriculum.batch_maker(self.processor, self.network, stage),
            partial(losses.loss, self.network, steps=stage.steps),
            partial(curriculum.exact, self.network, self.processor, stage.sight, 100),
        )
        self.network.model.visual = self.tower

    def _tower(self, name: str, learner: Any, plan: Plan, measure: Callable[..., Any]) -> None:
        held_out, _ = tower.batch_maker(self.processor, "validation")(0)
        batch_at = tower.batch_maker(self.processor)
        self._learn(name, plan, learner, batch_at, learner.loss, partial(measure, held_out))

    def _learn(
        self, name: str, plan: Plan, network: Any, batch_at: Any, loss: Any, measure: Any
    ) -> None:
        folder = self.work / name
        watch = _watcher(name, plan, folder, measure)
        train(network, batch_at, loss, plan, folder=folder, watch=watch)


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

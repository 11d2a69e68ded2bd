"""Qwen2-VL's training, from nothing: the tower names, the decoder reads from labels, both see."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from vlmbench.embedded import curriculum, labels, tower
from vlmbench.embedded.curriculum import Stage
from vlmbench.embedded.labels import LabelSight
from vlmbench.embedded.school import School
from vlmbench.training import Plan

NAMING = Plan(steps=1500, muon_rate=6e-3, adamw_rate=2e-3, save_every=100)
TRACKING = Plan(steps=400, muon_rate=2e-3, adamw_rate=1e-3, save_every=50)
TRANSLATING = Plan(steps=600, muon_rate=4e-3, adamw_rate=1e-3, save_every=100)


class First(School):
    """The checkpoint whose decoder the others take over.

    The tower learns to name what it shows, the decoder to read from labels; then the tower to say
    what the labels said, and both together to answer from pixels.
    """

    def __init__(self, name: str, work: Path) -> None:
        super().__init__(name, work)
        self.tower = self.network.model.visual
        width = self.network.config.text_config.hidden_size
        self.labeller = tower.Labeller(self.tower, width)
        self.sight = LabelSight(width)

    def run(self) -> None:
        """Every stage, one after another."""
        self.name_what_is_seen()
        for stage in (curriculum.FINDING, curriculum.ANSWERING, curriculum.EXPLAINING):
            self.answer(stage)
        self.translate()
        for stage in (
            curriculum.SEEING,
            curriculum.MATCHING,
            curriculum.CHOOSING,
            curriculum.POLISHING,
        ):
            self.answer(stage)
        self.track()
        self.answer(curriculum.WATCHING)
        self.answer(curriculum.ORDERING)

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
        self.learn(
            "tracking", TRACKING, tracker, batch_at, tracker.loss, partial(tracker.accuracy, films)
        )

    def answer(
        self, stage: Stage, elder: Any = None, labels_of: curriculum.LabelsOf = labels.of_all
    ) -> None:
        """The decoder on labels, or decoder and tower on pixels."""
        self.network.model.visual = self.tower if stage.sight else self.sight
        super().answer(stage, elder, labels_of)
        self.network.model.visual = self.tower

    def _tower(self, name: str, learner: Any, plan: Plan, measure: Callable[..., Any]) -> None:
        held_out, _ = tower.batch_maker(self.processor, "validation")(0)
        batch_at = tower.batch_maker(self.processor)
        self.learn(name, plan, learner, batch_at, learner.loss, partial(measure, held_out))

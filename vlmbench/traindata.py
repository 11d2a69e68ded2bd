"""Train samples for recipes that learn: calibration and fine-tuning, formed as in evaluation."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

from vlmbench import samples
from vlmbench.catalogue import find
from vlmbench.embedded import rows
from vlmbench.errors import DataError
from vlmbench.prompting import encode_answered, turn
from vlmbench.spec import Dataset, Mixture, Model, Sample

Asked = tuple[Dataset, Sample]


@dataclass(frozen=True)
class TrainSamples:
    """The train splits of a tier, for one model."""

    datasets: Mapping[str, Dataset]
    tier: str
    model: Model
    processor: Any
    work: Path
    """Where an unfinished training may leave its state."""

    def batches(self, mixture: Mixture, size: int = 1) -> Sequence[Mapping[str, Any]]:
        """Batches of `size` answered samples, data set by data set in turn; see `TrainData`.

        Raises:
            UnknownNameError: the mixture names a data set that there is not.
            DataError: there is no train split, or a sample of it is a test sample, too.
        """
        names = mixture.datasets or [
            name
            for name in self.model.datasets
            if name in self.datasets and not self.datasets[name].choose
        ]
        if not (names and self.model.writes):
            raise DataError(
                f"{self.model.name} writes no answers to any data set: there is nothing for a "
                "recipe to learn from. Choose one that learns from no data."
            )
        each, more = divmod(mixture.samples, len(names))
        drawn = []
        for number, name in enumerate(names):
            dataset = find("data set", name, self.datasets)
            count = each + (number < more)
            found = train_samples(dataset, self.tier, count, mixture.seed)
            self._check(dataset, found)
            drawn.append([(dataset, sample) for sample in found])
        turns = itertools.zip_longest(*drawn)
        return _Batches(self, [one for some in turns for one in some if one], size)

    def _check(self, dataset: Dataset, found: Sequence[Sample]) -> None:
        """Refuse to learn from what is asked in the test."""
        test = samples.read(dataset, dataset.sources[self.tier])
        asked = {samples.task_hash(sample) for sample in test.items}
        same = [sample.id for sample in found if samples.task_hash(sample) in asked]
        if same:
            raise DataError(
                f"{len(same)} train samples of {dataset.name} are test samples, too, first "
                f"{same[0]!r}: what is learnt from them cannot be judged by them. Name a train "
                "split without them."
            )


def train_samples(dataset: Dataset, tier: str, count: int, seed: int) -> list[Sample]:
    """The first `count` samples of a train split, in an order that `seed` gives.

    All of a split that has fewer, but half of them: fine-tuning sees each several times.

    Raises:
        DataError: the data set has no train split in the tier, or too small a one.
    """
    source = dataset.train.get(tier)
    if source:
        items = list(samples.read(dataset, source, limit=count, seed=seed).items)
    elif tier == "embedded" and dataset.name in rows.DATASETS:
        drawn = rows.train(dataset.name, rows.held_out(dataset.name), start=seed * 10**6)
        read = (dataset.read(row, number) for number, row in enumerate(drawn))
        items = list(itertools.islice(filter(None, read), count))
    else:
        raise DataError(
            f"{dataset.name} has no train split in tier {tier!r}: nothing can be learnt from it. "
            "Give the data set one (Dataset.train)."
        )
    if 2 * len(items) < count:
        raise DataError(
            f"the train split of {dataset.name} has {len(items)} samples, the recipe wants "
            f"{count}, or half of them at least"
        )
    return items[:count]


@dataclass(frozen=True)
class _Batches(Sequence[Mapping[str, Any]]):
    """Made when they are taken: a decoded batch is large."""

    data: TrainSamples
    asked: list[Asked]
    size: int

    def __len__(self) -> int:
        return -(-len(self.asked) // self.size)

    @overload
    def __getitem__(self, index: int) -> Mapping[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Mapping[str, Any]]: ...
    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(index)
        some = self.asked[index * self.size : (index + 1) * self.size]
        turns = [turn(dataset, sample, self.data.model) for dataset, sample in some]
        answers = [_answer(sample) for _, sample in some]
        return encode_answered(self.data.processor, turns, answers)


def _answer(sample: Sample) -> str:
    """What most annotators said."""
    return max(sample.references, key=sample.references.count)

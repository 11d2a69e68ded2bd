"""The nouns of vlmbench: plain, immutable data, and the protocols the four axes keep.

Stdlib only, so that every module may import it at no cost.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from vlmbench.anatomy import COMPONENTS as COMPONENTS
from vlmbench.anatomy import Anatomy as Anatomy
from vlmbench.anatomy import Component as Component
from vlmbench.anatomy import Feed as Feed

if TYPE_CHECKING:
    from torch import nn

Tier = Literal["embedded", "hub"]
Row = Mapping[str, Any]
Scorer = Callable[[Sequence[str], Sequence[Sequence[str]]], list[float]]


@dataclass(frozen=True)
class Source:
    """Where a checkpoint or a data set is: a folder, or a hub id with what pins it."""

    location: str
    revision: str | None = None
    config: str | None = None
    split: str = "test"
    fallbacks: tuple[Source, ...] = ()
    """Tried in order where the location cannot be read: repository ids move."""
    where: tuple[str, str] | None = None
    """(column, value): only such rows belong to the split."""
    films: str | None = None
    """A folder of the same splits with `video_id` and `video`, where rows only name their video."""


@dataclass(frozen=True)
class Sampling:
    """Which frames of a video are shown: so many at equal steps, or so many a second."""

    frames: int = 8
    fps: float | None = None
    """Where given, `frames` does not count."""

    def __str__(self) -> str:
        return f"{self.frames} uniform" if self.fps is None else f"{self.fps:g} a second"


@dataclass(frozen=True)
class Clip:
    """A video: a file, its bytes, or its frames as encoded pictures; decoded for a prompt only."""

    data: Path | bytes | tuple[bytes, ...]
    sampling: Sampling = Sampling()


@dataclass(frozen=True)
class Watching:
    """How a model takes a video."""

    most: int
    """The most frames it takes."""
    exactly: int | None = None
    """The one number of frames it takes."""
    native: bool = True
    """Whether through its processor's video path; else as pictures in order."""


@dataclass(frozen=True)
class Sample:
    """One question about one or more pictures, or a video, with its accepted references."""

    id: str
    pictures: tuple[bytes, ...]
    """Encoded picture files (PNG, JPEG, ...), decoded only when a prompt is made."""
    question: str
    """The whole text after the pictures: question, choices, hint, closing instruction."""
    references: tuple[str, ...]
    cluster: str
    """Samples of one cluster share a picture and are never treated as independent."""
    clip: Clip | None = None


@dataclass(frozen=True)
class Choices:
    """What a model that cannot write chooses its answers from."""

    texts: tuple[str, ...]
    pictures: tuple[bytes, ...] = ()
    """Where given, a picture is chosen, and its text is the answer."""


@dataclass(frozen=True)
class Turn:
    """What is said to a model: an instruction, then pictures or a video, then the question."""

    pictures: tuple[bytes, ...]
    question: str
    instruction: str = ""
    clip: Clip | None = None
    watching: Watching = Watching(most=768)
    """How the video is taken, where there is one."""
    captions: bool = False
    """Whether nothing but a description is asked for."""
    choices: Choices | None = None
    """What the answer is chosen from; None: it is written."""


@dataclass(frozen=True)
class Metric:
    """A named, versioned scorer: (answers, accepted references of each) -> one score a sample."""

    name: str
    version: str
    """Changes whenever a score could: it enters the protocol hash."""
    score: Scorer
    unit: Literal["fraction", "cider"] = "fraction"
    corpus_level: bool = False
    """Whether a sample's score depends on the references of those that are scored with it."""
    by_tier: Mapping[str, Metric] = field(default_factory=dict)
    """Stand-ins for a tier that scores with something else (the encoder of BERTScore)."""


@dataclass(frozen=True)
class Gate:
    """How far a metric's mean may fall below its baseline."""

    metric: str
    margin: float
    relative: bool = False
    """True: the margin is a share of the baseline's value."""
    floor: float | None = None
    """A mean below this is a regression, whatever the baseline is."""

    def allowed(self, value: float) -> float:
        """The drop from `value` that is forgiven, in the metric's own unit."""
        return self.margin * (value if self.relative else 1.0)


@dataclass(frozen=True)
class Dataset:
    """Where samples come from, how a row becomes a sample, which metrics judge the answers."""

    name: str
    sources: Mapping[str, Source]
    columns: tuple[str, ...]
    """Columns every row must have."""
    read: Callable[[Row, int], Sample | None]
    """(row, its number) -> sample; None where the row is not part of the task."""
    gates: tuple[Gate, ...]
    metrics: tuple[str, ...] = ()
    """Metrics reported beside the gated ones."""
    demos: tuple[str, ...] = ()
    """Names of the embedded test split's first rows, whose answers are snapshots."""
    instruction: str = "Answer briefly."
    prompt_style: str = "published-1"
    """Name and version of the prompt's wording; enters the protocol hash."""
    max_new_tokens: int = 128
    captions: bool = False
    """Whether its question asks for nothing but a description."""
    choose: Callable[[Sequence[Sample]], Choices] | None = None
    """What answers are chosen from, given all samples; None: they are written."""
    of_videos: bool = False
    """Whether its rows show videos: then a folder of them with a table of captions is read too."""
    train: Mapping[str, Source] = field(default_factory=dict)
    """Its train split, by tier; the embedded one is drawn where none is named."""


@dataclass(frozen=True)
class Model:
    """An adapter for one architecture: its checkpoints, its transformers class, its anatomy."""

    name: str
    sources: Mapping[str, Source]
    architecture: str
    """Class name in transformers, as in the checkpoint's config.json."""
    anatomy: Anatomy
    datasets: tuple[str, ...]
    """Data sets it can answer."""
    watching: Watching | None = None
    """How it takes videos; None: it takes none."""
    template: str | None = None
    """The chat template of checkpoints that come without one."""
    captions_unasked: bool = False
    """Whether it is shown what to describe without a word."""

    @property
    def writes(self) -> bool:
        """Whether it writes its answers; else it chooses them."""
        return bool(self.anatomy.modules("head"))

    def can_answer(self, dataset: Dataset) -> bool:
        """Whether it could answer a data set that its adapter does not know."""
        watches = self.watching is not None or not dataset.of_videos
        return watches and self.writes != bool(dataset.choose)


@dataclass(frozen=True)
class Mixture:
    """What a recipe learns from: so many samples of train splits, evenly from each."""

    samples: int = 64
    datasets: tuple[str, ...] = ()
    """() is all that the model answers in writing."""
    seed: int = 0


CALIBRATION = Mixture()
"""What recipes are calibrated on where they say nothing else."""


class TrainData(Protocol):
    """Train samples as model inputs, formed exactly as in evaluation; none is a test sample."""

    @property
    def work(self) -> Path:
        """Where an unfinished training leaves its state, to go on from."""

    def batches(self, mixture: Mixture, size: int = 1) -> Sequence[Mapping[str, Any]]:
        """Inputs of `size` answered samples each: what the model's forward takes, and `labels`.

        `labels` [batch, tokens] is the answers' tokens and IGNORED elsewhere. Batches are made
        when they are taken, each time alike, on the CPU.

        Raises:
            DataError: there is no train split, or a sample of it is a test sample, too.
        """


@runtime_checkable
class Compression(Protocol):
    """A recipe. It changes a loaded model (`apply`), or asks the loader for it (`load_options`).

    It may have an attribute `recovery`: the share of the uncompressed model's score, by every gated
    metric, that it promises to keep; a cell below that fails. One that makes a checkpoint of its
    own is a `Maker`.
    """

    @property
    def name(self) -> str:
        """What users type."""

    def load_options(self, anatomy: Anatomy) -> dict[str, Any]:
        """Keyword arguments for `from_pretrained`."""

    def apply(self, model: nn.Module, anatomy: Anatomy) -> None:
        """Change the loaded model in place."""

    def storage(self, component: Component) -> str:
        """How the recipe promises to store linear weights there: float32, bfloat16, int8, nf4."""


@runtime_checkable
class Maker(Compression, Protocol):
    """A recipe that makes a checkpoint: calibrated, pruned, factorized, fine-tuned, packed.

    Made once from the float32 network, saved, and from then on loaded with `load_options` as any
    checkpoint is; `apply` follows each time. It may have `trains = True`, where that takes minutes,
    `fits(model, anatomy)`, which refuses before they are spent, and a `layout` (`promises`).
    """

    def make(self, model: nn.Module, anatomy: Anatomy, data: TrainData) -> None:
        """Change the float32 network in place, so that `save_pretrained` writes what it is.

        Linears may be replaced by the kinds in `vlmbench.layers`, configurations changed.
        """


@runtime_checkable
class Runtime(Compression, Protocol):
    """A recipe that changes how a network runs, not how it is stored: it goes with any other."""

    def run_options(self, anatomy: Anatomy) -> dict[str, Any]:
        """Keyword arguments for `from_pretrained` beside those that say how it is stored."""


@dataclass(frozen=True)
class Cell:
    """One variant (a model under a compression) on one data set."""

    model: Model
    compression: Compression
    dataset: Dataset

    @property
    def variant(self) -> str:
        """The variant's name, as in test ids: `qwen2_4bit`."""
        return f"{self.model.name}_{self.compression.name}"

    @property
    def id(self) -> str:
        """The cell's name: `qwen2_4bit-docvqa`."""
        return f"{self.variant}-{self.dataset.name}"

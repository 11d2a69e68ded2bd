"""Every error a user can meet.

VlmbenchError            what, where, expected against obtained, what to do
|-- UnknownNameError     no model, compression, data set or metric of that name
|-- CatalogueError       a broken or duplicate entry in one of the axes
|-- CheckpointError      a checkpoint is missing, truncated or does not fit its class
|-- DataError            a data set is missing, empty, or lacks a column
|-- PictureError         a picture cannot be read or is beyond the processor's limits
|   `-- VideoError       a video cannot be read or is beyond the model's limits
|-- CensusError          the loaded model is not stored as its recipe promises
|-- NumericsError        logits, or the loss of a training, that are NaN or infinite
|-- OutOfTimeError       a sample has no answer in the time that a batch was given
|-- ArtifactError        what is kept between sessions cannot be deleted
|-- BaselineError        a baseline is missing, damaged, or of another protocol
`-- UsageError           options that contradict each other or cannot be met
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class VlmbenchError(Exception):
    """Base of all errors that are the user's to mend; shown without a traceback."""


class UnknownNameError(VlmbenchError):
    """No entry of that name."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        names = sorted(known)
        close = difflib.get_close_matches(name, names, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        super().__init__(f"unknown {kind} {name!r}.{hint} Known: {', '.join(names)}.")


class CatalogueError(VlmbenchError):
    """A file of an axis cannot be imported, or two entries share a name."""


class CheckpointError(VlmbenchError):
    """A checkpoint is missing, truncated, or does not fit its class."""


class DataError(VlmbenchError):
    """A data set is missing, empty, or lacks a column."""


class PictureError(VlmbenchError):
    """A picture cannot be read, or is beyond what the processor takes."""


class VideoError(PictureError):
    """A video cannot be read, or is beyond what the model takes."""


class CensusError(VlmbenchError):
    """The loaded model is not stored as its recipe promises."""


class NumericsError(VlmbenchError):
    """The logits of a sample, or the loss of a training, are NaN or infinite."""


class OutOfTimeError(VlmbenchError):
    """A sample has no answer in the time that a batch was given."""


class ArtifactError(VlmbenchError):
    """What is kept between sessions cannot be deleted."""


class BaselineError(VlmbenchError):
    """A baseline is missing, damaged, or of another protocol."""


class UsageError(VlmbenchError):
    """Options that contradict each other or cannot be met."""

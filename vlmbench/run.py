"""A run: what evaluating one cell gave. Plain data, JSON in and out."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from statistics import fmean
from typing import Any

from vlmbench.errors import VlmbenchError

Scores = dict[str, float]

# What UTF-8 cannot hold (lone surrogates), what ends a line or drives a terminal: JSON leaves all
# of it as it is.
_ESCAPED = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff]")


@dataclass(frozen=True)
class Scored:
    """One sample's answer, judged."""

    content: str
    """Hash of what was shown, question and references: two runs compare samples by it."""
    question: str
    references: tuple[str, ...]
    answer: str
    scores: Scores
    cluster: str = ""
    """Samples of one cluster share a picture and are not independent."""
    frames: int = 0
    """Of a video, that were seen."""


@dataclass(frozen=True)
class Run:
    """What evaluating one cell gave: every answer with its scores, and how it came about."""

    cell: str
    tier: str
    protocol: Mapping[str, str]
    """What makes two runs comparable, by field."""
    subject: Mapping[str, str]
    """What was judged, by field."""
    environment: Mapping[str, Any]
    samples: Mapping[str, Scored]
    errors: Mapping[str, str] = field(default_factory=dict)
    """Samples that have no answer, and why: they have no score either."""
    census: Mapping[str, Any] = field(default_factory=dict)
    products: Mapping[str, int] = field(default_factory=dict)
    """Number of linears by how they were multiplied."""
    health: Mapping[str, float] = field(default_factory=dict)
    footprint_bytes: int = 0
    file_bytes: int = 0
    peak_bytes: int = 0
    seconds: float = 0.0
    left_out: int = 0

    def scored(self, sample: str) -> Scored:
        """One sample's answer; the error, where it has none."""
        if sample in self.errors:
            raise VlmbenchError(self.errors[sample])
        return self.samples[sample]

    def mean(self, metric: str) -> float:
        """The mean score of a metric over all samples."""
        return fmean(scored.scores[metric] for scored in self.samples.values())

    @property
    def metrics(self) -> list[str]:
        """Names of the metrics that scored this run."""
        return list(next(iter(self.samples.values())).scores)

    @property
    def scores(self) -> Scores:
        """The mean of every metric."""
        return {metric: self.mean(metric) for metric in self.metrics}

    @property
    def samples_per_s(self) -> float:
        """Answers a second, pictures included, models already loaded."""
        return len(self.samples) / self.seconds if self.seconds else 0.0

    def to_json(self) -> str:
        """JSON with a line a sample and sorted keys, so that two runs can be diffed."""
        head = {name: value for name, value in asdict(self).items() if name != "samples"}
        samples = {name: asdict(scored) for name, scored in self.samples.items()}
        return as_lines({**head, "scores": self.scores}, samples)

    @classmethod
    def from_json(cls, text: str) -> Run:
        """The run that `to_json` wrote; ValueError, KeyError or TypeError where it is none."""
        data = json.loads(text)
        data.pop("scores")
        samples = {
            name: Scored(
                **{
                    **entry,
                    "references": tuple(entry["references"]),
                    "scores": dict(entry["scores"]),
                }
            )
            for name, entry in data.pop("samples").items()
        }
        return cls(samples=samples, **data)


def as_lines(head: Mapping[str, Any], samples: Mapping[str, Any], *, spaced: bool = True) -> str:
    """A JSON object of `head` and, a line each, `samples`; sorted, floats to six digits."""
    apart = (", ", ": ") if spaced else (",", ":")
    line = json.JSONEncoder(separators=apart, sort_keys=True, ensure_ascii=False)
    lines = json.dumps(_rounded(head), indent=1, sort_keys=True, ensure_ascii=False)[:-2]
    each = ",\n".join(
        f"  {json.dumps(name)}: " + line.encode(_rounded(samples[name])) for name in sorted(samples)
    )
    text = f'{lines},\n "samples": {{\n{each}\n }}\n}}\n'
    return _ESCAPED.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, Mapping):
        return {name: _rounded(entry) for name, entry in value.items()}
    return [_rounded(entry) for entry in value] if isinstance(value, list | tuple) else value


def one_line(text: str) -> str:
    """Text from models, data and files on one line, control characters escaped."""
    flat = json.dumps(text, ensure_ascii=False)
    shown = "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in flat)
    return shown if len(shown) <= 160 else shown[:157] + '..."'


def printable(text: str) -> str:
    """What a terminal may be shown of a text of many lines."""
    return "".join(c if c.isprintable() or c == "\n" else f"\\x{ord(c):02x}" for c in text)

"""The sources that a run's identity counts: this package's, and those of a user's entries."""

from __future__ import annotations

import importlib
import sys
from functools import partial
from pathlib import Path

import pytest

from vlmbench import provenance
from vlmbench.catalogue import compressions, metrics
from vlmbench.evaluate import sources
from vlmbench.metrics._pairing import best_reference
from vlmbench.spec import Metric


@pytest.mark.parametrize("installed", [False, True])
def test_the_sources_count_those_of_a_users_entries_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, installed: bool
) -> None:
    """The file an entry is in, and whatever that can name that no version tells of."""
    monkeypatch.setattr(provenance, "_INSTALLED", [tmp_path] if installed else [])
    files = {
        "deep": "FACTOR = 1.0",
        "helper": "import deep\n\ndef scaled(x): return x * deep.FACTOR",
        "mine": "from helper import scaled\n\n"
        "def score(answers, references): return [scaled(0.0)] * len(answers)",
        "apart": "",
    }
    for name, text in files.items():
        (tmp_path / f"{name}.py").write_text(text)
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    score = importlib.import_module("mine").score

    def told() -> str | None:
        plain = Metric("size", "1", score)
        wrapped = Metric("size", "1", best_reference(score))
        found = sources(plain.score)
        assert sources(wrapped.score) == found
        return found

    first = told()
    assert first is not None and told() == first
    for name in files:
        (tmp_path / f"{name}.py").write_text(files[name] + "\n# changed")
        counted = {"mine"} if installed else {"mine", "helper", "deep"}
        assert (told() != first) == (name in counted)
        (tmp_path / f"{name}.py").write_text(files[name])
    assert told() == first


def test_what_cannot_be_seen_has_no_identity() -> None:
    score = metrics()["anls"].score
    assert sources(partial(score)) is None
    assert sources(score, type(compressions()["4bit"])) is not None

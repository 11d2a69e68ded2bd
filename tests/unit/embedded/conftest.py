"""Trainings so short that they teach nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from vlmbench.embedded import curriculum, gathering, heir


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step of every stage in which an heir takes over; what it knows is not measured."""
    reading = replace(curriculum.READING, plan=replace(curriculum.READING.plan, steps=1), batch=4)
    for name in ("READING", "REREADING"):
        monkeypatch.setattr(curriculum, name, reading)
    monkeypatch.setattr(heir, "SAYING", replace(heir.SAYING, steps=1))
    monkeypatch.setattr(gathering, "GATHERING", replace(gathering.GATHERING, steps=1))
    monkeypatch.setattr(heir, "LOOKS", 1)
    monkeypatch.setattr(curriculum, "exact", lambda *asked, **options: {})

"""Networks of every architecture, loaded once a session."""

from __future__ import annotations

import pytest
from subjects import Subjects


@pytest.fixture(scope="session")
def subjects(tmp_path_factory: pytest.TempPathFactory) -> Subjects:
    return Subjects(tmp_path_factory.mktemp("checkpoints"))

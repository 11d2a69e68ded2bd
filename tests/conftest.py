"""What several folders of tests share; beside it, modules they import."""

from pathlib import Path

import pytest
from small_films import FORMATS, film


@pytest.fixture(scope="session")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small film of each kind."""
    folder = tmp_path_factory.mktemp("films")
    for name in FORMATS:
        film(folder / name)
    return folder

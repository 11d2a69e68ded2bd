"""Cells are judged here as in a session of their own: a bench for the embedded tier."""

import pytest

from vlmbench.bench import Bench
from vlmbench.options import Options, catalogued


@pytest.fixture(scope="session")
def embedded():
    """The whole default matrix of the embedded tier."""
    return Bench(Options(), catalogued())

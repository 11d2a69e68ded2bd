"""Hooks that a user's own conftest.py may implement, one for each axis."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from vlmbench.spec import Compression, Dataset, Metric, Model


@pytest.hookspec
def pytest_vlmbench_models() -> list[Model]:  # type: ignore[empty-body]
    """Further models."""


@pytest.hookspec
def pytest_vlmbench_compressions() -> list[Compression]:  # type: ignore[empty-body]
    """Further compressions."""


@pytest.hookspec
def pytest_vlmbench_datasets() -> list[Dataset]:  # type: ignore[empty-body]
    """Further data sets."""


@pytest.hookspec
def pytest_vlmbench_metrics() -> list[Metric]:  # type: ignore[empty-body]
    """Further metrics."""

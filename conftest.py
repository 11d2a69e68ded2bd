"""Makes the plugin known where the package is used from a checkout, without an entry point."""

import pytest

pytest_plugins = ["vlmbench.plugin", "pytester"]


ASKED_FOR = ("soak", "speed")
"""Marks of tests that are left out unless `-m` names them."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is slow, unless it is asked for."""
    wanted = config.getoption("markexpr")
    marks = [mark for mark in ASKED_FOR if mark not in wanted]
    slow = [item for item in items if any(item.get_closest_marker(mark) for mark in marks)]
    config.hook.pytest_deselected(items=slow)
    items[:] = [item for item in items if item not in slow]

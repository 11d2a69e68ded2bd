"""A progress bar for whoever watches: cell, samples done, samples a second, time left."""

from __future__ import annotations

import sys
from typing import Any

from vlmbench.spec import Cell


class Bar:
    """Called with (cell, samples done, samples in all); writes past pytest's capture."""

    def __init__(self, capture: Any) -> None:
        self._capture = capture
        self._bar: Any = None

    def __call__(self, cell: Cell, done: int, total: int) -> None:
        """Show the state; the bar of a finished cell is wiped."""
        from tqdm import tqdm

        with self._capture.global_and_fixture_disabled():
            if done == 0:
                self._bar = tqdm(
                    total=total, desc=cell.id, unit="sample", leave=False, file=sys.stderr
                )
            else:
                self._bar.update(done - self._bar.n)
            if done == total:
                self._bar.close()

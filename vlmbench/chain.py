"""Recipes one after another, left to right: `depth50_ft+4bit`."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from vlmbench.errors import UsageError
from vlmbench.spec import Anatomy, Component, Compression, Maker, Runtime

if TYPE_CHECKING:
    from torch import nn

_FLOATS = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class Chain:
    """Makers of checkpoints first, then at most one that asks the loader, and how it all runs.

    Each maker begins with the checkpoint that the one before it saved.
    """

    name: str
    parts: tuple[Compression, ...]

    def __post_init__(self) -> None:
        """Refuse what cannot mean anything.

        Raises:
            UsageError: with the reason.
        """
        doubles = [name for name, n in Counter(part.name for part in self.parts).items() if n > 1]
        if doubles:
            raise UsageError(f"{self.name}: {doubles[0]} stands in it twice. Apply it once.")
        storing = [part for part in self.parts if not isinstance(part, Runtime)]
        for part, following in pairwise(storing):
            stored = part.storage("decoder")
            if stored not in _FLOATS:
                goes_first = (
                    isinstance(following, Maker) and following.storage("decoder") in _FLOATS
                )
                todo = f"Put {following.name} before it" if goes_first else "Leave out one of them"
                raise UsageError(
                    f"{self.name}: after {part.name} the weights are {stored}, and "
                    f"{following.name} needs them as floats. {todo}."
                )
            if not isinstance(part, Maker):
                raise UsageError(
                    f"{self.name}: {part.name} only says how a checkpoint is loaded, and "
                    f"{following.name} makes or loads one itself. Put {part.name} last, or leave "
                    "it out."
                )

    @property
    def _storing(self) -> Compression:
        """The part that says how weights are stored in the end."""
        storing = [part for part in self.parts if not isinstance(part, Runtime)]
        if storing:
            return storing[-1]
        # Ways to run store float32, but for one that cannot compute in it.
        other = (part for part in self.parts if part.storage("decoder") != "float32")
        return next(other, self.parts[0])

    def load_options(self, anatomy: Anatomy) -> dict[str, Any]:
        """What the last part that stores asks for, and how it is to run.

        Raises:
            UsageError: two parts would have it run in two ways.
        """
        ways: dict[str, Any] = {}
        for part in self.parts:
            added = part.run_options(anatomy) if isinstance(part, Runtime) else {}
            if both := sorted(ways.keys() & added.keys()):
                raise UsageError(
                    f"{self.name}: two of its parts set {both[0]}, and it can run in one way only. "
                    f"Leave out {part.name} or the other."
                )
            ways |= added
        return self._storing.load_options(anatomy) | ways

    def apply(self, model: nn.Module, anatomy: Anatomy) -> None:
        """Every part in turn."""
        for part in self.parts:
            part.apply(model, anatomy)

    def storage(self, component: Component) -> str:
        """What the last part that stores promises."""
        return self._storing.storage(component)

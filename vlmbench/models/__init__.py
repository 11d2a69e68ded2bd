"""One file an architecture; each holds the `Model` instances that the catalogue collects."""

from pathlib import Path

from vlmbench.spec import Source

_CHECKPOINTS = Path(__file__).resolve().parents[1] / "embedded" / "checkpoints"


def shipped(name: str) -> Source:
    """The checkpoint of this name that comes with the package."""
    return Source(str(_CHECKPOINTS / name))

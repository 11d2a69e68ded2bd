"""Train an embedded checkpoint, stage by stage, and save it into the package."""

from __future__ import annotations

from pathlib import Path

from vlmbench.embedded.first import First
from vlmbench.embedded.heir import Heir

SCHOOLS = {"qwen2": First, "llavanext": Heir}
"""How each checkpoint is trained. Heirs begin with what qwen2 knows."""


def run(name: str, work: Path) -> None:
    """Train checkpoint `name`, keeping states under `work`, and write it into the package."""
    school = SCHOOLS[name](name, work)
    school.run()
    school.finish()

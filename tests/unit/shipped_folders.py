"""Small folders as `vlmbench compress` writes them, and what tests do to them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from vlmbench import shipping
from vlmbench.bench import Bench
from vlmbench.options import Options, catalogued

Change = Callable[[Path], object]


def bench(model: str, *recipes: str) -> Bench:
    return Bench(Options(models=(model,), compressions=recipes), catalogued())


def made(recipe: str, checkpoint: Path, factory: pytest.TempPathFactory) -> Path:
    """Where the command has written `checkpoint`, compressed."""
    folder = factory.mktemp(recipe)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLMBENCH_CACHE", str(factory.mktemp("cache")))
        shipping.compress(bench(f"mine={checkpoint}", recipe), folder / "out")
    return folder / "out"


def rewrite(name: str, change: Callable[[Any], object]) -> Change:
    def changed(folder: Path) -> None:
        told = json.loads((folder / name).read_text())
        change(told)
        (folder / name).write_text(json.dumps(told))

    return changed


@dataclass(frozen=True)
class Eager:
    """Says how a network runs."""

    name: str = "eager"

    def load_options(self, anatomy: Any) -> dict[str, Any]:
        return {"dtype": "float32", **self.run_options(anatomy)}

    def run_options(self, anatomy: Any) -> dict[str, Any]:
        return {"attn_implementation": "eager"}

    def apply(self, model: Any, anatomy: Any) -> None:
        pass

    def storage(self, component: Any) -> str:
        return "float32"

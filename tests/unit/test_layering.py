"""Imports point downwards only, and what need not be heavy is light."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import vlmbench

ROOT = Path(vlmbench.__file__).parent
AXES = ("models", "compression", "datasets", "metrics")
# From the bottom up; modules and folders of one layer do not import one another.
LAYERS = [
    {"errors"},
    {"anatomy"},
    {"spec"},
    {"catalogue", "chain", "files", "health", "pictures", "products", "provenance", "run"},
    {"container"},
    {"video"},
    {"nf4", "offloading", "packed_codes"},
    {"packed_int4", "packed_int8", "packed_sparse"},
    {"packed"},
    {"prompting", "training", "architectures", "calibration", "layers", "scaling"},
    {"factorizing", "pruning", "rounding"},
    {"finetuning"},
    {*AXES},
    {"census", "checkpoint", "finite", "gates", "patches", "retrieval", "samples", "stats"},
    {"saving", "shipped"},
    {"promises"},
    {"answering", "artifacts", "variant"},
    {"measure"},
    {"evaluate", "embedded", "baseline"},
    {"comparable", "findings"},
    {"update", "verdict"},
    {"traindata"},
    {"options", "compressed"},
    {"selection"},
    {"bench"},
    {"describe", "listing", "report", "shipping", "speed"},
    {"cli", "hookspecs", "probe", "pytest_cells", "pytest_options", "pytest_workers"},
    {"plugin"},
]
LEVEL = {name: level for level, layer in enumerate(LAYERS) for name in layer}
MODULES = [path for path in sorted(ROOT.rglob("*.py")) if path != ROOT / "__init__.py"]


def layer_of(module: str) -> str:
    """`models` of `vlmbench.models.qwen2`."""
    return module.split(".")[1]


def imported(tree: ast.AST) -> Iterator[str]:
    """Every module imported anywhere in a file, except for type hints alone."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, "imports are absolute"
            whole = node.module == "vlmbench"
            yield from (f"vlmbench.{a.name}" for a in node.names) if whole else [node.module]
        yield from imported(node)


def own(path: Path) -> list[str]:
    names = imported(ast.parse(path.read_text()))
    return [layer_of(name) for name in names if name.startswith("vlmbench.")]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_downwards(path: Path) -> None:
    here = path.relative_to(ROOT).parts[0].removesuffix(".py")
    assert here in LEVEL, "a new module needs its place in LAYERS"
    others = {name for name in own(path) if name != here}
    assert [name for name in others if LEVEL[name] >= LEVEL[here]] == []


def test_the_nouns_and_the_errors_need_nothing_else() -> None:
    for name in ("anatomy", "spec", "errors"):
        names = set(imported(ast.parse((ROOT / f"{name}.py").read_text())))
        roots = {found.split(".")[0] for found in names}
        assert roots <= sys.stdlib_module_names | {"vlmbench"}
        own = {layer_of(found) for found in names if "." in found and "vlmbench" in found}
        assert own <= {"anatomy", "spec", "errors"}


def test_the_walk_sees_imports_within_functions_and_skips_hints() -> None:
    text = (
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import a\n"
        "def f():\n    from vlmbench import b\n    from vlmbench.c import d\n"
        "    import vlmbench.e.f\n"
    )
    assert list(imported(ast.parse(text))) == [
        *("typing", "vlmbench.b", "vlmbench.c", "vlmbench.e.f")
    ]


@pytest.mark.parametrize(
    "script",
    [
        "import vlmbench",
        "import vlmbench.cli",
        "import vlmbench.plugin",
        "from vlmbench.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass",
        "from vlmbench.cli import main; assert main(['list']) == 0",
        "import pytest\nassert pytest.main(['--collect-only', '-q', '-p', 'no:cacheprovider', "
        f"{str(ROOT.parent / 'tests' / 'benchmarks')!r}]) == 0",
    ],
    ids=["vlmbench", "cli", "plugin", "help", "list", "collect"],
)
def test_is_light(script: str) -> None:
    heavy = {"torch", "transformers", "bitsandbytes", "datasets", "matplotlib"}
    check = f"\nimport sys; heavy = {heavy} & set(sys.modules); assert not heavy, heavy"
    # As a process of its own, even where this one is a worker.
    alone = {name: value for name, value in os.environ.items() if "XDIST" not in name}
    done = subprocess.run(
        [sys.executable, "-c", script + check],
        capture_output=True,
        text=True,
        cwd=ROOT.parent,
        env=alone,
    )
    assert done.returncode == 0, done.stdout[-500:] + done.stderr

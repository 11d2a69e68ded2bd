"""The folder is the registry, and a broken folder says so."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from itertools import permutations, product
from pathlib import Path
from typing import Any

import pytest

from vlmbench import catalogue
from vlmbench.compression.precision import Precision
from vlmbench.errors import CatalogueError, UnknownNameError
from vlmbench.spec import Compression, Metric

RECIPES = ["32bit", "16bit", "8bit", "4bit", "lm8bit", "lm4bit"]
GOOD = """
from dataclasses import dataclass
from vlmbench.compression.precision import Precision
from vlmbench.spec import Compression
{line}
"""

Collected = Callable[..., dict[str, Any]]


@pytest.fixture
def collected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Collected:
    """Collect entries from a package made of the given files."""

    def collect(kind: Any = Compression, /, **files: str) -> dict[str, Any]:
        package = f"axis_{tmp_path.name}"
        (tmp_path / package).mkdir()
        for name, text in {"__init__": "", **files}.items():
            (tmp_path / package / f"{name}.py").write_text(text)
        monkeypatch.syspath_prepend(str(tmp_path))
        return {name: e for name, (e, _) in catalogue._collect(package, kind).items()}

    return collect


def test_holds_todays_recipes_and_models() -> None:
    assert set(RECIPES) <= set(catalogue.compressions())
    assert "qwen2" in catalogue.models()


def test_no_cell_selects_another() -> None:
    """`-k` matches substrings: `qwen2_4bit` is one variant, `qwen2_depth50-` the plain one.

    What is made of a recipe (`depth50bi`, `depth50_ft`) begins with its name, all other names are
    apart.
    """
    names = [f"{m}_{c}" for m, c in product(catalogue.models(), catalogue.compressions())]
    assert [(a, b) for a, b in permutations(names, 2) if f"{a}-" in f"{b}-"] == []
    assert [(a, b) for a, b in permutations(names, 2) if a in b and not b.startswith(a)] == []


def test_loads_neither_torch_nor_transformers() -> None:
    script = (
        "import sys, vlmbench.catalogue as c; c.models(), c.compressions();"
        "assert not {'torch', 'transformers', 'bitsandbytes'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_helpers_and_classes_are_no_entries(collected: Collected) -> None:
    full = (
        "class Full:\n    name = 'full'\n    def load_options(self, anatomy): ...\n"
        "    def apply(self, model, anatomy): ...\n    def storage(self, component): ...\n"
    )
    found = collected(
        a=GOOD.format(line=full + "A = Precision('a', 'float32')\n_B = Precision('b', 'float32')"),
        _helper="raise RuntimeError",
    )
    assert list(found) == ["a"]


def test_an_imported_entry_is_no_duplicate(collected: Collected) -> None:
    line = "from vlmbench.compression.precision import FLOAT32"
    assert list(collected(a=line, b=line)) == ["32bit"]


def test_stand_ins_of_a_tier_are_no_entries(collected: Collected) -> None:
    text = """
from vlmbench.spec import Metric
_SMALL = Metric("bert", "1", list)
BERT = Metric("bert", "2", list, by_tier={"embedded": _SMALL})
"""
    (metric,) = collected(Metric, bert=text).values()
    assert metric.version == "2"


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"bad": "import no_such_package"}, r"bad.*cannot be imported: ModuleNotFoundError"),
        ({"bad": "1 +"}, r"bad.*cannot be imported: SyntaxError"),
        ({"bad": "x = 1"}, r"bad\.py holds no Compression"),
        ({"bad": GOOD.format(line="A = Precision('A-b', 'float32')")}, r"bad\.py.*'A-b'.*Rename"),
        (
            {
                "one": GOOD.format(line="A = Precision('a', 'float32')"),
                "two": GOOD.format(line="A = Precision('a', 'float32')"),
            },
            r"'a' is defined twice: in .*one\.py and in .*two\.py",
        ),
    ],
)
def test_a_broken_file_is_named(collected: Collected, files: dict[str, str], says: str) -> None:
    with pytest.raises(CatalogueError, match=says):
        collected(**files)


def test_users_add_entries() -> None:
    mine = Precision("mine", "float16")
    assert catalogue.compressions([mine])["mine"] is mine
    assert "mine" not in catalogue.compressions(), "an added entry stays with its caller"


def test_users_may_not_replace_entries() -> None:
    with pytest.raises(CatalogueError, match=r"'4bit' is defined twice: in .*bnb\.py and in an"):
        catalogue.compressions([Precision("4bit", "float32")])


def test_users_entries_are_checked() -> None:
    with pytest.raises(CatalogueError, match="'oops' was added as a Model and is none"):
        catalogue.models(["oops"])  # type: ignore[list-item]


def test_a_recipe_has_no_chains_name() -> None:
    with pytest.raises(
        CatalogueError, match=r"'depth50\+4bit' has the name of a chain, and is none"
    ):
        catalogue.compressions([Precision("depth50+4bit", "float32")])


def test_a_method_that_lacks_is_named() -> None:
    class Half:
        name = "half"

        def load_options(self, anatomy: object) -> dict[str, object]:
            return {}

    with pytest.raises(CatalogueError, match=r"and is none: it lacks apply, storage\."):
        catalogue.compressions([Half()])  # type: ignore[list-item]


def test_find() -> None:
    entries = catalogue.compressions()
    assert catalogue.find("compression", "4bit", entries) is entries["4bit"]
    with pytest.raises(
        UnknownNameError, match=r"unknown compression '4bits'\. Did you mean '4bit'"
    ):
        catalogue.find("compression", "4bits", entries)

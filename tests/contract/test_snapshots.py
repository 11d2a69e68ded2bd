"""The stored demo answers are those of the matrix: none missing, none left behind."""

from pathlib import Path

FOLDER = Path(__file__).parents[1] / "benchmarks" / "__snapshots__" / "embedded"


def test_every_demo_has_its_snapshot_and_every_snapshot_its_demo(embedded):
    wanted: dict[str, set[str]] = {}
    for cell in embedded.cells():
        names = {f"test_demos[{cell.id}-{demo}]" for demo in cell.dataset.demos}
        wanted.setdefault(cell.variant, set()).update(names)
    stored = {
        path.stem: {
            line.removeprefix("# name: ")
            for line in path.read_text(encoding="utf-8").splitlines()
            if line.startswith("# name: ")
        }
        for path in FOLDER.glob("*.ambr")
    }
    assert stored == wanted

"""What a recipe is worth in time: decode and prefill, beside the same model uncompressed.

`python -m vlmbench.speed` takes a decoder of 0.4 billion weights against 32bit; with
`--device cuda` it takes the shape of Qwen2-VL-2B against 16bit. Recipes that are made take minutes.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

from vlmbench.speed.contest import CPU, CUDA, Contest, Speed
from vlmbench.speed.rig import Rig
from vlmbench.speed.table import machine, render


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    options = _parser().parse_args(arguments)
    from tqdm import tqdm

    contest = _contest(options)
    with _folder(options.keep) as folder:
        head, rig = machine(options.device), Rig(contest, folder, options.device)
        results = list(tqdm(rig.results(options.rounds), total=len(contest.recipes), unit="recipe"))
    if options.json:
        rows = [result.to_dict() for result in results]
        told = {"machine": head, "contest": asdict(contest), "results": rows}
        sys.stdout.write(json.dumps(told, indent=1) + "\n")
    else:
        sys.stdout.write(render(results, contest, head))
    return 0


@contextmanager
def _folder(kept: Path | None) -> Iterator[Path]:
    if kept:
        yield kept
    else:
        with tempfile.TemporaryDirectory(prefix="vlmbench-speed-") as made:
            yield Path(made)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m vlmbench.speed", description=__doc__)
    parser.add_argument("--device", default="cpu", help="torch device (default: cpu)")
    parser.add_argument("--compression", nargs="+", metavar="NAME", help="only these")
    parser.add_argument("--layers", type=int, metavar="N", help="so many decoder layers")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="default: 5")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep what is made there")
    parser.add_argument("--json", action="store_true", help="for scripts")
    return parser


def _contest(options: argparse.Namespace) -> Contest:
    contest = CUDA if options.device.startswith("cuda") else CPU
    if options.layers:
        contest = replace(contest, shape=replace(contest.shape, layers=options.layers))
    if options.compression:
        known = contest.recipes
        recipes = {name: known.get(name, Speed()) for name in options.compression}
        contest = replace(contest, recipes=recipes)
    return contest


if __name__ == "__main__":
    sys.exit(main())

"""The command line: list what there is, ask a model about a picture, show what is kept."""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

from vlmbench.artifacts import Store, age, default_folder
from vlmbench.bench import Bench
from vlmbench.errors import PictureError, UsageError, VlmbenchError
from vlmbench.options import Options, catalogued
from vlmbench.spec import Turn


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; the exit status."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except VlmbenchError as error:
        print(f"vlmbench: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="vlmbench", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    listing = commands.add_parser("list", help="models, compressions, data sets, metrics")
    listing.set_defaults(run=_list)
    ask = commands.add_parser("ask", help="ask a model about a picture file")
    ask.add_argument("picture", type=Path)
    ask.add_argument("question")
    ask.add_argument("--model", default="qwen2", metavar="NAME[=WHERE]")
    ask.add_argument("--compression", default="32bit", metavar="NAME")
    ask.add_argument("--tier", choices=("embedded", "hub"), default="embedded")
    ask.add_argument("--device", default="cpu")
    ask.add_argument("--max-new-tokens", type=int, default=128, metavar="N")
    ask.set_defaults(run=_ask)
    cache = commands.add_parser("cache", help="what is kept between sessions: show, bound, clear")
    bound = cache.add_mutually_exclusive_group()
    bound.add_argument("--limit", type=float, metavar="MB", help="drop what was not used longest")
    bound.add_argument("--clear", action="store_const", const=0.0, dest="limit", help="drop all")
    cache.set_defaults(run=_cache)
    return parser


def _list(options: argparse.Namespace) -> int:
    entries = catalogued()
    rows = {
        "models": {m.name: m.architecture for m in entries.models.values()},
        "compressions": {name: _summary(c) for name, c in entries.compressions.items()},
        "data sets": {
            d.name: "gated on " + ", ".join(gate.metric for gate in d.gates)
            for d in entries.datasets.values()
        },
        "metrics": {m.name: m.version for m in entries.metrics.values()},
    }
    for axis, lines in rows.items():
        print(axis)
        for name, what in lines.items():
            print(f"  {name:16} {what}")
    return 0


def _summary(compression: object) -> str:
    return repr(compression).split("(")[0]


def _ask(options: argparse.Namespace) -> int:
    if options.max_new_tokens < 1:
        raise UsageError(f"--max-new-tokens must be at least 1, got {options.max_new_tokens}")
    try:
        picture = options.picture.read_bytes()
    except OSError as error:
        raise PictureError(
            f"{options.picture}: {error.strerror}. Expected a picture file (PNG, JPEG, ...)."
        ) from None
    chosen = Options(
        tier=options.tier,
        models=(options.model,),
        compressions=(options.compression,),
        device=options.device,
    )
    bench = Bench(chosen, catalogued())
    from vlmbench.answering import answer

    variant = bench.variant(bench.models[0], bench.compressions[0])
    turns = {str(options.picture): Turn((picture,), options.question, "Answer briefly.")}
    answers = answer(variant, turns, max_new_tokens=options.max_new_tokens, batch_size=1)
    text = next(iter(answers.values())).text
    print("".join(c if c.isprintable() or c == "\n" else f"\\x{ord(c):02x}" for c in text))
    return 0


def _cache(options: argparse.Namespace) -> int:
    store = Store(default_folder())
    if options.limit is not None:
        if not 0 <= options.limit < math.inf:
            raise UsageError(f"--limit must be a number of megabytes, got {options.limit}")
        dropped = store.trim(int(options.limit * 1e6))
        print(f"dropped {len(dropped)} entries, {sum(e.size for e in dropped) / 1e6:.1f} MB")
    entries = store.entries()
    print(f"{store.folder}: {len(entries)} entries, {sum(e.size for e in entries) / 1e6:.1f} MB")
    for entry in reversed(entries):
        print(f"  {entry.what:32} {entry.size / 1e6:7.2f} MB  {age(entry)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

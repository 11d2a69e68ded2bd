"""The command line: what there is, what models say and choose, compressing, tables, the cache."""

from __future__ import annotations

import argparse
import math
import os
import shutil
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from vlmbench import retrieval, selection, shipping
from vlmbench.artifacts import Store, age, default_folder
from vlmbench.bench import Bench
from vlmbench.datasets.clips import QUESTION
from vlmbench.describe import as_json, as_text, contact_sheet, describe, look
from vlmbench.errors import UsageError, VlmbenchError
from vlmbench.files import write_whole
from vlmbench.listing import listing
from vlmbench.options import Options, catalogued
from vlmbench.pictures import read_picture
from vlmbench.report import latencies, markdown, published, tables
from vlmbench.run import printable
from vlmbench.spec import Clip, Model, Sampling, Turn
from vlmbench.variant import Variant

_USUAL = "default: 32bit, or `stored` where the checkpoint is compressed already"


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; the exit status."""
    options = _parser().parse_args(arguments)
    # As Ctrl-C does: what is half written is taken away.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        status = int(options.run(options))
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        # Who read has had enough (`| head`); what is left goes nowhere, without a complaint.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (VlmbenchError, KeyboardInterrupt) as error:
        print(f"vlmbench: {printable(str(error)) or 'interrupted'}", file=sys.stderr)
        return 2 if isinstance(error, VlmbenchError) else 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="vlmbench", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    listing = commands.add_parser("list", help="models, compressions, data sets, metrics")
    listing.set_defaults(run=_list)
    ask = commands.add_parser("ask", help="ask a model about a picture file")
    ask.add_argument("picture", type=Path)
    ask.add_argument("question")
    ask.add_argument("--model", default="qwen2", metavar="NAME[=WHERE]")
    ask.add_argument("--compression", metavar="NAME", help=_USUAL)
    _add_where(ask)
    ask.set_defaults(run=_ask)
    tell = commands.add_parser("describe", help="what models say of a video file, side by side")
    tell.add_argument("video", type=Path)
    several: dict[str, Any] = {"nargs": "+", "action": "extend"}
    tell.add_argument("--model", metavar="NAME[=WHERE]", **several, help="default: qwen2")
    tell.add_argument("--compression", metavar="NAME", **several, help=_USUAL)
    tell.add_argument("--question", default=QUESTION)
    shown = tell.add_mutually_exclusive_group()
    shown.add_argument("--frames", type=int, metavar="N", help="so many, at equal steps (8)")
    shown.add_argument("--fps", type=float, metavar="N", help="so many a second")
    tell.add_argument("--json", action="store_true", help="print one JSON object")
    tell.add_argument("--contact-sheet", type=Path, metavar="FILE", help="write the frames there")
    _add_where(tell)
    tell.set_defaults(run=_describe)
    search = commands.add_parser("search", help="the pictures of a folder that fit a text best")
    search.add_argument("text")
    search.add_argument("folder", type=Path)
    search.add_argument("--first", type=int, default=5, metavar="N", help="show so many (5)")
    _add_comparing(search)
    search.set_defaults(run=_search)
    label = commands.add_parser("label", help="which of some texts fits a picture best")
    label.add_argument("picture", type=Path)
    label.add_argument("label", nargs="+")
    label.add_argument("--prompt", default="{}", metavar="TEXT", help='as in "a photo of a {}."')
    _add_comparing(label)
    label.set_defaults(run=_label)
    compress = commands.add_parser("compress", help="write a compressed checkpoint to a folder")
    compress.add_argument("model", metavar="MODEL[=WHERE]")
    compress.add_argument("--with", dest="recipe", required=True, metavar="RECIPE")
    compress.add_argument("--out", type=Path, required=True, metavar="DIR")
    compress.add_argument("--force", action="store_true", help="replace what an earlier one wrote")
    _add_tier(compress)
    compress.set_defaults(run=_compress)
    tabled = commands.add_parser("tables", help="stored runs as the tables of published work")
    tabled.add_argument("--baselines", type=Path, default=Path("baselines"), metavar="DIR")
    tabled.add_argument("--tier", choices=("embedded", "hub"), default="embedded")
    tabled.add_argument(
        "--history", type=Path, metavar="FILE.json", help="seconds, of --benchmark-autosave"
    )
    tabled.add_argument("--out", type=Path, metavar="FILE.md", help="write them there")
    tabled.set_defaults(run=_tables)
    cache = commands.add_parser("cache", help="what is kept between sessions: show, bound, clear")
    bound = cache.add_mutually_exclusive_group()
    bound.add_argument("--limit", type=float, metavar="MB", help="drop what was not used longest")
    bound.add_argument("--clear", action="store_const", const=0.0, dest="limit", help="drop all")
    cache.set_defaults(run=_cache)
    return parser


def _add_tier(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--tier", choices=("embedded", "hub"), default="embedded")
    parser.add_argument("--device", default="cpu")


def _add_comparing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="clip", metavar="NAME[=WHERE]")
    parser.add_argument("--compression", metavar="NAME", help=_USUAL)
    _add_tier(parser)


def _add_where(parser: argparse.ArgumentParser) -> None:
    _add_tier(parser)
    parser.add_argument("--max-new-tokens", type=int, default=128, metavar="N")


def _list(options: argparse.Namespace) -> int:
    print(listing(catalogued()))
    return 0


def _bench(
    options: argparse.Namespace, models: Sequence[str], compressions: Sequence[str]
) -> Bench:
    if getattr(options, "max_new_tokens", 1) < 1:
        raise UsageError(f"--max-new-tokens must be at least 1, got {options.max_new_tokens}")
    chosen = Options(
        tier=options.tier,
        models=tuple(models),
        compressions=tuple(compressions),
        device=options.device,
    )
    return Bench(chosen, catalogued())


def _alone(options: argparse.Namespace) -> tuple[Bench, Model]:
    """One model under one recipe."""
    recipe = options.compression or selection.usual(options.model)
    bench = _bench(options, [options.model], [recipe])
    return bench, bench.models[0]


def _ask(options: argparse.Namespace) -> int:
    bench, model = _alone(options)
    picture = read_picture(options.picture)
    from vlmbench.answering import answer

    if not model.writes:
        raise UsageError(f"{model.name} chooses answers, it writes none. Ask another model.")
    variant = bench.variant(model, bench.compressions[0])
    turns = {str(options.picture): Turn((picture,), options.question, "Answer briefly.")}
    answers = answer(variant, turns, max_new_tokens=options.max_new_tokens, batch_size=1)
    print(printable(next(iter(answers.values())).text))
    return 0


def _search(options: argparse.Namespace) -> int:
    if options.first < 1:
        raise UsageError(f"--first must be at least 1, got {options.first}")
    if not options.folder.is_dir():
        raise UsageError(f"{options.folder} is no folder. Name one that holds pictures.")
    found, passed = retrieval.search(_comparing(options), options.text, options.folder)
    if passed:
        print(f"vlmbench: {passed} files are no readable pictures", file=sys.stderr)
    if not found:
        raise UsageError(f"{options.folder} holds no readable picture (PNG, JPEG, ...).")
    for fit, path in found[: options.first]:
        print(f"{fit:6.3f}  {printable(str(path))}")
    return 0


def _label(options: argparse.Namespace) -> int:
    if "{}" not in options.prompt:
        raise UsageError(
            f'--prompt {options.prompt!r} has no place for a label: "a photo of a {{}}."'
        )
    picture = read_picture(options.picture)
    texts = [options.prompt.replace("{}", text) for text in options.label]
    chances = retrieval.label(_comparing(options), picture, texts)
    for chance, text in sorted(zip(chances, options.label, strict=True), key=lambda said: -said[0]):
        print(f"{chance:6.3f}  {printable(text)}")
    return 0


def _comparing(options: argparse.Namespace) -> Variant:
    bench, model = _alone(options)
    if model.writes:
        raise UsageError(f"{model.name} writes answers. Name a model that compares: clip")
    return bench.variant(model, bench.compressions[0])


def _describe(options: argparse.Namespace) -> int:
    clip = Clip(options.video, _sampling(options))
    benches = _benches(options)
    looks = [look(bench, clip, options.question) for bench in benches]
    frames = looks[0][1]
    if options.contact_sheet:
        try:
            contact_sheet(frames).save(options.contact_sheet)
        except (OSError, ValueError) as error:
            raise UsageError(
                f"--contact-sheet {options.contact_sheet} cannot be written ({error}). Name a "
                "picture file in a folder that exists: sheet.png"
            ) from None
    said = []
    for turns, _ in looks:  # what one bench has loaded is dropped before the next loads
        said += describe(benches.pop(0), turns, max_new_tokens=options.max_new_tokens)
    if options.json:
        print(as_json(options.video, options.question, frames, said))
    else:
        said = [replace(one, answer=printable(one.answer)) for one in said]
        print(as_text(frames, said, shutil.get_terminal_size().columns), end="")
    return 0


def _benches(options: argparse.Namespace) -> list[Bench]:
    """One for all models; where no compression is named, one for all that have it by default."""
    models = options.model or ["qwen2"]
    if options.compression:
        return [_bench(options, models, options.compression)]
    usual = [(model, selection.usual(model)) for model in models]
    return [
        _bench(options, [model for model, name in usual if name == compression], [compression])
        for compression in dict.fromkeys(name for _, name in usual)
    ]


def _sampling(options: argparse.Namespace) -> Sampling:
    if options.fps is not None and not 0 < options.fps < math.inf:
        raise UsageError(f"--fps must be above 0, got {options.fps}")
    if options.frames is not None and options.frames < 1:
        raise UsageError(f"--frames must be at least 1, got {options.frames}")
    return Sampling(options.frames or 8, options.fps)


def _compress(options: argparse.Namespace) -> int:
    bench = _bench(options, [options.model], [options.recipe])
    print(shipping.compress(bench, options.out, force=options.force), end="")
    return 0


def _tables(options: argparse.Namespace) -> int:
    runs = tables.read(options.baselines, options.tier)
    times = latencies.read(options.history, options.tier) if options.history else None
    text = markdown.markdown(options.tier, runs, published.findings(), times)
    if options.out is None:
        print(text)
        return 0
    try:
        write_whole(options.out, text)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"--out {options.out} cannot be written ({error}). Name a file: tables.md"
        ) from None
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

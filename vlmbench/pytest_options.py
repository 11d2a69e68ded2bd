"""The command-line options, and what a session makes of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from vlmbench.options import Options


def declare(parser: pytest.Parser) -> None:
    """Declare the options."""
    group = parser.getgroup("vlmbench", "compressed vision-language models")
    add = group.addoption
    add(
        "--tier",
        choices=("embedded", "hub"),
        default="embedded",
        help="embedded: checkpoints and data in this package; hub: the published ones",
    )
    add(
        "--model",
        action="append",
        default=[],
        metavar="NAME[=WHERE]",
        help="only this model; WHERE: a checkpoint folder or hub id (repeatable)",
    )
    add(
        "--compression",
        action="append",
        default=[],
        metavar="NAME",
        help="only this compression (repeatable)",
    )
    add(
        "--data",
        action="append",
        default=[],
        metavar="NAME[=WHERE]",
        help="only this data set; WHERE: a folder of parquet files or hub id (repeatable)",
    )
    add(
        "--matrix",
        choices=("default", "full"),
        default="default",
        help="default: of recipes that make checkpoints, only cells that have a baseline",
    )
    add("--limit", type=int, metavar="N", help="only the first N samples of each data set")
    add("--device", default="cpu", help="torch device (default: cpu)")
    add("--dtype", help="dtype of what a recipe leaves unquantized, such as float32")
    add("--batch-size", type=int, default=64, metavar="N", help="samples a batch (default: 64)")
    add("--time-limit", type=float, metavar="SECONDS", help="let a batch take no longer")
    add("--baselines", type=Path, metavar="DIR", help="default: baselines/ beside pytest.ini")
    add("--baseline-of", metavar="MODEL", help="compare with another model's baselines")
    add(
        "--baseline-new",
        dest="baseline_write",
        action="store_const",
        const="new",
        help="write the baselines that are missing",
    )
    add(
        "--baseline-update",
        dest="baseline_write",
        action="store_const",
        const="update",
        help="rewrite the baselines of the selected cells",
    )
    add(
        "--baseline-move-anchor",
        action="store_true",
        help="with --baseline-update: accept what is far below the best there was",
    )
    add(
        "--margin",
        action="append",
        default=[],
        metavar="[DATASET.]METRIC=VALUE",
        help="forgive a drop of VALUE; of CIDEr, that share of the baseline (repeatable)",
    )
    add(
        "--floor",
        action="append",
        default=[],
        metavar="[DATASET.]METRIC=VALUE",
        help="fail a mean below VALUE whatever the baseline is (repeatable)",
    )
    add(
        "--error-budget",
        type=int,
        default=0,
        metavar="N",
        help="let N samples of a cell be without an answer (default: 0)",
    )
    add("--fresh", action="store_true", help="answer again what earlier sessions have answered")
    parser.addini("vlmbench_margins", "as --margin, a line each", type="linelist")
    parser.addini("vlmbench_floors", "as --floor, a line each", type="linelist")


def options(config: pytest.Config) -> Options:
    """What the user asks for."""
    option = config.getoption
    return Options(
        tier=option("tier"),
        models=tuple(option("model")),
        compressions=tuple(option("compression")),
        matrix=option("matrix"),
        data=tuple(option("data")),
        limit=option("limit"),
        device=option("device"),
        dtype=option("dtype"),
        batch_size=option("batch_size"),
        time_limit=option("time_limit"),
        baselines=option("baselines") or config.rootpath / "baselines",
        baseline_of=option("baseline_of"),
        write=option("baseline_write"),
        move_anchor=option("baseline_move_anchor"),
        # pytest's own --strict: who asks for it wants what is inconclusive to fail.
        strict=config.getini("strict") is True,
        error_budget=option("error_budget"),
        fresh=option("fresh"),
        margins=(*config.getini("vlmbench_margins"), *option("margin")),
        floors=(*config.getini("vlmbench_floors"), *option("floor")),
    )

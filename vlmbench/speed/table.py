"""The table of results, under a head that says what was measured and where."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence

from vlmbench import measure
from vlmbench.speed.contest import Contest, Result

# What makes matrix products of small numbers fast, as torch names it.
_UNITS = ("amx_bf16", "amx_int8", "avx512_bf16", "avx512_vnni")


def machine(device: str) -> str:
    """What times are taken on: its name, what a CPU has for small numbers, threads and load."""
    import torch

    told = measure.environment(device)
    if device.startswith("cuda"):
        return f"{told['device_name']}, driver {told['driver']}, torch {told['torch']}"
    has = torch.cpu.get_capabilities()
    units = ", ".join(unit if has.get(unit) else f"no {unit}" for unit in _UNITS)
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return f"{told['cpu']} ({units}), {told['threads']} threads{load}, torch {told['torch']}"


def render(results: Sequence[Result], contest: Contest, head: str) -> str:
    """A line for each recipe; `x` is how many times as fast as the base it is."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("recipe", no_wrap=True)
    sizes = ["weights MB", *(["peak MB"] if any(result.peak_bytes for result in results) else [])]
    decode, prefill = ("decode ms", "tokens/s", "x", "floor"), ("prefill ms", "x", "floor")
    for column in (*sizes, *decode, *prefill):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("product", no_wrap=True)
    for result in results:
        table.add_row(*_row(result))
    out = io.StringIO()
    # Wider than any table: what is wider than a terminal is for it to break, not for us to cut.
    Console(file=out, width=300, highlight=False).print(table)
    return (
        f"{head}\nrandom weights, {contest.shape}\nx: times as fast as {contest.base}; decode "
        f"behind {contest.start} tokens, prefill of {contest.prompt}\n\n{out.getvalue()}"
    )


def _row(result: Result) -> list[str]:
    made, speed, floors = result.made, result.speed, result.floors
    bytes_of = [result.weight_bytes, *([result.peak_bytes] if result.peak_bytes else [])]
    return [
        result.recipe,
        *(f"{count / 1e6:.0f}" for count in bytes_of),
        f"{1e3 * made.decode_s_per_token:.2f}",
        f"{1 / made.decode_s_per_token:.1f}",
        *_against(speed.decode, floors.decode),
        f"{1e3 * made.prefill_s:.0f}",
        *_against(speed.prefill, floors.prefill),
        result.product,
    ]


def _against(ratio: float | None, floor: float | None) -> tuple[str, str]:
    assert ratio is not None, "both were measured"
    if floor is None:
        return f"{ratio:.2f}", ""
    return f"{ratio:.2f}", f"{floor:.1f} missed" if ratio < floor else f"{floor:.1f}"

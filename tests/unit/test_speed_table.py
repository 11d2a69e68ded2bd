"""The harness of the speed table, on a network so small that its times mean nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from vlmbench import catalogue, measure, selection
from vlmbench.spec import Mixture
from vlmbench.speed import __main__ as command
from vlmbench.speed.contest import CPU, CUDA, Result, Shape, Speed, Times
from vlmbench.speed.network import RandomTokens, prompt
from vlmbench.speed.rig import Rig
from vlmbench.speed.table import machine, render

SMALL = Shape(hidden=128, mlp=256, heads=2, kv_heads=1, layers=4, vocabulary=704)
CONTEST = replace(CPU, shape=SMALL, prompt=24, start=4, steps=2)
# What the census must find in the decoder, and the most bytes it may take, of the base's.
STORED = {
    "16bit": ("bfloat16", 0.5),
    "8bit": ("int8", 0.27),
    "4bit": ("nf4", 0.15),
    "awq_w4a16": ("int4", 0.14),
    "sq_w8a8_tensor": ("int8", 0.27),
    "sq_w8a8_token": ("int8", 0.27),
    "sq_w8a8_group": ("int8", 0.27),
    "sq_w4a4_group": ("int4", 0.14),
    "depth50": ("float32", 0.5),
    "lowrank50": ("float32", 0.7),
}


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Rig:
    return Rig(CONTEST, tmp_path_factory.mktemp("speed"))


@pytest.fixture(scope="module")
def base(rig: Rig) -> Any:
    return rig.variant("32bit")


@pytest.mark.parametrize("recipe", CPU.recipes)
def test_each_recipe_is_really_applied(rig: Rig, base: Any, recipe: str) -> None:
    made = rig.variant(recipe)
    kind, share = STORED[recipe]
    held, whole = (one.census.components["decoder"] for one in (made, base))
    assert set(held.linears) == {kind}
    assert held.weight_bytes + held.state_bytes <= share * whole.weight_bytes
    assert rig.prefill(made) > 0


def test_layers_are_dropped_and_linears_factorized(rig: Rig) -> None:
    from vlmbench.layers import Factors

    shorter = rig.variant("depth50").network.model.language_model.layers
    assert len(shorter) == SMALL.layers // 2
    factors = [m for m in rig.variant("lowrank50").network.modules() if isinstance(m, Factors)]
    assert len(factors) == 3 * 7  # the last quarter of the layers is spared


def test_all_recipes_are_known() -> None:
    known = catalogue.compressions()
    for contest in (CPU, CUDA):
        for name in (contest.base, *contest.recipes):
            assert selection.compression(name, known).name == name


def test_on_a_gpu_all_floats_are_bfloat16() -> None:
    known = catalogue.compressions()
    for name in (CUDA.base, *CUDA.recipes):
        assert selection.compression(name, known).storage("decoder") != "float32"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Time as `generate` tells it: who ran, in order."""
    ran: list[str] = []

    def timed(work: Callable[[], object], *, device: str) -> float:
        work()
        name, seconds = ran[-1].split()
        ran[-1] = name
        return float(seconds)

    monkeypatch.setattr(measure, "timed", timed)
    return ran


def fake(clock: list[str], name: str, step_s: float) -> Any:
    """Takes a second for ten tokens of prompt and `step_s` for each new one, but at first more."""

    def generate(inputs: Any, *, max_new_tokens: int, min_new_tokens: int) -> None:
        assert min_new_tokens == max_new_tokens
        seconds = inputs["input_ids"].shape[1] / 10 + step_s * max_new_tokens
        first = name not in clock
        clock.append(f"{name} {100 * seconds if first else seconds}")

    return SimpleNamespace(generate=generate)


def test_decode_is_what_each_later_token_takes(rig: Rig, clock: list[str]) -> None:
    (times,) = rig.in_turns([fake(clock, "a", 0.5)], 3)
    assert times.prefill_s == pytest.approx(2.4 + 0.5)  # the first run does not count
    assert times.decode_s_per_token == pytest.approx(0.5)


def test_variants_take_turns(rig: Rig, clock: list[str]) -> None:
    both = [fake(clock, "a", 0.5), fake(clock, "b", 0.25)]
    slow, fast = rig.in_turns(both, 2)
    assert "".join(clock) == "aaabbb" * 3
    assert slow.decode_s_per_token / fast.decode_s_per_token == pytest.approx(2.0)


def test_one_slow_round_changes_nothing(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rounds = iter([9.0, 1.0, 50.0, 1.0, 2.0, 1.5])  # a warm-up, then five
    monkeypatch.setattr(Rig, "prefill", lambda rig, variant: next(rounds))
    monkeypatch.setattr(Rig, "decode", lambda rig, variant: 1.0)
    one: Any = object()
    assert rig.in_turns([one], 5) == [Times(1.5, 1.0)]


def result(decode_s: float = 0.5, **more: Any) -> Result:
    floors, before, after = Speed(2.0, 3.0), Times(6.0, 1.0), Times(2.0, decode_s)
    return Result("some", floors, before, after, 10**6, "int4pack", **more)


def test_speed_is_the_base_over_the_recipe() -> None:
    assert result().speed == Speed(decode=2.0, prefill=3.0)
    assert result().to_dict()["speed"] == {"decode": 2.0, "prefill": 3.0}


def test_the_table_tells_what_misses_its_floor() -> None:
    told = render([result()], CONTEST, "here")
    assert "missed" not in told and "some" in told and "peak" not in told
    assert told.rstrip().endswith("int4pack")
    assert told.startswith("here\nrandom weights, 128 wide, 4 layers")
    told = render([result(0.51)], CONTEST, "here")
    assert told.count("missed") == 1 and "1.96" in told
    assert "peak MB" in render([result(peak_bytes=3 * 10**6)], CONTEST, "here")


def test_the_table_cuts_nothing() -> None:
    long = {
        "recipe": "depth50_ft_on_vqav2+awq_w4a16",
        "product": "int8 x int8 of unpacked int4",
    }
    told = render([replace(result(9.0, peak_bytes=3 * 10**9), **long)], CONTEST, "here")
    assert "\u2026" not in told and all(what in told for what in long.values())


def test_the_head_tells_what_the_machine_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_vnni": True})
    assert "(no amx_bf16, no amx_int8, no avx512_bf16, avx512_vnni)" in machine("cpu")


def test_the_command(rig: Rig, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(command, "CPU", CONTEST)
    options = ["--compression", "16bit", "--rounds", "1", "--keep", str(rig.folder)]
    assert command.main([*options, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [row["recipe"] for row in told["results"]] == ["16bit"]
    assert told["contest"]["shape"]["hidden"] == 128
    assert told["results"][0]["floors"] == {"decode": None, "prefill": 3.0}
    assert told["results"][0]["product"] == "bfloat16"
    assert command.main(options) == 0
    assert "16bit" in capsys.readouterr().out


def test_random_tokens_are_seeded_and_not_special(tmp_path: Path) -> None:
    import torch

    from vlmbench.embedded.vocabulary import SIZE

    ids = prompt(704, 500, seed=1)
    assert torch.equal(ids, prompt(704, 500, seed=1)) and ids.min() >= SIZE and ids.max() < 704
    assert not torch.equal(ids, prompt(704, 500, seed=2))
    some = RandomTokens(704, tmp_path).batches(Mixture(samples=64))
    assert [batch["input_ids"].shape for batch in some] == [(1, 64), (1, 64)]

"""Every recipe's prefill and decode beside the uncompressed model's, on random weights.

Asked for with `-m speed`; makes every recipe first, which takes minutes. The ratio is in
`extra_info`, of rounds in which both were measured in turn; it is told, not judged.
"""

from statistics import median

import pytest

from vlmbench.speed.contest import CPU, CUDA
from vlmbench.speed.rig import Rig
from vlmbench.speed.table import machine

PHASES = ("prefill", "decode")
ROUNDS = 5

pytestmark = pytest.mark.speed


def contest_on(config):
    return CUDA if config.getoption("device").startswith("cuda") else CPU


def pytest_generate_tests(metafunc):
    if "made" in metafunc.fixturenames:
        metafunc.parametrize("made", contest_on(metafunc.config).recipes, indirect=True)


@pytest.fixture(scope="module")
def rig(pytestconfig, tmp_path_factory):
    device = pytestconfig.getoption("device")
    return Rig(contest_on(pytestconfig), tmp_path_factory.mktemp("speed"), device)


@pytest.fixture(scope="module")
def base(rig):
    return rig.variant(rig.contest.base)


@pytest.fixture(scope="module")
def made(rig, base, request):
    return rig.variant(request.param)


@pytest.mark.parametrize("phase", PHASES)
def test_speed(benchmark, rig, base, made, phase):
    seconds = getattr(rig, phase)
    before, after = [], []
    for variant in (base, made):
        seconds(variant)
    benchmark.group = f"speed of {phase}"
    benchmark.pedantic(
        lambda: after.append(seconds(made)),
        setup=lambda: before.append(seconds(base)),
        rounds=ROUNDS,
    )
    floors = rig.contest.recipes[made.compression.name]
    benchmark.extra_info.update(
        seconds=median(after),
        times_as_fast=median(before) / median(after),
        floor=getattr(floors, phase),
        base=rig.contest.base,
        network=f"random weights, {rig.contest.shape}",
        machine=machine(rig.device),
    )

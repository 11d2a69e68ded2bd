"""Training stops and goes on as if it had never stopped, and leaves nothing half done."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from vlmbench import training
from vlmbench.errors import CheckpointError, NumericsError
from vlmbench.training import Plan, train


class Net(nn.Module):
    """A lookup, a matrix and a bias: something for each optimizer."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed_tokens = nn.Embedding(5, width)
        self.linear = nn.Linear(width, 5)

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        logits = self.linear(self.embed_tokens(batch["ids"]))
        return nn.functional.cross_entropy(logits * batch["scale"], batch["next"])


def part_at(step: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(step)
    ids = torch.randint(5, (6,), generator=generator)
    return {"ids": ids, "next": (ids + 1) % 5, "scale": torch.tensor(1.0)}


def batch_at(step: int) -> list[dict[str, Tensor]]:
    return [part_at(step)]


def poisoned_at(step: int) -> list[dict[str, Tensor]]:
    return [part_at(step) | ({"scale": torch.tensor(float("nan"))} if step == 5 else {})]


def halved_at(step: int) -> list[dict[str, Tensor]]:
    whole = part_at(step)
    return [
        {name: tensor[half] if tensor.ndim else tensor for name, tensor in whole.items()}
        for half in (slice(3), slice(3, 6))
    ]


PLANS = {
    "adamw": Plan(9, adamw_rate=0.02, warmup=3, save_every=2),
    "muon": Plan(9, muon_rate=0.02, adamw_rate=0.02, warmup=3, save_every=2),
    "half": Plan(9, muon_rate=0.02, adamw_rate=0.02, warmup=3, save_every=2, half=True),
}


def taught(plan: Plan, folder: Path, **options: Any) -> tuple[Net, dict[int, float]]:
    net, losses = Net(), {}
    train(net, batch_at, net.loss, plan, folder=folder, watch=losses.__setitem__, **options)
    return net, losses


def equal(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("name", PLANS)
def test_resuming_equals_never_stopping(name: str, tmp_path: Path) -> None:
    def stop(step: int, loss: float) -> None:
        if step == 6:
            raise KeyboardInterrupt

    whole, losses = taught(PLANS[name], tmp_path / "whole")
    stopped = Net()
    with pytest.raises(KeyboardInterrupt):
        train(stopped, batch_at, stopped.loss, PLANS[name], folder=tmp_path / "stopped", watch=stop)
    resumed, later = taught(PLANS[name], tmp_path / "stopped")
    assert list(later) == [6, 7, 8]
    assert later.items() <= losses.items()
    assert equal(resumed, whole)
    assert not equal(resumed, Net())
    assert whole.loss(part_at(0)) < 0.9 * Net().loss(part_at(0))
    assert not resumed.training


@pytest.mark.parametrize("name", PLANS)
def test_a_finished_training_is_not_repeated(name: str, tmp_path: Path) -> None:
    whole, _ = taught(PLANS[name], tmp_path)
    again, losses = taught(PLANS[name], tmp_path)
    assert equal(again, whole) and losses == {}


def test_a_batch_in_parts_teaches_what_the_whole_does(tmp_path: Path) -> None:
    whole, losses = taught(PLANS["adamw"], tmp_path / "whole")
    net, halves = Net(), {}
    folder = tmp_path / "halves"
    train(net, halved_at, net.loss, PLANS["adamw"], folder=folder, watch=halves.__setitem__)
    assert halves == pytest.approx(losses, rel=1e-4)
    for one, other in zip(net.parameters(), whole.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-4)


def test_without_a_worker_it_teaches_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, losses = taught(PLANS["adamw"], tmp_path / "forked")
    monkeypatch.setattr(training, "get_start_method", lambda: "spawn")
    monkeypatch.setattr(os, "fork", lambda: pytest.fail("a worker was forked"))
    alone, again = taught(PLANS["adamw"], tmp_path / "alone")
    assert equal(alone, whole) and again == losses


def test_what_is_frozen_stays(tmp_path: Path) -> None:
    net = Net()
    net.embed_tokens.requires_grad_(False)
    train(net, batch_at, net.loss, PLANS["muon"], folder=tmp_path)
    assert torch.equal(net.embed_tokens.weight, Net().embed_tokens.weight)
    assert not torch.equal(net.linear.weight, Net().linear.weight)


def test_a_loss_that_is_no_number_stops_it(tmp_path: Path) -> None:
    net = Net()
    with pytest.raises(NumericsError, match="the loss of step 5 is nan: lower the rate"):
        train(net, poisoned_at, net.loss, PLANS["muon"], folder=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["state.safetensors"]
    resumed, later = taught(PLANS["muon"], tmp_path)
    assert min(later) == 4
    assert all(parameter.isfinite().all() for parameter in resumed.parameters())


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_where_no_state_can_be_kept_it_goes_on(
    plan: Plan, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole, _ = taught(plan, tmp_path / "kept")
    (tmp_path / "file").touch()
    unkept, _ = taught(plan, tmp_path / "file" / "folder")
    assert equal(unkept, whole)
    assert "goes on, but what it has reached by step" in caplog.text


def test_a_disk_that_fills_up_leaves_the_last_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: list[Path] = []

    def full(tensors: Any, path: Path, **more: Any) -> None:
        save_file(tensors, path, **more)
        saved.append(path)
        if len(saved) > 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(training, "save_file", full)
    taught(PLANS["adamw"], tmp_path)
    assert len(saved) > 1
    assert [path.name for path in tmp_path.iterdir()] == ["state.safetensors"]


@pytest.mark.parametrize("other", [Net(4), nn.Sequential(Net())])
def test_the_state_of_another_network_is_refused(other: nn.Module, tmp_path: Path) -> None:
    taught(PLANS["adamw"], tmp_path)
    before = [parameter.clone() for parameter in other.parameters()]
    with pytest.raises(CheckpointError, match=r"state\.safetensors was saved by another network"):
        train(other, batch_at, lambda batch: torch.tensor(0.0), PLANS["adamw"], folder=tmp_path)
    assert all(map(torch.equal, before, other.parameters()))


@pytest.mark.parametrize("harm", ["cut", "foreign", "unnumbered"])
def test_a_damaged_state_is_refused(harm: str, tmp_path: Path) -> None:
    taught(PLANS["adamw"], tmp_path)
    path = tmp_path / "state.safetensors"
    whole = path.read_bytes()
    if harm == "unnumbered":
        save_file({"network.weight": torch.zeros(1)}, path)
    else:
        path.write_bytes(whole[: len(whole) // 2] if harm == "cut" else b"no tensors")
    with pytest.raises(CheckpointError, match=r"state\.safetensors is no state of a training"):
        taught(PLANS["adamw"], tmp_path)


def test_an_interrupted_save_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = training.save_file

    def half(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
        if metadata["done"] == "6":
            path.write_bytes(b"half")
            raise KeyboardInterrupt
        saved(tensors, path, metadata=metadata)

    whole, _ = taught(PLANS["muon"], tmp_path / "whole")
    with monkeypatch.context() as patched:
        patched.setattr(training, "save_file", half)
        with pytest.raises(KeyboardInterrupt):
            taught(PLANS["muon"], tmp_path / "stopped")
    resumed, later = taught(PLANS["muon"], tmp_path / "stopped")
    assert min(later) == 4
    assert equal(resumed, whole)


def test_the_rate_rises_and_falls() -> None:
    plan = Plan(steps=100, warmup=10, floor=0.1)
    scales = [plan.scale(step) for step in range(110)]
    assert scales[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert scales[10] == 1.0
    assert scales[55] == pytest.approx(0.55)
    assert scales[10:] == sorted(scales[10:], reverse=True)
    assert scales[100:] == pytest.approx([0.1] * 10)
    assert Plan(steps=5, warmup=0).scale(0) == 1.0
    assert Plan(steps=5, warmup=10).scale(4) == 0.5


def test_half_products_of_whole_weights(tmp_path: Path) -> None:
    """What is learnt differs by a rounding, and stays float32."""
    (net, losses), (half, rounded) = (taught(PLANS[n], tmp_path / n) for n in ("muon", "half"))
    assert not equal(net, half) and {p.dtype for p in half.parameters()} == {torch.float32}
    assert rounded == pytest.approx(losses, rel=0.02) and rounded != losses

"""The decoder learns what is answered, the same each time, and nothing else changes."""

from __future__ import annotations

import copy
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch
from lessons import QUICK, changed, mean_loss, taught
from subjects import Subjects
from torch import nn

from vlmbench import finetuning
from vlmbench.catalogue import compressions, models
from vlmbench.compression.finetune import FT, LORA, FineTune
from vlmbench.compression.lowrank import LOWRANK80
from vlmbench.compression.sparsity import PRUNE24
from vlmbench.errors import UsageError
from vlmbench.finetuning import answer_loss
from vlmbench.layers import Factors
from vlmbench.packed_sparse import in_pattern
from vlmbench.prompting import IGNORED
from vlmbench.pruning import zeros_kept
from vlmbench.spec import Maker, Mixture


def test_are_makers_that_promise_float32() -> None:
    single = {f"ft_on_{name}": (name,) for name in models()["qwen2"].datasets}
    recipes = [compressions()[name] for name in ("ft", "lora", *single)]
    assert recipes[:2] == [FT, LORA]
    assert all(isinstance(one, Maker) and one.storage("decoder") == "float32" for one in recipes)
    assert [one.mixture.datasets for one in recipes] == [(), (), *single.values()]


@pytest.mark.parametrize("share", [0.25, 1.0, 4.0])
def test_a_wider_decoder_takes_smaller_steps(
    share: float, subjects: Subjects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject, plans = subjects.of("qwen2"), []
    width = subject.network.config.text_config.hidden_size
    monkeypatch.setattr(FineTune, "width", int(share * width))
    monkeypatch.setattr(
        finetuning, "train", lambda network, at, loss, plan, **more: plans.append(plan)
    )
    for begun in (subject.network, subjects.made("qwen2", LOWRANK80)):
        taught(QUICK, subject, tmp_path, begun)
    assert [plan.adamw_rate for plan in plans] == [QUICK.rate * min(1.0, share)] * 2


@pytest.mark.parametrize("name", ["qwen2", "phi3_5", "blip2"])
def test_the_decoder_learns_and_nothing_else_changes(
    subjects: Subjects, name: str, tmp_path: Path
) -> None:
    subject = subjects.of(name)
    network = taught(QUICK, subject, tmp_path)
    inside = subject.anatomy.layers + "."
    matrices = {
        f"{name}.weight"
        for name, module in network.named_modules()
        if name.startswith(inside) and isinstance(module, nn.Linear)
    }
    learnt = changed(network, subject.network)
    assert matrices <= learnt and all(name.startswith(inside) for name in learnt)
    before, after = (mean_loss(one, subject.data.inputs) for one in (subject.network, network))
    assert after < 0.95 * before
    assert not network.training
    asked = [dict(one.named_parameters()) for one in (subject.network, network)]
    assert all(asked[0][n].requires_grad == p.requires_grad for n, p in asked[1].items())


def test_the_same_twice_and_another_with_another_seed(subjects: Subjects, tmp_path: Path) -> None:
    subject, other = subjects.of("qwen2"), replace(QUICK, mixture=Mixture(seed=1))
    recipes = {"a": QUICK, "b": QUICK, "c": other}
    one, two, three = (taught(r, subject, tmp_path / n) for n, r in recipes.items())
    assert not changed(one, two) and changed(one, three)


def test_goes_on_as_if_it_had_never_stopped(
    subjects: Subjects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With dropout, too, which a published decoder may have."""
    subject = subjects.of("qwen2")
    begun = copy.deepcopy(subject.network)
    for layer in begun.get_submodule(subject.anatomy.layers):
        layer.self_attn.attention_dropout = 0.3
    monkeypatch.setattr(finetuning, "_SAVE_EVERY", 4)
    whole = taught(QUICK, subject, tmp_path / "whole", begun)

    def stop(step: int, loss: float) -> None:
        if step == 6:
            raise KeyboardInterrupt

    monkeypatch.setattr(finetuning, "_bar", lambda name, steps: nullcontext(stop))
    with pytest.raises(KeyboardInterrupt):
        taught(QUICK, subject, tmp_path / "stopped", begun)
    seen: list[int] = []
    monkeypatch.setattr(
        finetuning, "_bar", lambda name, steps: nullcontext(lambda step, loss: seen.append(step))
    )
    resumed = taught(QUICK, subject, tmp_path / "stopped", begun)
    assert seen == list(range(4, 12))
    assert not changed(resumed, whole)
    assert changed(whole, taught(QUICK, subject, tmp_path / "without"))


@pytest.mark.parametrize("unwatched", ["", "CI", "PYTEST_XDIST_WORKER"])
def test_a_bar_passes_pytests_capture(
    unwatched: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    for name in ("CI", "PYTEST_XDIST_WORKER"):
        monkeypatch.setenv(name, "1" if name == unwatched else "")
    terminal = tmp_path / "tty"
    terminal.touch()
    monkeypatch.setattr(finetuning, "_TERMINAL", terminal)
    with finetuning._bar("ft", 2) as watch:
        for step in range(2):
            watch(step, 0.5)
    shown = terminal.read_text()
    assert ("ft:   0%" in shown) == (unwatched == "")
    assert ("ft:   0%" in capfd.readouterr().err) == (unwatched != "")
    monkeypatch.setattr(finetuning, "_TERMINAL", tmp_path)  # there is none
    with finetuning._screen() as screen:
        assert screen is sys.stderr


def test_factors_learn(subjects: Subjects, tmp_path: Path) -> None:
    subject, begun = subjects.of("qwen2"), subjects.made("qwen2", LOWRANK80)
    network = taught(QUICK, subject, tmp_path, begun)
    factors = {
        f"{name}.{i}.weight"
        for name, module in network.named_modules()
        if isinstance(module, Factors)
        for i in (0, 1)
    }
    assert factors and factors <= changed(network, begun)


def test_zeros_of_a_pruned_decoder_stay(subjects: Subjects, tmp_path: Path) -> None:
    """Or `prune24_ft` would be a dense network; what is not pruned learns whole."""
    subject, begun = subjects.of("qwen2"), copy.deepcopy(subjects.made("qwen2", PRUNE24))
    inside = subject.anatomy.layers + "."
    whole = begun.get_submodule(f"{inside}0.mlp.up_proj").weight
    whole.data.fill_(0.01)
    network = taught(QUICK, subject, tmp_path, begun)
    weights = {n: p for n, p in network.named_parameters() if n.startswith(inside) and p.ndim == 2}
    assert set(weights) <= changed(network, begun)
    old = dict(begun.named_parameters())
    for name, weight in weights.items():
        zeros = old[name] == 0
        assert (weight[zeros] == 0).all() and (weight[~zeros] != 0).float().mean() > 0.99
        assert in_pattern(weight) == (name != f"{inside}0.mlp.up_proj.weight")
    assert all(not p._backward_hooks for p in network.parameters())


def test_low_rank_updates_of_a_pruned_decoder_are_refused(
    subjects: Subjects, tmp_path: Path
) -> None:
    subject, begun = subjects.of("qwen2"), subjects.made("qwen2", PRUNE24)
    with pytest.raises(UsageError, match=r"would fill the zeros of 42 linears.*\(ft\)"):
        taught(replace(QUICK, lora_rank=2), subject, tmp_path, begun)


@pytest.mark.parametrize("weight", [torch.zeros(2, 6), torch.ones(2, 8), torch.ones(8)])
def test_no_pattern(weight: torch.Tensor) -> None:
    assert not in_pattern(weight)


def test_what_starts_as_zeros_learns() -> None:
    linear = torch.nn.Linear(8, 2)
    torch.nn.init.zeros_(linear.weight)
    with zeros_kept(linear) as held:
        assert held == 0


def test_an_answer_counts_as_the_root_of_its_length(subjects: Subjects) -> None:
    """Token by token; padding and prompts count nothing."""
    subject = subjects.of("qwen2")
    inputs = subject.padded
    with torch.no_grad():
        shown = {name: value for name, value in inputs.items() if name != "labels"}
        told = subject.network(**shown).logits.double().log_softmax(-1)
    losses = [
        [
            -told[row, place - 1, token].item()
            for place, token in enumerate(labels)
            if token != IGNORED
        ]
        for row, labels in enumerate(inputs["labels"].tolist())
    ]
    lengths = [len(row) for row in losses]
    assert len(set(lengths)) == 2 and sum(lengths) < inputs["labels"].numel() // 2
    expected = sum(fmean(row) * len(row) ** 0.5 for row in losses) / sum(n**0.5 for n in lengths)
    assert mean_loss(subject.network, [inputs]) == pytest.approx(expected, rel=1e-5)


def test_the_loss_of_one_answer_is_that_of_transformers(subjects: Subjects) -> None:
    subject = subjects.of("qwen2")
    inputs = subject.data.inputs[0]
    torch.testing.assert_close(
        answer_loss(subject.network, inputs).detach(),
        subject.network(**inputs).loss.detach(),
        rtol=1e-5,
        atol=0,
    )


def test_lora_without_peft_says_what_to_install(
    subjects: Subjects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(UsageError, match=r"pip install 'vlmbench\[lora\]'"):
        taught(LORA, subjects.of("qwen2"), tmp_path)


def test_lora_leaves_plain_linears(subjects: Subjects, tmp_path: Path) -> None:
    subject = subjects.of("qwen2")
    network = taught(replace(LORA, epochs=3, rate=2e-2), subject, tmp_path)
    inside = subject.anatomy.layers + "."
    kinds = {type(m) for n, m in network.named_modules() if n.endswith("_proj")}
    assert kinds == {nn.Linear}
    learnt: Any = changed(network, subject.network)  # of the same names in the same order
    assert learnt == {
        f"{name}.weight"
        for name, module in network.named_modules()
        if name.startswith(inside) and isinstance(module, nn.Linear)
    }
    for name in learnt:  # by a matrix of low rank
        delta = network.state_dict()[name] - subject.network.state_dict()[name]
        singular = torch.linalg.svdvals(delta)
        assert singular[8] < 1e-3 * singular[0]
    assert mean_loss(network, subject.data.inputs) < mean_loss(subject.network, subject.data.inputs)

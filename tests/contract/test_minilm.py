"""The recipes on the linears of a network that was trained on text by others: MiniLM's encoder.

Its accuracy is not what a recipe is for; the error of each linear's output is, on text that it
was not calibrated on. A linear stands alone in a network of one layer, behind a scale for factors
to be folded into: BERT's own norms also feed what is added to the output.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pydoc_data import topics
from statistics import fmean
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import PretrainedConfig

from vlmbench.anatomy import SMOOTHING, Anatomy, Feed
from vlmbench.catalogue import compressions
from vlmbench.metrics._encoder import MINILM, load

ALONE = Anatomy(
    vision=(),
    projector=(),
    decoder="layers",
    layers="layers",
    head="head",
    feeds=(Feed("scale", ("block.linear",), "block"),),
    smoothing=0.5,
)
"""Smoothed as OPT is, which has such norms and biases, too."""
ROUNDED = ("awq_w4a16", "awqs2_w4a16", "rtn_w4a16")
COARSE = ("awq_w3a16", "rtn_w3a16")
INTEGER = ("sq_w8a8_group", "sq_w8a8_token", "sq_w8a8_tensor", "w8a8_tensor")
LAYERS = (0, 3, 5)
TEXTS, TOKENS = 24, 96


class Scale(nn.Module):
    """A factor for each channel, 1 at first: what a norm's weight is to the linears it feeds."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs * self.weight


class Layer(nn.Module):
    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.scale = Scale(linear.in_features)
        self.block = nn.Sequential()
        self.block.add_module("linear", nn.Linear(linear.in_features, linear.out_features))
        self.block.load_state_dict({f"linear.{k}": v for k, v in linear.state_dict().items()})

    def forward(self, inputs: Tensor) -> Any:
        return self.block(self.scale(inputs))


class Alone(nn.Module):
    """One linear as a network of one layer."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.layers = nn.ModuleList([Layer(linear)])
        self.head = nn.Identity()
        self.config = PretrainedConfig()

    def forward(self, input_ids: Tensor, hidden: Tensor, use_cache: bool = False) -> Any:
        return self.layers[0](hidden)


def paragraphs() -> Iterator[str]:
    """English prose that comes with Python."""
    for name in sorted(topics.topics):
        yield from (part for part in topics.topics[name].split("\n\n") if len(part.split()) > 30)


Seen = list[tuple[nn.Linear, Tensor, Tensor]]


@pytest.fixture(scope="module")
def seen() -> Seen:
    """Linears of some layers, their inputs [tokens, dim] on two different texts."""
    model, tokenizer = load(MINILM)
    texts = list(paragraphs())[::7]
    linears = {
        f"{index}.{name}": part
        for index in LAYERS
        for name, part in model.encoder.layer[index].named_modules()
        if type(part) is nn.Linear
    }

    def inputs(texts: list[str]) -> dict[str, Tensor]:
        made: dict[str, Tensor] = {}
        batch = tokenizer(
            texts, return_tensors="pt", padding=True, truncation=True, max_length=TOKENS
        )
        real = batch["attention_mask"].bool()

        def take(name: str) -> Any:
            return lambda module, args: made.update({name: args[0][real]})

        hooks = [part.register_forward_pre_hook(take(name)) for name, part in linears.items()]
        with torch.inference_mode():
            model(**batch)
        for hook in hooks:
            hook.remove()
        return {name: tensor.clone() for name, tensor in made.items()}

    calibrated, held_out = inputs(texts[:TEXTS]), inputs(texts[TEXTS : 2 * TEXTS])
    return [(linears[name], calibrated[name], held_out[name]) for name in linears]


@torch.no_grad()
def mean_error(seen: Seen, recipe: str, anatomy: Anatomy = ALONE) -> float:
    """Squared error of a linear's output under a recipe, in shares of the output's variance."""
    found = []
    for linear, calibrated, held_out in seen:
        network, wanted = Alone(linear), linear(held_out)
        ids = torch.zeros(1, len(calibrated), dtype=torch.long)
        batch: Mapping[str, Tensor] = {"input_ids": ids, "hidden": calibrated[None]}
        data = SimpleNamespace(batches=lambda mixture, size=1, batch=batch: [batch])
        made: Any = compressions()[recipe]
        made.make(network, anatomy, data)
        missed = (network.layers[0](held_out) - wanted).square().sum()
        found.append(float(missed / (wanted - wanted.mean(0)).square().sum()))
    return fmean(found)


@pytest.fixture(scope="module")
def mean_errors(seen: Seen) -> dict[str, float]:
    recipes = (*ROUNDED, *COARSE, *INTEGER, "sq_w4a4_group")
    return {recipe: mean_error(seen, recipe) for recipe in recipes}


@pytest.mark.parametrize("order", [ROUNDED, COARSE, INTEGER, ("sq_w8a8_group", "sq_w4a4_group")])
def test_methods_rank_as_on_the_embedded_checkpoint(
    mean_errors: dict[str, float], order: tuple[str, ...]
) -> None:
    """AWQ before a fixed factor before rounding; finer scales before coarser ones."""
    found = [mean_errors[recipe] for recipe in order]
    assert all(error > 0 for error in found)
    assert found == sorted(found), dict(zip(order, found, strict=True))


def test_smoothed_as_a_llama_is_one_scale_a_tensor_gets_worse(
    seen: Seen, mean_errors: dict[str, float]
) -> None:
    """Its activations have no such outliers: their range, moved into weights, is missed there.

    With a scale for every token and row it does not matter which of the two is wide.
    """
    as_llama = replace(ALONE, smoothing=SMOOTHING)
    assert mean_error(seen, "sq_w8a8_tensor", as_llama) > 2 * mean_errors["w8a8_tensor"]
    assert mean_error(seen, "sq_w8a8_token", as_llama) < mean_errors["w8a8_tensor"] / 10

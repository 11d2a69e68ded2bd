"""A shorter decoder is a whole network: caches, configurations and saved folders follow."""

from __future__ import annotations

import copy
import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from subjects import NAMES, WRITERS, Given, Subjects, generated, seen

from vlmbench.compression.depth import DEPTH25BI, DEPTH50, DEPTH50BI, Depth, LeastInfluence
from vlmbench.errors import UsageError
from vlmbench.factorizing import factorized, split
from vlmbench.layers import FIELD, put
from vlmbench.pruning import block_influence, keep_layers
from vlmbench.spec import Maker

RECIPES = (DEPTH50, DEPTH50BI, DEPTH25BI)
NO_DATA = Given([])


def layers_of(network: Any, subject: Any) -> Any:
    return network.get_submodule(subject.anatomy.layers)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_is_a_maker_that_promises_float32(recipe: Depth) -> None:
    assert isinstance(recipe, Maker)
    assert recipe.storage("decoder") == "float32"
    assert [recipe.name for recipe in RECIPES] == ["depth50", "depth50bi", "depth25bi"]


@pytest.mark.parametrize("name", NAMES)
def test_every_other_layer_stays_as_it_was(subjects: Subjects, name: str) -> None:
    subject = subjects.of(name)
    old = layers_of(subject.network, subject)
    new = layers_of(subjects.made(name, DEPTH50), subject)
    assert len(new) == (len(old) + 1) // 2
    for i, layer in enumerate(new):
        before = old[2 * i].state_dict()
        assert all(torch.equal(value, before[key]) for key, value in layer.state_dict().items())


@pytest.mark.parametrize("name", NAMES)
def test_indices_and_configurations_follow(subjects: Subjects, name: str) -> None:
    network = subjects.made(name, DEPTH50BI)
    anatomy = subjects.of(name).anatomy
    layers = network.get_submodule(anatomy.layers)
    told = [m.layer_idx for layer in layers for m in layer.modules() if hasattr(m, "layer_idx")]
    assert told == ([] if name == "clip" else list(range(len(layers))))
    decoder = network.get_submodule(anatomy.decoder)
    modules = [m.config for m in network.modules() if hasattr(m, "config")]
    configs = [network.config.get_text_config(), decoder.config, *modules]
    for config in [c for c in configs if type(c) is type(decoder.config)]:
        assert config.num_hidden_layers == len(layers)
        assert len(getattr(config, "layer_types", None) or layers) == len(layers)
    whole = subjects.of(name).network
    assert whole.config.get_text_config().num_hidden_layers > len(layers)


def test_a_configuration_of_its_own_follows(subjects: Subjects) -> None:
    """Wherever around the layers it is kept: a decoder may have been given a copy."""
    subject = subjects.of("blip2")
    network = copy.deepcopy(subject.network)
    decoder = network.get_submodule(subject.anatomy.decoder)
    decoder.config = copy.deepcopy(decoder.config)
    DEPTH50.make(network, subject.anatomy, NO_DATA)
    configs = (network.config.text_config, network.language_model.config, decoder.config)
    left = len(decoder.layers)
    assert [config.num_hidden_layers for config in configs] == [left] * 3


def test_what_is_told_of_each_layer_follows(subjects: Subjects) -> None:
    """As which layers turn by position; what is no list of layers stays."""
    subject = subjects.of("qwen2")
    network = copy.deepcopy(subject.network)
    config = network.get_submodule(subject.anatomy.decoder).config
    count = config.num_hidden_layers
    told = {"kinds": list(range(count)), "pair": tuple("abcdefgh"[:count]), "other": [1] * 99}
    for name, value in told.items():
        setattr(config, name, value)
    DEPTH50.make(network, subject.anatomy, NO_DATA)
    kept = range(0, count, 2)
    assert config.kinds == list(kept) and config.other == told["other"]
    assert config.pair == tuple(told["pair"][i] for i in kept)


@pytest.mark.parametrize("name", WRITERS)
def test_generates_with_a_cache_as_without(subjects: Subjects, name: str) -> None:
    network = subjects.made(name, DEPTH50)
    for inputs in subjects.of(name).data.inputs[:2]:
        cached, uncached = (generated(network, inputs, use_cache=use) for use in (True, False))
        assert cached == uncached and len(cached[0]) == 8


@pytest.mark.parametrize("name", NAMES)
def test_a_saved_folder_is_the_same_network(subjects: Subjects, name: str, tmp_path: Path) -> None:
    network, subject = subjects.made(name, DEPTH50BI), subjects.of(name)
    again, report = subject.reloaded(network, tmp_path)
    assert not any(report[what] for what in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert torch.equal(seen(again, subject.padded), seen(network, subject.padded))
    assert not torch.equal(seen(subject.network, subject.padded), seen(network, subject.padded))


@pytest.mark.parametrize("name", NAMES)
def test_influence_is_that_of_a_plain_forward(subjects: Subjects, name: str) -> None:
    """One run of the whole network, layer by layer; a padded batch beside single samples."""
    subject = subjects.of(name)
    batches = [subject.data.inputs[1], subject.padded]
    cosines: dict[int, list[torch.Tensor]] = {}
    for inputs in batches:
        real = inputs.get("attention_mask", torch.ones_like(inputs["input_ids"])).bool()

        def note(number: int, before: Any, after: Any, real: Any = real) -> None:
            before, after = (x.view(*real.shape, -1)[real].double() for x in (before, after))
            products = (before * after).sum(1) / before.norm(dim=1) / after.norm(dim=1)
            cosines.setdefault(number, []).append(products)

        hooks = [
            layer.register_forward_hook(
                lambda module, args, output, i=i, note=note: note(
                    i, args[0], output[0] if isinstance(output, tuple) else output
                )
            )
            for i, layer in enumerate(layers_of(subject.network, subject))
        ]
        seen(subject.network, inputs)
        for hook in hooks:
            hook.remove()
    naive = [1 - torch.cat(cosines[i]).mean().item() for i in range(len(cosines))]
    assert block_influence(subject.network, subject.anatomy, batches) == pytest.approx(
        naive, rel=1e-3, abs=1e-6
    )
    assert min(naive) > 1e-4 and len(set(naive)) == len(naive)


def test_influence_is_that_of_the_hidden_states(subjects: Subjects) -> None:
    """As transformers tells them; behind the last layer it tells them normed."""
    subject = subjects.of("qwen2")
    (inputs,) = subject.data.inputs[:1]
    with torch.no_grad():
        shown = {name: value for name, value in inputs.items() if name != "labels"}
        states = subject.network(**shown, output_hidden_states=True).hidden_states
    naive = [
        1 - torch.nn.functional.cosine_similarity(a[0].double(), b[0].double()).mean().item()
        for a, b in itertools.pairwise(states)
    ]
    found = block_influence(subject.network, subject.anatomy, [inputs])
    assert found[:-1] == pytest.approx(naive[:-1], rel=1e-3)


@pytest.mark.parametrize("silent", [1, 2, 4])
def test_a_layer_that_does_nothing_goes_first(subjects: Subjects, silent: int) -> None:
    subject = subjects.of("qwen2")
    network = copy.deepcopy(subject.network)
    layer = layers_of(network, subject)[silent]
    with torch.no_grad():
        layer.self_attn.o_proj.weight.zero_()
        layer.mlp.down_proj.weight.zero_()
    before = seen(network, subject.padded)
    DEPTH25BI.make(network, subject.anatomy, subject.data)
    assert len(layers_of(network, subject)) == 5
    assert torch.equal(seen(network, subject.padded), before)


@pytest.mark.parametrize("silent", [0, 5])
def test_first_and_last_stay_whatever_they_do(subjects: Subjects, silent: int) -> None:
    subject = subjects.of("qwen2")
    network = copy.deepcopy(subject.network)
    layer = layers_of(network, subject)[silent]
    with torch.no_grad():
        layer.self_attn.o_proj.weight.zero_()
        layer.mlp.down_proj.weight.zero_()
    rule = LeastInfluence(0.5)
    kept = rule.kept(network, subject.anatomy, subject.data)
    assert len(kept) == 3 and {0, 5} <= set(kept)


def test_of_an_odd_number_the_middle_stays(subjects: Subjects) -> None:
    subject = subjects.of("qwen2")
    network = copy.deepcopy(subject.network)
    keep_layers(network, subject.anatomy, range(5))
    expected = [layers_of(network, subject)[i] for i in (0, 2, 4)]
    DEPTH50.make(network, subject.anatomy, NO_DATA)
    assert list(layers_of(network, subject)) == expected


@pytest.mark.parametrize(("recipe", "layers"), [(DEPTH50, 1), (DEPTH50BI, 2), (DEPTH25BI, 3)])
def test_nothing_to_drop_is_refused(subjects: Subjects, recipe: Depth, layers: int) -> None:
    subject = subjects.of("qwen2")
    network = copy.deepcopy(subject.network)
    keep_layers(network, subject.anatomy, range(layers))
    with pytest.raises(UsageError, match=f"{layers} of {layers} layers .* at least one"):
        recipe.make(network, subject.anatomy, subject.data)
    with pytest.raises(UsageError, match=f"0 of {layers} layers"):
        keep_layers(network, subject.anatomy, [])


def test_replaced_linears_keep_their_layer(subjects: Subjects, tmp_path: Path) -> None:
    """Factors in layers 1 and 2, then layer 1 is dropped; the tower's stay what they are."""
    subject = subjects.of("qwen2")
    network = copy.deepcopy(subject.network)
    layers = subject.anatomy.layers
    names = [f"{layers}.{i}.mlp.up_proj" for i in (1, 2)] + ["model.visual.blocks.1.mlp.fc1"]
    for name in names:
        linear = network.get_submodule(name)
        put(network, name, factorized(linear, split(linear.weight), 8))
    DEPTH50.make(network, subject.anatomy, NO_DATA)
    assert list(getattr(network.config, FIELD)) == [f"{layers}.1.mlp.up_proj", names[2]]
    again, report = subject.reloaded(network, tmp_path)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    assert torch.equal(seen(again, subject.padded), seen(network, subject.padded))


def test_twice_is_the_same(subjects: Subjects) -> None:
    one, two = (subjects.of("qwen2").made(DEPTH50BI).state_dict() for _ in range(2))
    assert one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)

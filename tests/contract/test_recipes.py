"""Every recipe on every architecture: what it stores, what it changes, and what makes it itself."""

import hashlib
from dataclasses import dataclass, fields, is_dataclass, replace
from importlib.util import find_spec

import answered
import checkpoints
import pytest
import torch

from vlmbench import catalogue
from vlmbench.artifacts import Store
from vlmbench.chain import Chain
from vlmbench.compression.depth import Depth
from vlmbench.compression.finetune import FineTune
from vlmbench.compression.lowrank import LowRank
from vlmbench.errors import DataError, UsageError
from vlmbench.evaluate import subject
from vlmbench.models.qwen2 import QWEN2
from vlmbench.selection import compression
from vlmbench.spec import Maker, Mixture, Runtime
from vlmbench.traindata import TrainSamples

RECIPES = catalogue.compressions()
CHAINS = {name: recipe for name, recipe in RECIPES.items() if isinstance(recipe, Chain)}
STORING = [name for name in RECIPES if not isinstance(RECIPES[name], Runtime | Chain)]
MAKERS = [name for name in STORING if isinstance(RECIPES[name], Maker)]
FLOATS = [name for name in MAKERS if RECIPES[name].storage("decoder") == "float32"]
EXTRA = set() if find_spec("peft") else {"lora"}
"""What needs a package that is not installed."""
QUANTIZED = ("int8", "int4", "nf4")
SMALLER = (*QUANTIZED, "sparse24")
WITHOUT_DATA = {"rtn_w4a16", "rtn_w3a16", "depth50", "lowrank80", "lowrank50", "lowrankp60"}


def known(name):
    return compression(name, RECIPES)


def parts(recipe):
    return recipe.parts if isinstance(recipe, Chain) else (recipe,)


def fits(name, recipe):
    """CLIP has no words to learn; what is learnt from one data set is as from another here."""
    inner = [getattr(part, "tuning", part) for part in parts(known(recipe))]
    learns = any(isinstance(part, FineTune) for part in inner)
    return not learns or (name == "qwen2" or (name != "clip" and "_on_" not in recipe))


CASES = [
    (name, recipe)
    for name in checkpoints.NAMES
    for recipe in (*STORING, *CHAINS, "lowrankp60+lm8bit", "depth25bi+sq_w8a8_token")
    if fits(name, recipe) and recipe not in EXTRA
]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return checkpoints.Checkpoints(tmp_path_factory.mktemp("checkpoints"))


def quantized(variant, recipe):
    """The linears that are loaded as integers: neither what is kept nor what is promised else."""
    anatomy = variant.model.anatomy
    return [
        name
        for name, module in variant.network.named_modules()
        if isinstance(module, torch.nn.Linear)
        and not anatomy.is_kept(name)
        and recipe.storage(anatomy.component(name)) in QUANTIZED
    ]


def differing(before, after):
    """Names of tensors that only one has, or that are not the same numbers in both."""
    return {
        name
        for name in before.keys() | after.keys()
        if name not in before
        or name not in after
        or before[name].shape != after[name].shape
        or not torch.equal(before[name].float(), after[name].float())
    }


@pytest.mark.parametrize(("name", "recipe"), CASES)
def test_a_recipe_changes_what_it_promises_and_no_more(made, name, recipe):
    """Loading verifies the census. What is made is within the decoder's layers, not the head."""
    plain, variant, recipe = made.variant(name), made.load(name, recipe), known(recipe)
    assert variant.census.components["other"].linears == {}
    before, after = plain.network.state_dict(), variant.network.state_dict()
    changed, layers = differing(before, after), plain.model.anatomy.layers + "."
    makes = any(isinstance(part, Maker) for part in parts(recipe))
    loads = [] if isinstance(parts(recipe)[-1], Maker) else quantized(plain, recipe)
    # bitsandbytes keeps scales as NAME.SCB, or below NAME.weight; biases stay as they are.
    reach = [f"{linear}.{part}" for linear in loads for part in ("weight", "SCB")]
    reach += [layers] if makes else []
    assert [name for name in changed if not name.startswith(tuple(reach))] == []
    outside = {f"{linear}.weight" for linear in loads if not linear.startswith(layers)}
    assert outside <= changed
    assert any(name.startswith(layers) for name in changed) == (makes or bool(loads))
    told = recipe.load_options(plain.model.anatomy)["dtype"]
    dtype = torch.bfloat16 if told == "auto" else getattr(torch, told)
    still = [after[n] for n in after.keys() - changed if not n.startswith(layers)]
    assert {tensor.dtype for tensor in still if tensor.is_floating_point()} == {dtype}
    check_sizes(variant, recipe, plain if dtype == torch.float32 else made.variant(name, "16bit"))


def check_sizes(variant, recipe, whole):
    """Only what packs or leaves out is smaller than the whole model in the same dtype."""
    left_out = any(isinstance(part, Depth | LowRank) for part in parts(recipe))
    shrinks = left_out or recipe.storage("decoder") in SMALLER
    for sizes in (
        (variant.file_bytes, whole.file_bytes),
        (variant.census.footprint_bytes, whole.census.footprint_bytes),
    ):
        assert sizes[0] < sizes[1] if shrinks else sizes[0] == sizes[1]


def drawn_from(recipe, seed):
    """The recipe with another seed wherever it has a mixture."""
    if isinstance(recipe, Mixture):
        return replace(recipe, seed=seed)
    inner = {f.name: getattr(recipe, f.name) for f in fields(recipe)}
    inner = {name: drawn_from(v, seed) for name, v in inner.items() if is_dataclass(v)}
    return replace(recipe, **inner)


@pytest.mark.parametrize("name", [name for name in MAKERS if name not in EXTRA])
def test_the_same_seed_makes_the_same_bytes(made, tmp_path, monkeypatch, name):
    """Whatever was drawn before; another seed makes others, where anything is learnt."""
    seeds, batches = [], answered.Few.batches

    def noting(self, mixture, size=1):
        seeds.append(mixture.seed)
        return batches(self, mixture, size)

    monkeypatch.setattr(answered.Few, "batches", noting)
    recipe, digests = checkpoints.quick(RECIPES[name]), []
    for number, seed in enumerate((0, 0, 1)):
        store = Store(tmp_path / str(number))
        torch.manual_seed(number)
        made.loaded("qwen2", drawn_from(recipe, seed), store)
        (entry,) = store.entries()
        digests.append(hashlib.sha256((entry.path / "model.safetensors").read_bytes()).digest())
        assert store.troubles == []
    assert digests[0] == digests[1]
    assert seeds == ([] if name in WITHOUT_DATA else [0, 0, 1])
    # Which layers matter least may be the same by other samples.
    if not isinstance(recipe, Depth):
        assert (digests[2] == digests[0]) == (name in WITHOUT_DATA)


@pytest.mark.parametrize("name", MAKERS)
def test_who_writes_no_answers_is_made_without_data_or_refused(made, tmp_path, name):
    variant = made.load("clip")
    data = TrainSamples(
        catalogue.datasets(), "embedded", variant.model, variant.processor, tmp_path
    )
    if name in WITHOUT_DATA:
        RECIPES[name].make(variant.network, variant.model.anatomy, data)
        return
    with pytest.raises(DataError, match="clip writes no answers to any data set"):
        RECIPES[name].make(variant.network, variant.model.anatomy, data)


def others(value):
    """Values of that kind that are not `value`: of a recipe, one for each field, inner ones too."""
    if is_dataclass(value):
        for field in fields(value):
            for other in others(getattr(value, field.name)):
                yield replace(value, **{field.name: other})
    elif isinstance(value, tuple) and value and is_dataclass(value[0]):
        for i, part in enumerate(value):
            yield from ((*value[:i], other, *value[i + 1 :]) for other in others(part))
    else:
        yield {
            bool: lambda: not value,
            int: lambda: value + 1,
            float: lambda: value / 2,
            str: lambda: value + "x",
            tuple: lambda: (*value, "x"),
            frozenset: lambda: value ^ {"vision"},
            type(None): lambda: 1,
        }[type(value)]()


@pytest.mark.parametrize("name", [*RECIPES, "depth50+lowrank80+ft"])
def test_every_field_of_a_recipe_is_part_of_what_is_judged(made, name):
    source, changed = made.source("qwen2"), list(others(known(name)))
    known_too = {**RECIPES, name: known(name)}.values()
    told = [subject(QWEN2, one, source, None)["recipe"] for one in (*known_too, *changed)]
    assert changed and len(set(told)) == len(told)


@pytest.mark.parametrize("name", [name for name in RECIPES if name not in CHAINS])
def test_no_recipe_is_applied_twice(name):
    with pytest.raises(UsageError, match=f"{name} stands in it twice"):
        known(f"{name}+{name}")


@pytest.mark.parametrize("first", STORING)
def test_what_follows_a_recipe_needs_what_it_leaves(first):
    """A checkpoint of floats is left by makers that do not pack; each refusal says why."""
    for second in [name for name in STORING if name != first]:
        name = f"{first}+{second}"
        if first in FLOATS:
            assert known(name).storage("decoder") == RECIPES[second].storage("decoder")
            continue
        with pytest.raises(UsageError) as refused:
            known(name)
        stored = RECIPES[first].storage("decoder")
        packed = f"after {first} the weights are {stored}, and {second} needs them as floats"
        loads = f"{first} only says how a checkpoint is loaded, and {second}"
        plain = stored in ("float32", "bfloat16")
        assert f"{name}: {loads if plain else packed}" in str(refused.value)


@dataclass(frozen=True)
class Norm:
    """Multiplies the decoder's last norm, then adds to it."""

    name: str
    times: float = 1.0
    more: float = 0.0

    def load_options(self, anatomy):
        return {"dtype": "float32"}

    def make(self, model, anatomy, data):
        model.get_submodule(anatomy.decoder).norm.weight.data.mul_(self.times).add_(self.more)

    def apply(self, model, anatomy):
        pass

    def storage(self, component):
        return "float32"


def test_a_chain_is_made_from_left_to_right(made, tmp_path):
    """Each part once; what two chains begin with alike is made once for both."""
    double, add = Norm("double", times=2.0), Norm("add", more=1.0)
    half, store = RECIPES["16bit"], Store(tmp_path)

    def norm(*chained):
        chain = Chain("+".join(part.name for part in chained), chained)
        network = made.loaded("qwen2", chain, store).network
        return network.get_submodule(QWEN2.anatomy.decoder).norm.weight.detach()

    was = made.variant("qwen2").network.get_submodule(QWEN2.anatomy.decoder).norm.weight.detach()
    assert torch.equal(norm(double, add), was * 2 + 1)
    assert torch.equal(norm(add, double), (was + 1) * 2)
    assert torch.equal(norm(double, add, half), (was * 2 + 1).bfloat16())
    kept = ["qwen2_add", "qwen2_add+double", "qwen2_double", "qwen2_double+add"]
    assert sorted(entry.what for entry in store.entries()) == kept


@pytest.mark.parametrize("first", [*FLOATS, *CHAINS])
def test_a_chain_goes_on_from_any_that_leaves_floats(first):
    """`A_ft` is A, then ft; a chain with a name of its own is its parts."""
    begun = known(first)
    if begun.storage("decoder") == "float32":
        awq = known(f"{first}+awq_w4a16")
        assert awq.parts == (*parts(begun), RECIPES["awq_w4a16"])
        if "ft" not in first:
            assert known(f"{first}_ft").parts == (*parts(begun), RECIPES["ft"])
        return
    with pytest.raises(UsageError, match=r"awq_w4a16 needs them as floats\. Leave out one of them"):
        known(f"{first}+awq_w4a16")

"""How a network runs changes no answer, no name and no promise; what cannot run says so at once."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import partial, partialmethod
from pathlib import Path
from typing import Any

import pytest
import torch
from subjects import NAMES, Subjects, seen
from torch.testing import assert_close

from vlmbench.catalogue import compressions, models
from vlmbench.chain import Chain
from vlmbench.compression.awq import RTN_W4
from vlmbench.compression.bnb import INT8, NF4
from vlmbench.compression.lowrank import LOWRANK80
from vlmbench.compression.precision import BFLOAT16, FLOAT32
from vlmbench.compression.runtime import COMPILE, EAGER, FLASH, OFFLOAD, OFFLOAD_4MB
from vlmbench.errors import UsageError
from vlmbench.models.qwen2 import QWEN2
from vlmbench.offloading import placement
from vlmbench.packed import Int4Linear, Int8Linear
from vlmbench.saving import write
from vlmbench.spec import Maker, Runtime, Source
from vlmbench.variant import Variant, load

ALL = (EAGER, FLASH, COMPILE, OFFLOAD, OFFLOAD_4MB)
FLASH_LOOK_UP = "transformers.utils.import_utils.is_flash_attn_2_available"


@torch.inference_mode()
def logits(variant: Variant, inputs: Any) -> torch.Tensor:
    made: torch.Tensor = variant.network(**inputs).logits
    return made


def resident(network: torch.nn.Module) -> int:
    """Bytes of weights and buffers that are in memory."""
    tensors = [*network.parameters(), *network.buffers()]
    return sum(t.numel() * t.element_size() for t in tensors if t.device.type != "meta")


def test_are_runtimes_in_the_catalogue() -> None:
    names = ["eager", "flash", "compile", "offload", "offload4mb"]
    assert [recipe.name for recipe in ALL] == names
    assert all(isinstance(one, Runtime) and not isinstance(one, Maker) for one in ALL)
    assert all(compressions()[recipe.name] is recipe for recipe in ALL)
    assert [recipe.storage("decoder") for recipe in ALL] == [
        "float32", "bfloat16", "float32", "float32", "float32",
    ]  # fmt: skip


@pytest.mark.parametrize("stored", [None, BFLOAT16, NF4], ids=["alone", "16bit", "4bit"])
def test_eager_is_eager_in_tower_and_decoder(stored: Any, tiny: Path, tiny_inputs: Any) -> None:
    recipe = Chain("chain", (stored, EAGER)) if stored else EAGER
    eager, usual = (load(QWEN2, one, Source(str(tiny))) for one in (recipe, stored or FLOAT32))
    for variant, kind in ((eager, "eager"), (usual, "sdpa")):
        config = variant.network.config
        parts = (config, config.text_config, config.vision_config)
        assert {part._attn_implementation for part in parts} == {kind}
    obtained, expected = logits(eager, tiny_inputs), logits(usual, tiny_inputs)
    assert_close(obtained, expected, rtol=0, atol=0.05 if stored else 1e-4)
    assert eager.census.components == usual.census.components


def test_flash_says_what_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    anatomy = QWEN2.anatomy
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match="needs a CUDA device, and torch sees none"):
        FLASH.load_options(anatomy)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(FLASH_LOOK_UP, lambda: False)
    with pytest.raises(UsageError, match="pip install flash-attn --no-build-isolation"):
        Chain("chain", (NF4, FLASH)).load_options(anatomy)
    monkeypatch.setattr(FLASH_LOOK_UP, lambda: True)
    options = {"dtype": "bfloat16", "attn_implementation": "flash_attention_2"}
    assert FLASH.load_options(anatomy) == options
    compiled = Chain("chain", (COMPILE, FLASH))  # float32 would be refused
    assert compiled.load_options(anatomy) == options and compiled.storage("head") == "bfloat16"
    for network in (torch.nn.Linear(2, 2), torch.nn.Linear(2, 2).bfloat16()):
        with pytest.raises(UsageError, match=r"the model is (b?float\d\d) on cpu"):
            FLASH.apply(network, anatomy)


def test_two_ways_to_run_that_exclude_each_other_are_refused() -> None:
    again = replace(EAGER, name="eager_too")
    for parts, what in (((EAGER, again), "attn_"), ((OFFLOAD, OFFLOAD_4MB), "device_map")):
        with pytest.raises(UsageError, match=f"two of its parts set {what}.* Leave out"):
            Chain("chain", (BFLOAT16, *parts)).load_options(QWEN2.anatomy)
    Chain("chain", (BFLOAT16, EAGER, OFFLOAD)).load_options(QWEN2.anatomy)


def test_compile_names_the_compiler_that_is_missing(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    for recipe in (COMPILE, Chain("chain", (NF4, COMPILE))):
        with pytest.raises(UsageError, match=r"^compile: .*'(g|clang)\+\+'.*\n?.*apt-get install"):
            load(QWEN2, recipe, Source(str(tiny)))
    compiler = tmp_path / "cxx"
    compiler.write_text("#!/bin/sh\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", "cxx")
    assert COMPILE.run_options(QWEN2.anatomy) == {}
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path))
    with pytest.raises(UsageError, match=r"Python\.h, which is not there"):
        COMPILE.run_options(QWEN2.anatomy)


class Decoder(torch.nn.Module):
    """As much of one as compilation asks for; torch's own modules are never compiled alone."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = torch.nn.Linear(8, 8)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = self.linear(states).relu() + states
        return made


def test_the_decoder_is_compiled_once_for_all_lengths(monkeypatch: pytest.MonkeyPatch) -> None:
    """Traced here, and not made into C++, which takes half a minute."""
    from torch._dynamo.utils import counters

    whole = partialmethod(torch.nn.Module.compile, backend="eager")
    monkeypatch.setattr(torch.nn.Module, "compile", whole)
    network, plain = (torch.nn.ModuleDict({"decoder": Decoder()}) for _ in range(2))
    COMPILE.apply(network, replace(QWEN2.anatomy, decoder="decoder"))
    counters.clear()
    for batch, length in ((2, 5), (3, 7), (4, 9)):
        states = torch.randn(batch, length, 8)
        assert_close(network["decoder"](states), plain["decoder"](states))
    assert counters["stats"]["unique_graphs"] == 1
    assert list(network.state_dict()) == list(plain.state_dict())


PACKED: dict[str, tuple[Any, int]] = {
    "int4": (Int4Linear.of, 2),  # few tokens and many are multiplied by other products
    "int8 token": (partial(Int8Linear.of, weights="row", activations="token"), 1),
    "int8 group": (partial(Int8Linear.of, weights="group", activations="group"), 1),
}


@torch.inference_mode()
@pytest.mark.parametrize(("packed", "graphs"), PACKED.values(), ids=PACKED)
def test_packed_codes_break_no_graph(
    packed: Any, graphs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each layer, or length, would be a graph, compiled anew until the compiler gives up."""
    from torch._dynamo.utils import counters

    whole = partialmethod(torch.nn.Module.compile, backend="eager")
    monkeypatch.setattr(torch.nn.Module, "compile", whole)
    torch.manual_seed(0)
    layers = torch.nn.Sequential(*(packed(torch.nn.Linear(256, 256)) for _ in range(3)))
    decoder = torch.nn.ModuleDict({"inner": layers})
    decoder.forward = layers.forward  # torch's own modules are never compiled alone
    network = torch.nn.ModuleDict({"decoder": decoder})
    states = [torch.randn(2, length, 256) for length in (5, 7, 300, 900)]
    plain = [copy.deepcopy(layers)(some) for some in states]
    COMPILE.apply(network, replace(QWEN2.anatomy, decoder="decoder"))
    counters.clear()
    for some, expected in zip(states, plain, strict=True):
        assert_close(network["decoder"](some), expected)
    assert counters["stats"]["unique_graphs"] == graphs and not counters["graph_break"]


@pytest.mark.soak  # minutes, where cores are few
@pytest.mark.parametrize("stored", [FLOAT32, BFLOAT16, NF4], ids=lambda recipe: recipe.name)
def test_compiled_answers_are_the_same(stored: Any, tiny: Path, tiny_inputs: Any) -> None:
    chain = Chain("chain", (stored, COMPILE))
    plain, compiled = (load(QWEN2, one, Source(str(tiny))) for one in (stored, chain))
    assert plain.census == compiled.census and plain.file_bytes == compiled.file_bytes
    assert list(compiled.network.state_dict()) == list(plain.network.state_dict())
    ids = torch.arange(10, 49)[None]
    batches = [{"input_ids": ids[:, :n].repeat(b, 1)} for n, b in ((20, 2), (39, 2), (11, 3))]
    for inputs in [tiny_inputs, *batches]:
        answers = [one.generate(inputs, max_new_tokens=5) for one in (plain, compiled)]
        assert torch.equal(*answers)


@pytest.mark.parametrize("name", NAMES)
def test_offloaded_under_a_budget_it_is_the_same(subjects: Subjects, name: str) -> None:
    subject, model = subjects.of(name), models()[name]
    source = Source(subject.network.name_or_path)
    plain = load(model, FLOAT32, source)
    budget = resident(plain.network) // 2
    offloaded = load(model, replace(OFFLOAD, budget_bytes=budget), source)
    assert plain.census == offloaded.census and plain.file_bytes == offloaded.file_bytes
    expected = seen(plain.network, subject.padded)
    for _ in range(2):  # what has been used is given up again
        assert resident(offloaded.network) <= budget
        assert torch.equal(seen(offloaded.network, subject.padded), expected)


def test_offloaded_answers_are_the_same(tiny: Path, tiny_inputs: Any) -> None:
    plain = load(QWEN2, FLOAT32, Source(str(tiny)))
    held = resident(plain.network)
    for recipe, least, most in (
        (replace(OFFLOAD, budget_bytes=held // 2), 1, held // 2),
        (replace(OFFLOAD, budget_bytes=1000), 0, 1000),
        (OFFLOAD, held, held),  # all of it fits
    ):
        offloaded = load(QWEN2, recipe, Source(str(tiny)))
        answers = [one.generate(tiny_inputs, max_new_tokens=5) for one in (plain, offloaded)]
        assert torch.equal(*answers)
        assert least <= resident(offloaded.network) <= most


@pytest.mark.parametrize("maker", [LOWRANK80, RTN_W4], ids=lambda maker: maker.name)
def test_offload_of_what_others_have_made(maker: Any, subjects: Subjects, tmp_path: Path) -> None:
    """Factors and packed codes are read from disk, too."""
    source = Source(subjects.of("qwen2").network.name_or_path)
    begun = load(QWEN2, FLOAT32, source)
    maker.make(begun.network, QWEN2.anatomy, subjects.of("qwen2").data)
    dtype = maker.load_options(QWEN2.anatomy)["dtype"]
    write(begun.network, begun.processor, tmp_path, dtype=dtype)
    plain = load(QWEN2, maker, source, kept=tmp_path)
    chain = Chain("chain", (maker, replace(OFFLOAD, budget_bytes=resident(plain.network) // 2)))
    offloaded = load(QWEN2, chain, source, kept=tmp_path)
    assert resident(offloaded.network) < 0.6 * resident(plain.network)
    inputs = subjects.of("qwen2").padded
    for _ in range(3):  # weights come anew from disk each time
        assert torch.equal(seen(offloaded.network, inputs), seen(plain.network, inputs))


@pytest.mark.parametrize("stored", [INT8, NF4], ids=lambda recipe: recipe.name)
def test_offload_of_what_bitsandbytes_quantizes_is_refused(stored: Any, tiny: Path) -> None:
    with pytest.raises(UsageError, match="bitsandbytes keeps what it quantizes in memory"):
        load(QWEN2, Chain("chain", (stored, OFFLOAD)), Source(str(tiny)))


def test_offload_is_for_the_cpu() -> None:
    options = OFFLOAD.load_options(QWEN2.anatomy)
    with pytest.raises(UsageError, match="the device is 'cuda'"):
        placement(options, "cuda", quantized=False)
    assert placement(options, "cpu", quantized=False) == {"device_map": "sequential"}
    assert placement({}, "cuda", quantized=True) == {"device_map": {"": "cuda"}}

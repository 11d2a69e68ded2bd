"""A decoder is walked layer by layer, from disk, and sees what it sees in one piece."""

from __future__ import annotations

import gc
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils import _pytree as tree
from torch.utils._python_dispatch import TorchDispatchMode

from vlmbench import calibration
from vlmbench.anatomy import Anatomy
from vlmbench.calibration import Call, Calls, absmax, gram, inputs_of, walk, within
from vlmbench.errors import UsageError

WIDTH, WORDS, LAYERS = 8, 11, 3
ANATOMY = Anatomy(vision=(), projector=(), decoder="", layers="blocks", head="head")


class Layer(nn.Module):
    """Two linears between which tokens look at each other; some inputs come as [tokens, dim]."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)

    def forward(self, hidden: Tensor, mask: Tensor | None, *, turn: tuple[Tensor, Any]) -> Any:
        inner = self.one(hidden * turn[0])
        if mask is not None:
            inner = inner + torch.softmax(mask.float().log()[:, None], -1) @ inner
        flat = self.two(inner.reshape(-1, 2 * WIDTH).relu())
        return hidden + flat.view_as(hidden), "weights"


class Net(nn.Module):
    """A decoder that gives its layers positional, keyword, nested and no tensors."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words = nn.Embedding(WORDS, WIDTH)
        self.blocks = nn.ModuleList(Layer() for _ in range(LAYERS))
        self.spare, self.head = Layer(), nn.Linear(WIDTH, WORDS)
        self.turns, self.joins = (0.5,) * LAYERS, (0.0,) * LAYERS

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, *, use_cache: bool = True
    ) -> Any:
        hidden = self.words(input_ids)
        for block, turn, join in zip(self.blocks, self.turns, self.joins, strict=True):
            factors = torch.full((1, WIDTH), turn, device=hidden.device)
            hidden, _ = block(hidden + join, attention_mask, turn=(factors, None))
        return self.head(hidden)


def batch(seed: int, rows: int = 2, padding: int = 3) -> dict[str, Tensor]:
    ids = torch.randint(WORDS, (rows, 7), generator=torch.Generator().manual_seed(seed))
    mask = torch.ones_like(ids)
    mask[0, :padding] = 0
    return {"input_ids": ids, "attention_mask": mask, "labels": ids}


class Lazy(Sequence[dict[str, Tensor]]):
    """Batches made when they are taken."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: Any) -> Any:
        if index >= self.count:
            raise IndexError
        return batch(index)


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def shown(net: Net, inputs: dict[str, Tensor]) -> list[Tensor]:
    """What each layer is given, and what the last gives, in one plain run."""
    states: list[Tensor] = []
    hooks = [b.register_forward_pre_hook(lambda m, a: states.append(a[0])) for b in net.blocks]
    hooks.append(net.head.register_forward_pre_hook(lambda m, a: states.append(a[0])))
    with torch.no_grad():
        net(inputs["input_ids"], inputs.get("attention_mask"))
    for hook in hooks:
        hook.remove()
    return states


def test_layers_see_what_they_see_in_one_piece() -> None:
    net, batches = Net(), [batch(0), batch(1, rows=3), batch(2, padding=0)]
    batches.append({"input_ids": batches[0]["input_ids"]})
    plain = [shown(net, inputs) for inputs in batches]
    for i, visit in enumerate(walk(net, ANATOMY, batches)):
        assert visit.name == f"blocks.{i}" and visit.layer is net.blocks[i]
        assert len(visit.calls) == len(visit.after) == 4
        for number, (call, after) in enumerate(zip(visit.calls, visit.after, strict=True)):
            assert torch.equal(call.hidden, plain[number][i])
            assert torch.equal(after.hidden, plain[number][i + 1])
            assert torch.equal(call.run(visit.layer), after.hidden)
            real = batches[number].get("attention_mask", torch.ones(2, 7))
            assert torch.equal(call.real, real.bool())
    assert i == LAYERS - 1


def test_nothing_behind_the_first_layer_is_run_to_begin_with() -> None:
    net = Net()
    net.head.register_forward_pre_hook(lambda *_: pytest.fail("the head was run"))
    assert len(list(walk(net, ANATOMY, [batch(0)]))) == LAYERS


@pytest.mark.parametrize("given", ["turns", "joins"])
def test_what_a_walk_cannot_know_is_refused(given: str) -> None:
    """As where layers attend by turns, or visual features join behind the first ones."""
    net = Net()
    setattr(net, given, (*getattr(net, given)[:-2], 0.25, 0.25))
    with pytest.raises(UsageError, match=r"Layer: layers one after another make other hidden"):
        list(walk(net, ANATOMY, [batch(0)]))


@pytest.mark.parametrize("device", ["cpu", "cuda:0"])
def test_batches_go_to_where_the_network_is(device: str) -> None:
    """Shapes and devices alone are computed: that takes no GPU."""
    with FakeTensorMode():
        with torch.device(device):
            net = Net()
        (first,) = calibration._first_calls(net, ANATOMY, net.blocks[0], [batch(0)])
    assert str(first.hidden.device) == str(first.real.device) == device


def test_a_changed_layer_does_not_change_what_follows() -> None:
    net, inputs = Net(), batch(0)
    plain = shown(net, inputs)
    for i, visit in enumerate(walk(net, ANATOMY, [inputs])):
        with torch.no_grad():
            for parameter in visit.layer.parameters():
                parameter.zero_()
        (call,), (after,) = visit.calls, visit.after
        assert torch.equal(call.hidden, plain[i]) and torch.equal(after.hidden, plain[i + 1])


def test_padding_does_not_count() -> None:
    """Whatever it is: the sums are those of the tokens that are there."""
    net, batches = Net(), [batch(0), batch(1)]
    for inputs in batches:
        inputs["input_ids"][inputs["attention_mask"] == 0] = WORDS - 1
    net.words.weight.data[WORDS - 1] = 1e6
    for inputs in batches:
        inputs["input_ids"][(inputs["attention_mask"] == 1) & (inputs["input_ids"] > 9)] = 0
    states = torch.cat(
        [shown(net, inputs)[0][inputs["attention_mask"].bool()] for inputs in batches]
    )
    walked = walk(net, ANATOMY, batches)
    visit = next(walked)
    grams = inputs_of(visit.layer, ["one", "two"], visit.calls, gram)
    largest = inputs_of(visit.layer, ["one", "two"], visit.calls, absmax)
    given = states * 0.5
    assert torch.allclose(grams["one"], given.double().T @ given.double(), rtol=1e-5)
    assert torch.equal(largest["one"], given.abs().amax(0))
    # Inputs that come as [tokens, dim], padding and all.
    assert grams["two"].shape == (2 * WIDTH, 2 * WIDTH) and largest["two"].max() < 1e4
    walked.close()


def test_a_block_is_called_as_in_its_layer() -> None:
    net, batches = Net(), [batch(0), batch(1)]
    for visit in walk(net, ANATOMY, batches):
        given: list[Tensor] = []
        hook = visit.layer.two.register_forward_pre_hook(lambda m, a, to=given: to.append(a[0]))
        for call in visit.calls:
            call.run(visit.layer)
        hook.remove()
        with within(visit, "two") as block:
            assert block.name == f"{visit.name}.two" and block.layer is visit.layer.two
            pairs = zip(given, block.calls, block.after, strict=True)
            for before, call, after in pairs:
                assert torch.equal(call.hidden, before)
                assert torch.equal(after.hidden, visit.layer.two(before))
                assert call.tokens(after.hidden).shape == (11, WIDTH)


class Alive(TorchDispatchMode):
    """The most tensors that were alive at once, of those that operations take or make."""

    def __init__(self) -> None:
        super().__init__()
        self.known: dict[int, weakref.ref[Tensor]] = {}
        self.most = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> object:
        made = func(*args, **(kwargs or {}))
        for leaf in tree.tree_leaves((args, made)):
            if torch.is_tensor(leaf):
                self.known[id(leaf)] = weakref.ref(leaf)
        self.known = {name: ref for name, ref in self.known.items() if ref() is not None}
        self.most = max(self.most, len(self.known))
        return made


def test_memory_does_not_grow_with_the_samples() -> None:
    def most_alive(count: int) -> int:
        net = Net()
        with Alive() as alive:
            for visit in walk(net, ANATOMY, Lazy(count)):
                inputs_of(visit.layer, ["one"], visit.calls, gram)
                with within(visit, "two") as block:
                    inputs_of(block.layer, [""], block.calls, gram)
        return alive.most

    few, many = most_alive(3), most_alive(9)
    assert 10 < many <= few


def test_files_go_with_the_walk(temporary: Path) -> None:
    def kept() -> int:
        return len([path for path in temporary.rglob("*") if path.is_file()])

    walked = walk(Net(), ANATOMY, Lazy(4))
    for visit in walked:
        assert kept() == 2 * len(visit.calls)
    assert kept() == 0 and not list(temporary.iterdir())
    walked = walk(Net(), ANATOMY, Lazy(4))
    next(walked)
    walked.close()
    assert not list(temporary.iterdir())


def test_what_a_change_raises_leaves_no_files(temporary: Path) -> None:
    def changed() -> Iterator[None]:
        for visit in walk(Net(), ANATOMY, Lazy(2)):
            with within(visit, "one"):
                raise ValueError("no")
            yield

    with pytest.raises(ValueError, match="no"):
        list(changed())
    gc.collect()
    assert not list(temporary.iterdir())


def test_where_there_is_no_room_one_is_told(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(tensors: Any, path: Path) -> None:
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(calibration, "save_file", full)
    with pytest.raises(UsageError, match=r"No space left.*Make room, or let TMPDIR name a folder"):
        next(walk(Net(), ANATOMY, Lazy(1)))
    assert not list(temporary.iterdir())
    with pytest.raises(FileNotFoundError):  # what a sample raises is no full disk
        Calls(temporary / "calls", map(Path.read_bytes, [temporary / "missing"]))


def test_calls_are_read_alike_each_time(tmp_path: Path) -> None:
    shared = torch.arange(6.0).view(1, 2, 3)
    call = Call((shared, None, 3), {"a": (shared, [shared[:, :1]]), "b": "text"}, torch.ones(1, 2))
    calls = Calls(tmp_path / "calls", iter([call, call]))
    for _ in range(2):
        for again in calls:
            assert torch.equal(again.hidden, shared) and again.args[1:] == (None, 3)
            assert torch.equal(again.kwargs["a"][0], shared) and again.kwargs["b"] == "text"
            assert torch.equal(again.kwargs["a"][1][0], shared[:, :1])
    calls.delete()
    assert not (tmp_path / "calls").exists()


def test_a_module_that_is_not_called_is_an_error() -> None:
    net = Net()
    for visit in walk(net, ANATOMY, [batch(0)]):
        visit.layer.add_module("idle", nn.Linear(2, 2))
        with pytest.raises(RuntimeError, match="Linear is not called"), within(visit, "idle"):
            pass


def test_hooks_are_gone_afterwards() -> None:
    net = Net()
    for visit in walk(net, ANATOMY, [batch(0)]):
        inputs_of(visit.layer, ["one"], visit.calls, gram)
        with within(visit, "two"):
            pass
    assert not any(module._forward_pre_hooks for module in net.modules())

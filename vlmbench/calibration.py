"""Calibration samples through a decoder, layer by layer, with one batch in memory at a time.

What the first layer is called with is taken down once a batch, in a file each. Then layer after
layer is run on these files, and they are replaced by what the next layer is called with. So memory
does not grow with the number of samples, and no layer is run for the sake of another.

    for visit in walk(network, anatomy, data.batches(Mixture())):
        grams = inputs_of(visit.layer, ["mlp.down_proj"], visit.calls, gram)
        put(network, f"{visit.name}.mlp.down_proj", factors(..., grams["mlp.down_proj"]))

Every layer sees what it sees in the network as it came: `visit.after` is made before `visit.layer`
is handed out to be changed, as AWQ's official code does it (arXiv 2306.00978,
https://github.com/mit-han-lab/llm-awq). Differs from the reference: samples stay on disk, and
padding does not count.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch.utils import _pytree as tree

from vlmbench.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from vlmbench.anatomy import Anatomy

    Reduce = Callable[[Tensor | None, Tensor], Tensor]
    """(what there is so far, inputs [tokens, dim] of one batch) -> what there is now."""

_ARRIVAL = 1e-2  # relative: hidden states that differ by more are others


@dataclass(frozen=True)
class Call:
    """What a module was called with for one batch."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    real: Tensor
    """[batch, tokens]: which tokens are no padding."""

    @property
    def hidden(self) -> Tensor:
        """What comes first, of a decoder layer its hidden states: [batch, tokens, dim]."""
        hidden: Tensor = self.args[0]
        return hidden

    @torch.no_grad()
    def run(self, module: nn.Module) -> Tensor:
        """The same call of `module`: its output, the first of several."""
        made = module(*self.args, **self.kwargs)
        output: Tensor = made[0] if isinstance(made, tuple) else made
        return output

    def tokens(self, tensor: Tensor) -> Tensor:
        """[batch, tokens, dim], or both in one, as [real tokens, dim]: padding left out."""
        return tensor.reshape(-1, tensor.shape[-1])[self.real.reshape(-1)]


class Calls:
    """Calls of one module, a file each; every iteration reads them anew, in the same order.

    Where there is no room for them, a UsageError says so.
    """

    def __init__(self, folder: Path, calls: Iterable[Call]) -> None:
        self._folder = folder
        with self._explained():
            folder.mkdir()
        self._rest = [self._written(number, call) for number, call in enumerate(calls)]

    def __len__(self) -> int:
        return len(self._rest)

    def __iter__(self) -> Iterator[Call]:
        for number, (leaves, spec, device) in enumerate(self._rest):
            saved = load_file(self._path(number), device=device)
            whole = [saved.get(str(i), leaf) for i, leaf in enumerate(leaves)]
            args, kwargs, real = tree.tree_unflatten(whole, spec)
            yield Call(args, kwargs, real)

    def delete(self) -> None:
        """Delete the files; nothing can be read from then on."""
        for number in range(len(self)):
            self._path(number).unlink()
        self._folder.rmdir()

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:06}.safetensors"

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Around what is written alone: making the calls may fail for other reasons."""
        try:
            yield
        except (OSError, SafetensorError) as error:
            raise UsageError(
                f"calibration samples cannot be kept in {self._folder.parent} ({error}). Make "
                "room, or let TMPDIR name a folder on a larger disk."
            ) from None

    def _written(self, number: int, call: Call) -> tuple[list[Any], tree.TreeSpec, str]:
        """Tensors go into the file; returns the rest of the call."""
        leaves, spec = tree.tree_flatten((call.args, dict(call.kwargs), call.real))
        tensors = {str(i): leaf for i, leaf in enumerate(leaves) if torch.is_tensor(leaf)}
        # Views of one tensor are refused by safetensors.
        apart = {name: tensor.detach().contiguous().clone() for name, tensor in tensors.items()}
        with self._explained():
            save_file(apart, self._path(number))
        rest = [None if torch.is_tensor(leaf) else leaf for leaf in leaves]
        return rest, spec, str(call.real.device)


@dataclass(frozen=True)
class Visit:
    """A decoder layer, free to be changed, and what it is called with in the network as it came."""

    name: str
    """Dotted, of the layer in the network."""
    layer: nn.Module
    calls: Calls
    after: Calls
    """What follows the layer, call by call: the next layer is called with it."""


def walk(
    network: nn.Module, anatomy: Anatomy, batches: Sequence[Mapping[str, Any]]
) -> Iterator[Visit]:
    """Visit every decoder layer in order, with the calls that `batches` of inputs lead to.

    Files are in a temporary folder (TMPDIR), deleted when the walk ends.

    Raises:
        UsageError: between layers, or to some alone, something is given that a walk cannot know.
    """
    network.eval()
    layers: Any = network.get_submodule(anatomy.layers)
    expected = _in_one_piece(network, anatomy, batches[0]) if len(batches) else []
    with tempfile.TemporaryDirectory(prefix="vlmbench-calibration-") as named:
        folder = Path(named)
        calls = Calls(folder / "0", _first_calls(network, anatomy, layers[0], batches))
        for index, layer in enumerate(layers):
            if expected:
                _check_arrival(layer, next(iter(calls)), expected[index])
            after = Calls(folder / str(index + 1), _passed(layer, calls))
            yield Visit(f"{anatomy.layers}.{index}", layer, calls, after)
            calls.delete()
            calls = after


def inputs_of(
    layer: nn.Module, names: Iterable[str], calls: Iterable[Call], reduce: Reduce
) -> dict[str, Tensor]:
    """Fold `reduce` over the inputs of each named module of `layer`, batch by batch."""
    made: dict[str, Tensor] = {}
    for call in calls:

        def take(name: str, inputs: Tensor, call: Call = call) -> None:
            made[name] = reduce(made.get(name), call.tokens(inputs))

        with _watched(layer, names, take):
            call.run(layer)
    return made


@contextmanager
def within(visit: Visit, name: str) -> Iterator[Visit]:
    """Visit the module `name` of a layer: what it is called with and what it gives, on disk.

    For a search that runs one block many times; the files last as long as the context.
    """
    block = visit.layer.get_submodule(name)
    with tempfile.TemporaryDirectory(prefix="vlmbench-calibration-") as folder:
        inner = (_caught(block, partial(call.run, visit.layer), call.real) for call in visit.calls)
        calls = Calls(Path(folder) / "calls", inner)
        made = (Call((call.run(block),), {}, call.real) for call in calls)
        after = Calls(Path(folder) / "after", made)
        yield Visit(f"{visit.name}.{name}", block, calls, after)


def gram(before: Tensor | None, inputs: Tensor) -> Tensor:
    """X^T X of inputs [tokens, dim], in float64: a reduction for `inputs_of`."""
    wide = inputs.double()
    return wide.T @ wide + (0 if before is None else before)


def absmax(before: Tensor | None, inputs: Tensor) -> Tensor:
    """The largest magnitude of each channel, [dim]: a reduction for `inputs_of`."""
    largest = inputs.abs().amax(0)
    return largest if before is None else largest.maximum(before)


def _passed(layer: nn.Module, calls: Calls) -> Iterator[Call]:
    for call in calls:
        yield Call((call.run(layer), *call.args[1:]), call.kwargs, call.real)


def _first_calls(
    network: Any, anatomy: Anatomy, first: nn.Module, batches: Sequence[Mapping[str, Any]]
) -> Iterator[Call]:
    for batch in batches:
        mask = batch.get("attention_mask")
        real = (torch.ones_like(batch["input_ids"]) if mask is None else mask).bool()
        real = real.to(next(network.parameters()).device)
        yield _caught(first, partial(_show, network, anatomy, batch), real)


def _show(network: Any, anatomy: Anatomy, batch: Mapping[str, Any]) -> None:
    device = next(network.parameters()).device
    moved = {name: value.to(device) for name, value in batch.items() if name != "labels"}
    if anatomy.modules("head"):
        network(**moved, use_cache=False)
    else:
        # One that chooses reads texts apart from pictures.
        network.get_text_features(moved["input_ids"], moved.get("attention_mask"))


@torch.no_grad()
def _in_one_piece(network: Any, anatomy: Anatomy, batch: Mapping[str, Any]) -> list[Tensor]:
    """The last token, [dim], that every layer is called with where the network runs as it is."""
    layers: Any = network.get_submodule(anatomy.layers)
    seen: list[Tensor] = []

    def note(layer: nn.Module, args: tuple[Any, ...]) -> None:
        seen.append(_last_token(args[0]))
        if layer is layers[-1]:
            raise _Stop

    hooks = [layer.register_forward_pre_hook(note) for layer in layers]
    try:
        with suppress(_Stop):
            _show(network, anatomy, batch)
    finally:
        for hook in hooks:
            hook.remove()
    return seen


def _check_arrival(layer: nn.Module, call: Call, expected: Tensor) -> None:
    missed = (_last_token(call.hidden) - expected).norm() / expected.norm()
    if not missed < _ARRIVAL:
        raise UsageError(
            f"{type(layer).__name__}: layers one after another make other hidden states than the "
            f"network does ({float(missed):.0%} off): it gives some of them what others do not "
            "get, or adds to what is between them. Take a recipe that needs no calibration."
        )


def _last_token(hidden: Tensor) -> Tensor:
    return hidden.detach().reshape(-1, hidden.shape[-1])[-1].clone()


class _Stop(Exception):
    """The module was reached: the rest of the network need not run."""


@torch.no_grad()
def _caught(module: nn.Module, run: Callable[[], object], real: Tensor) -> Call:
    """What `run` calls `module` with."""
    caught: list[Call] = []

    def stop(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        caught.append(Call(args, kwargs, real))
        raise _Stop

    hook = module.register_forward_pre_hook(stop, with_kwargs=True)
    try:
        run()
    except _Stop:
        return caught[0]
    finally:
        hook.remove()
    raise RuntimeError(f"{type(module).__name__} is not called by the network it is in")


@contextmanager
def _watched(
    layer: nn.Module, names: Iterable[str], take: Callable[[str, Tensor], None]
) -> Iterator[None]:
    def of(name: str) -> Callable[..., None]:
        return lambda module, args: take(name, args[0])

    hooks = [layer.get_submodule(n).register_forward_pre_hook(of(n)) for n in names]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()

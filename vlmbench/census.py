"""Proof of compression: what a loaded network really stores, against what its recipe promises.

To be taken before the first forward pass: on CPU, NF4 then packs its weights anew and gives up
double quantization, so bytes counted later differ from one machine to the next.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from math import ceil, prod
from typing import TYPE_CHECKING, Any

from vlmbench.compression.precision import AS_STORED
from vlmbench.errors import CensusError, UsageError
from vlmbench.spec import COMPONENTS, Anatomy, Compression

if TYPE_CHECKING:
    from torch import Tensor, nn

FLOAT_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
# A linear in NF4 may keep, beside its scales, the 16 levels, the 256 levels of the scales
# (both float32; shared between linears on some devices) and one offset.
_NF4_TABLES_BYTES = 4 * 16 + 4 * 256 + 4


@dataclass(frozen=True)
class Holding:
    """What the linears of one component hold ('other': everything that is no linear's weight)."""

    linears: Mapping[str, int]
    """Number of linears by how their weight is stored."""
    shapes: Mapping[str, int]
    """Number of linears by declared 'out x in', whatever is stored."""
    parameters: int
    """Logical elements, as declared."""
    weight_bytes: int
    state_bytes: int
    """Scales, offsets and tables that quantized weights need."""

    @property
    def bits_per_weight(self) -> float:
        """Bits a logical element, quantization state included; NaN where there is none."""
        held = 8 * (self.weight_bytes + self.state_bytes)
        return held / self.parameters if self.parameters else float("nan")


@dataclass(frozen=True)
class Census:
    """Every tensor of a network, tied ones once: vision, projector, decoder, head, kept, other."""

    components: Mapping[str, Holding]
    footprint_bytes: int

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Census:
        """Inverse of `to_dict`."""
        holdings = {name: Holding(**holding) for name, holding in data["components"].items()}
        return cls(holdings, data["footprint_bytes"])


def take(network: nn.Module, anatomy: Anatomy) -> Census:
    """Count `network`, which has not yet run.

    Raises:
        CensusError: the anatomy names a module that the network does not have.
    """
    from torch import nn

    _check_anatomy(network, anatomy)
    seen: set[int] = set()
    named = [name for name in COMPONENTS if anatomy.modules(name)]
    linears: dict[str, list[tuple[nn.Linear, int, int]]]
    linears = {name: [] for name in (*named, "other", *(("kept",) if anatomy.kept else ()))}
    for name, module in network.named_modules():
        if isinstance(module, nn.Linear) and _place(_weight(module)) not in seen:
            sizes = _count([_weight(module)], seen), _count(_state(module), seen)
            linears[_owner(anatomy, name)].append((module, *sizes))
    for matrix in network.get_submodule(anatomy.layers).parameters():
        if matrix.ndim > 1 and _place(matrix) not in seen:  # as experts in one tensor are
            stand_in = nn.Linear(matrix.shape[-1], matrix[..., 0].numel(), False, device="meta")
            stand_in.weight = matrix
            linears["decoder"].append((stand_in, _count([matrix], seen), 0))
    holdings = {name: _holding(members) for name, members in linears.items()}
    rest = [*network.parameters(), *network.buffers()]
    rest = [tensor for tensor in rest if _place(tensor) not in seen]
    holdings["other"] = _with_rest(holdings["other"], rest, seen)
    total = sum(held.weight_bytes + held.state_bytes for held in holdings.values())
    return Census(holdings, total)


def check_dtype(compression: Compression, dtype: str | None) -> None:
    """Refuse a dtype for unquantized weights that the recipe leaves no room for.

    Raises:
        UsageError: it is none, or contradicts the recipe.
    """
    if dtype is None:
        return
    if dtype not in FLOAT_BYTES:
        raise UsageError(f"dtype {dtype!r} is none of {', '.join(FLOAT_BYTES)}.")
    own = compression.storage("decoder")
    if own in (*FLOAT_BYTES, AS_STORED) and own != dtype:
        raise UsageError(
            f"dtype {dtype!r} contradicts {compression.name!r}, whose weights are {own}. Leave "
            "the dtype out; it is for what a quantizing recipe keeps unquantized."
        )


def verify(census: Census, compression: Compression, *, dtype: str | None = None) -> None:
    """Hold a census against the recipe's promise; `dtype` stands for the recipe's own float type.

    Raises:
        CensusError: a linear is stored otherwise, or a component's bytes cannot be right.
    """
    faults: list[str] = []
    for component in (name for name in COMPONENTS if name in census.components):
        promise = compression.storage(component)
        if dtype is not None and promise in FLOAT_BYTES:
            promise = dtype
        faults += _faults(component, census.components[component], promise)
    kept = census.components.get("kept")
    if kept and not set(kept.linears) <= set(FLOAT_BYTES):
        faults.append(f"kept: expected every linear as a float type, found {dict(kept.linears)}")
    strays = sum(census.components["other"].linears.values())
    if strays:
        faults.append(f"other: {strays} linears belong to no component of the anatomy")
    if faults:
        raise CensusError(
            f"the loaded model is not what {compression.name!r} promises:\n  "
            + "\n  ".join(faults)
            + "\nEither the recipe's load options or skip list do not match the module names in "
            "the model's anatomy (names must be full dotted names), or its storage() promises "
            "what it does not do, or the model has already run. Correct that one; never compare "
            "scores of this model."
        )


def _faults(component: str, held: Holding, promise: str) -> Iterator[str]:
    if promise == AS_STORED:
        return
    if set(held.linears) != {promise}:
        found = ", ".join(f"{n} {kind}" for kind, n in sorted(held.linears.items())) or "none"
        yield f"{component}: expected every linear as {promise}, found {found}"
        return
    expected = _expected_bytes(held, promise)
    obtained = held.weight_bytes + held.state_bytes
    if not any(low <= obtained <= high for low, high in expected):
        said = (f"{low:,}" if low == high else f"{low:,} to {high:,}" for low, high in expected)
        yield f"{component}: expected {' or '.join(said)} bytes as {promise}, found {obtained:,}"


def _expected_bytes(held: Holding, kind: str) -> list[tuple[int, int]]:
    """Least and most bytes of a component's linears, from declared shapes alone.

    Several where a kind allows for several granularities; all linears have the same.
    """
    shapes = [(*map(int, shape.split("x")), count) for shape, count in held.shapes.items()]
    sizes = ([count * size for size in _bytes(kind, *shape)] for *shape, count in shapes)
    slack = sum(held.shapes.values()) * _NF4_TABLES_BYTES if kind == "nf4" else 0
    return [(low, low + slack) for low in sorted(set(map(sum, zip(*sizes, strict=True))))]


def _bytes(kind: str, rows: int, columns: int) -> list[int]:
    """What a linear may take, state included: one entry a granularity of its scales."""
    size = rows * columns
    if kind in FLOAT_BYTES:
        return [FLOAT_BYTES[kind] * size]
    if kind == "int8":  # float32 scales, of a row, the layer or a group; maybe one for the input
        scales = (rows, 1, rows * _groups(columns))
        return [size + 4 * (own + input) for own in scales for input in (0, 1)]
    if kind == "int4":  # a float32 scale a group; maybe a byte for its zero
        return [size // 2 + each * rows * _groups(columns) for each in (4, 5)]
    if kind == "sparse24":  # two of four in bfloat16, and two bits for the place of each
        return [size + size // 8]
    if kind == "nf4":  # scales of 64 weights in a byte, scales of 256 scales in float32
        return [ceil(size / 2) + ceil(size / 64) + 4 * ceil(ceil(size / 64) / 256)]
    raise CensusError(
        f"storage() promises {kind!r}, which the census cannot size. Expected one of "
        f"{', '.join([*FLOAT_BYTES, 'int8', 'int4', 'sparse24', 'nf4'])}."
    )


def _groups(columns: int) -> int:
    from vlmbench.packed import GROUP, group_size

    try:
        return columns // group_size(columns, GROUP)
    except ValueError:  # such a linear has no groups
        return 1


def _check_anatomy(network: nn.Module, anatomy: Anatomy) -> None:
    named = [(part, name) for part in COMPONENTS for name in anatomy.modules(part)]
    for part, name in [*named, ("layers", anatomy.layers)]:
        try:
            network.get_submodule(name)
        except AttributeError:
            raise CensusError(
                f"the anatomy says {part} = {name!r}, but {type(network).__name__} has no such "
                "module. Expected a dotted name of the loaded model; correct the model's anatomy."
            ) from None


def _owner(anatomy: Anatomy, name: str) -> str:
    if anatomy.is_kept(name):
        return "kept"
    try:
        return anatomy.component(name)
    except KeyError:
        return "other"


def _weight(linear: nn.Linear) -> Tensor:
    """The weight as it is stored; another library may have it under another name."""
    weight: Tensor | None = getattr(linear, "weight", None)
    if weight is not None:
        return weight
    own = (held for name, held in linear.named_parameters(recurse=False) if name != "bias")
    return max(own, key=lambda held: held.numel() * held.element_size())


def _kind(linear: nn.Linear) -> str:
    """How the weight is stored: a float type, int8, int4, sparse24, nf4; else by a telling name."""
    weight, declared = _weight(linear), linear.in_features * linear.out_features
    quant_state = getattr(weight, "quant_state", None)
    if quant_state is not None:
        doubly = getattr(quant_state, "nested", False)
        return str(quant_state.quant_type) if doubly else f"{quant_state.quant_type} (scales kept)"
    if weight.element_size() == 4 and not weight.is_floating_point():
        return f"int{32 * weight.numel() / declared:g}"  # several to a word
    if 2 * weight.numel() == declared:
        return "int4" if weight.element_size() == 1 else "sparse24"
    return str(weight.dtype).removeprefix("torch.")


def _state(linear: nn.Linear) -> Iterator[Tensor]:
    """Every tensor beside the weight and bias: bitsandbytes keeps them in plain attributes."""
    import torch

    weight = _weight(linear)
    own = linear.named_parameters(recurse=False)
    yield from (held for name, held in own if held is not weight and name != "bias")
    yield from linear.buffers(recurse=False)
    quant_state = getattr(weight, "quant_state", None)
    holders = (
        weight,
        getattr(linear, "state", None),
        quant_state,
        getattr(quant_state, "state2", None),
    )
    for holder in holders:
        if holder is not None:
            yield from (value for value in vars(holder).values() if torch.is_tensor(value))


def _place(tensor: Tensor) -> int:
    """What tells a tensor from others; one that is left on disk has no address."""
    return tensor.data_ptr() or id(tensor)


def _count(tensors: Iterable[Tensor], seen: set[int]) -> int:
    """Bytes of the tensors not in `seen`, which they join."""
    total = 0
    for tensor in tensors:
        if _place(tensor) not in seen:
            seen.add(_place(tensor))
            total += tensor.numel() * tensor.element_size()
    return total


def _holding(members: list[tuple[nn.Linear, int, int]]) -> Holding:
    shapes = Counter(f"{linear.out_features}x{linear.in_features}" for linear, _, _ in members)
    return Holding(
        linears=dict(Counter(_kind(linear) for linear, _, _ in members)),
        shapes=dict(shapes),
        parameters=sum(linear.out_features * linear.in_features for linear, _, _ in members),
        weight_bytes=sum(weight for _, weight, _ in members),
        state_bytes=sum(state for _, _, state in members),
    )


def _with_rest(other: Holding, rest: list[Tensor], seen: set[int]) -> Holding:
    """`other` with embeddings, norms, biases, convolutions and buffers added."""
    unique = {_place(tensor): tensor for tensor in rest}
    elements = sum(prod(tensor.shape) for tensor in unique.values())
    return Holding(
        linears=other.linears,
        shapes=other.shapes,
        parameters=other.parameters + elements,
        weight_bytes=other.weight_bytes + _count(unique.values(), seen),
        state_bytes=other.state_bytes,
    )

"""The one training loop: fine-tuning of compressed models and the embedded checkpoints alike.

A step's batch depends on the step's number alone, so a run that was stopped goes on from its last
saved state as if it had never stopped.
"""

from __future__ import annotations

import itertools
import json
import logging
import math
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_start_method
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from vlmbench.errors import CheckpointError, NumericsError

if TYPE_CHECKING:
    from torch import Tensor, nn

    Batch = dict[str, Tensor]


_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """How long and how fast: learning rates rise over `warmup` steps, then fall to `floor`."""

    steps: int
    muon_rate: float = 0.0
    """Learning rate of Muon for the matrices; 0: AdamW takes them as well."""
    adamw_rate: float = 4e-5
    warmup: int = 50
    floor: float = 0.02
    weight_decay: float = 0.01
    clip: float = 1.0
    save_every: int = 200
    half: bool = False
    """Whether products are made in bfloat16; weights, sums and the loss stay float32."""

    def scale(self, step: int) -> float:
        """Share of the peak learning rate at a step."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        done = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.floor + (1 - self.floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


class _Steps(torch.utils.data.Dataset["list[Batch]"]):
    """Batches by step number, so that a worker process can prepare them ahead."""

    def __init__(self, batch_at: Callable[[int], list[Batch]], first: int, steps: int) -> None:
        self.batch_at, self.first, self.steps = batch_at, first, steps

    def __len__(self) -> int:
        return max(0, self.steps - self.first)

    def __getitem__(self, index: int) -> list[Batch]:
        return self.batch_at(self.first + index)


def train(
    network: nn.Module,
    batch_at: Callable[[int], list[Batch]],
    loss_of: Callable[[Batch], Tensor],
    plan: Plan,
    *,
    folder: Path,
    watch: Callable[[int, float], None] = lambda step, loss: None,
    device: str = "cpu",
) -> None:
    """Train `network` in place, resuming from `folder` where a state is saved.

    A step's batch comes in parts, each weighing the same, whose gradients add up.
    `watch` is called after every step with its number and loss. Where the state cannot be saved,
    that is logged, and the training goes on.

    Raises:
        CheckpointError: the saved state is damaged or of another network.
        NumericsError: the loss is not finite.
    """
    optimizers = _optimizers(network, plan)
    first = _resume(network, optimizers, folder)
    # Closures do not pass to a worker that is spawned: where none is forked, there is none.
    forks = get_start_method() == "fork"
    ahead: dict[str, Any] = {"num_workers": 1, "prefetch_factor": 6} if forks else {}
    steps = _Steps(batch_at, first, plan.steps)
    loader: Iterable[list[Batch]]
    loader = torch.utils.data.DataLoader(steps, batch_size=None, **ahead)
    network.train()

    def learn(part: Batch, of: int) -> float:
        moved = {name: tensor.to(device) for name, tensor in part.items()}
        with torch.autocast(device.split(":")[0], torch.bfloat16, enabled=plan.half):
            loss = loss_of(moved) / of
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.item()

    # Parts go side by side: small matrices gain nothing from threads inside an operation.
    with ThreadPoolExecutor() as pool:
        for step, parts in enumerate(loader, start=first):
            total = sum(pool.map(learn, parts, itertools.repeat(len(parts))))
            if not math.isfinite(total):
                raise NumericsError(f"the loss of step {step} is {total}: lower the rate")
            torch.nn.utils.clip_grad_norm_(network.parameters(), plan.clip)
            for optimizer, rate in optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = rate * plan.scale(step)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            watch(step, total)
            if (step + 1) % plan.save_every == 0 or step + 1 == plan.steps:
                _save(network, optimizers, folder, step + 1)
    network.eval()


_LOOKUPS = "embed_tokens", "token_embedding", "embed_positions"


def _optimizers(network: nn.Module, plan: Plan) -> list[tuple[torch.optim.Optimizer, float]]:
    named = {n: p for n, p in network.named_parameters() if p.requires_grad}
    # Muon is for hidden matrices; embeddings (and a head tied to them) are lookups, not maps.
    matrices = [
        p
        for name, p in named.items()
        if plan.muon_rate and p.ndim == 2 and not any(lookup in name for lookup in _LOOKUPS)
    ]
    kept = {id(p) for p in matrices}
    rest = [p for p in named.values() if id(p) not in kept]
    adamw = torch.optim.AdamW(
        rest, lr=plan.adamw_rate, betas=(0.9, 0.98), weight_decay=plan.weight_decay
    )
    if not matrices:
        return [(adamw, plan.adamw_rate)]
    muon = torch.optim.Muon(
        matrices, lr=plan.muon_rate, weight_decay=plan.weight_decay, adjust_lr_fn="match_rms_adamw"
    )
    return [(muon, plan.muon_rate), (adamw, plan.adamw_rate)]


def _tensors(network: nn.Module, optimizers: Iterable[tuple[Any, float]]) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {f"network.{n}": p for n, p in network.named_parameters()}
    for i, (optimizer, _) in enumerate(optimizers):
        for key, state in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{i}.{key}.{n}": torch.as_tensor(v) for n, v in state.items()}
    return {name: tensor.detach().contiguous().clone() for name, tensor in tensors.items()}


def _save(network: nn.Module, optimizers: Any, folder: Path, done: int) -> None:
    part = folder / "state.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        save_file(_tensors(network, optimizers), part, metadata={"done": json.dumps(done)})
        part.replace(folder / "state.safetensors")
    except (OSError, SafetensorError) as error:
        with suppress(OSError):
            part.unlink()
        _LOG.warning(
            "the training goes on, but what it has reached by step %d cannot be kept in %s: %s",
            done,
            folder,
            error,
        )


def _resume(network: nn.Module, optimizers: Any, folder: Path) -> int:
    path = folder / "state.safetensors"
    if not path.exists():
        return 0
    try:
        with safe_open(path, "pt") as opened:
            done = int(json.loads(opened.metadata()["done"]))
        tensors = load_file(path)
    except (SafetensorError, TypeError, KeyError, ValueError) as error:
        raise CheckpointError(
            f"{path} is no state of a training ({error}); delete the folder to restart"
        ) from None
    parameters = dict(network.named_parameters())
    saved = {n.removeprefix("network."): t for n, t in tensors.items() if n.startswith("network.")}
    if {n: t.shape for n, t in saved.items()} != {n: p.shape for n, p in parameters.items()}:
        raise CheckpointError(f"{path} was saved by another network; delete the folder to restart")
    with torch.no_grad():
        for name, tensor in saved.items():
            parameters[name].copy_(tensor)
    for i, (optimizer, _) in enumerate(optimizers):
        _restore(optimizer, f"optimizer.{i}.", tensors)
    return done


def _restore(optimizer: Any, prefix: str, tensors: Mapping[str, Tensor]) -> None:
    states: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith(prefix):
            key, entry = name.removeprefix(prefix).split(".", 1)
            states.setdefault(int(key), {})[entry] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": states})

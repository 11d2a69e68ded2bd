"""The fine-tuning that recipes share: which weights learn, on what, and how it is shown."""

from __future__ import annotations

import math
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, TextIO

import torch
from torch import Tensor, nn

from vlmbench import pruning, scaling
from vlmbench.errors import UsageError
from vlmbench.prompting import IGNORED
from vlmbench.spec import Anatomy, TrainData
from vlmbench.training import Plan, train

if TYPE_CHECKING:
    from vlmbench.compression.finetune import FineTune

    Inputs = Mapping[str, Tensor]

_STEP = "step"
_SAVE_EVERY = 50
_TERMINAL = Path("/dev/tty")


def finetune(network: Any, anatomy: Anatomy, data: TrainData, tuning: FineTune) -> None:
    """Train the decoder in place; resumed from `data.work` where an earlier session stopped."""
    batches = data.batches(tuning.mixture, tuning.batch)
    device = next(network.parameters()).device
    plan = Plan(
        steps=tuning.epochs * len(batches),
        adamw_rate=tuning.rate * min(1.0, tuning.width / _width(network, anatomy)),
        save_every=_SAVE_EVERY,
        half=device.type == "cuda" or torch.cpu._is_amx_tile_supported(),
    )

    def batch_at(step: int) -> list[dict[str, Tensor]]:
        epoch, place = divmod(step, len(batches))
        order = list(range(len(batches)))
        Random(f"{tuning.mixture.seed}/{epoch}").shuffle(order)
        return [{**batches[order[place]], _STEP: torch.tensor(step)}]

    def loss(batch: dict[str, Tensor]) -> Tensor:
        # By the step: what is dropped out is the same where a training goes on.
        torch.manual_seed(tuning.mixture.seed + int(batch.pop(_STEP)))
        return answer_loss(network, batch)

    bar = _bar(tuning.name, plan.steps)
    with _threads(), _learner(network, anatomy, tuning) as learner, bar as watch:
        train(
            learner,
            batch_at,
            loss,
            plan,
            folder=data.work / tuning.name,
            watch=watch,
            device=str(device),
        )


def _width(network: nn.Module, anatomy: Anatomy) -> int:
    """What the decoder's first linear takes: its hidden size."""
    layers = network.get_submodule(anatomy.layers)
    return next(m.in_features for m in layers.modules() if isinstance(m, nn.Linear))


@contextmanager
def _threads() -> Iterator[None]:
    """Leave one core to the worker that decodes: threads that wait for it cost more than it."""
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, before - 1))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def answer_loss(network: Any, batch: Inputs) -> Tensor:
    """Cross entropy of the answers' tokens: `labels` [batch, tokens], IGNORED elsewhere.

    An answer counts as much as the root of its length: by tokens alone, a batch would be about
    captions, and letters would hardly count.
    """
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    wanted = batch["labels"][:, 1:]
    logits = network(**inputs, use_cache=False).logits[:, :-1]
    asked = wanted != IGNORED
    missed = nn.functional.cross_entropy(logits[asked].float(), wanted[asked], reduction="none")
    weights = (asked / asked.sum(1, keepdim=True).clamp(min=1).sqrt())[asked]
    return (missed * weights).sum() / weights.sum()


@contextmanager
def _learner(network: Any, anatomy: Anatomy, tuning: FineTune) -> Iterator[nn.Module]:
    """What learns: the decoder's layers alone, until the block ends; then all is as it was."""
    kept = {name: weight.requires_grad for name, weight in network.named_parameters()}
    # Words stay as they are: a head may be tied to them.
    inside = anatomy.layers + "."
    for name, weight in network.named_parameters():
        weight.requires_grad_(name.startswith(inside))
    torch.manual_seed(tuning.mixture.seed)
    layers: Any = network.get_submodule(anatomy.layers)
    with scaling.evened(layers, anatomy.feeds), pruning.zeros_kept(layers) as sparse:
        if sparse and tuning.lora_rank is not None:
            raise UsageError(
                f"{tuning.name}: low-rank updates would fill the zeros of {sparse} linears that "
                "were pruned. Fine-tune all weights (ft), which leaves zeros alone."
            )
        if tuning.lora_rank is None:
            yield network
        else:
            adapted = _adapted(network, inside, tuning.lora_rank)
            yield adapted
            adapted.merge_and_unload()
    for name, weight in network.named_parameters():
        weight.requires_grad_(kept[name])


def _adapted(network: Any, inside: str, rank: int) -> Any:
    peft = _peft()
    linears = [
        name
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear) and name.startswith(inside)
    ]
    config = peft.LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=linears)
    with warnings.catch_warnings():
        # It asks transformers for something by its old name.
        warnings.filterwarnings("ignore", ".*is_gradient_checkpointing", FutureWarning)
        return peft.get_peft_model(network, config)


def _peft() -> Any:
    try:
        import peft
    except ImportError:
        raise UsageError(
            "low-rank updates need peft, which is not installed: pip install 'vlmbench[lora]'"
        ) from None
    return peft


@contextmanager
def _bar(name: str, steps: int) -> Iterator[Callable[[int, float], None]]:
    from tqdm import tqdm

    with _screen() as screen:
        bar = tqdm(total=steps, desc=name, unit="step", mininterval=5, leave=False, file=screen)

        def watch(step: int, loss: float) -> None:
            bar.n = step + 1
            told = f"{loss:.3f}" if math.isfinite(loss) else "not finite"
            bar.set_postfix(loss=told, refresh=False)
            bar.update(0)

        with bar:
            yield watch


@contextmanager
def _screen() -> Iterator[TextIO]:
    """Standard error; where pytest captures it, the terminal that somebody may watch.

    Not in several workers, whose bars would mix, and not on CI.
    """
    hidden = "PYTEST_CURRENT_TEST" in os.environ
    terminal = None
    if hidden and not any(map(os.environ.get, ("CI", "PYTEST_XDIST_WORKER"))):
        with suppress(OSError):
            terminal = _TERMINAL.open("w")
    with terminal or nullcontext(sys.stderr) as screen:
        yield screen

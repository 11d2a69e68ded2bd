"""The fine-tuning that recipes share: which weights learn, on what, and how it is shown."""

from __future__ import annotations

import math
from collections.abc import Mapping
from random import Random
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from vlmbench.errors import UsageError
from vlmbench.prompting import IGNORED
from vlmbench.spec import Anatomy, TrainData
from vlmbench.training import Plan, train

if TYPE_CHECKING:
    from vlmbench.compression.finetune import FineTune

    Inputs = Mapping[str, Tensor]


def finetune(network: Any, anatomy: Anatomy, data: TrainData, tuning: FineTune) -> None:
    """Train the decoder in place; resumed from `data.work` where an earlier session stopped."""
    batches = data.batches(tuning.mixture, tuning.batch)
    device = next(network.parameters()).device
    plan = Plan(
        steps=tuning.epochs * len(batches),
        adamw_rate=tuning.rate,
        save_every=50,
        half=device.type == "cuda" or torch.cpu._is_amx_tile_supported(),
    )

    def batch_at(step: int) -> list[dict[str, Tensor]]:
        epoch, place = divmod(step, len(batches))
        order = list(range(len(batches)))
        Random(f"{tuning.mixture.seed}/{epoch}").shuffle(order)
        return [dict(batches[order[place]])]

    torch.manual_seed(tuning.mixture.seed)
    learner, done = _learner(network, anatomy, tuning.lora_rank)
    train(
        learner,
        batch_at,
        lambda batch: answer_loss(network, batch),
        plan,
        folder=data.work / tuning.name,
        watch=_bar(tuning.name, plan.steps),
        device=str(device),
    )
    done()


def answer_loss(network: Any, batch: Inputs) -> Tensor:
    """Mean cross entropy of the answers' tokens: `labels` [batch, tokens], IGNORED elsewhere."""
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    wanted = batch["labels"][:, 1:]
    logits = network(**inputs, use_cache=False).logits[:, :-1]
    asked = wanted != IGNORED
    return nn.functional.cross_entropy(logits[asked].float(), wanted[asked])


def _learner(network: Any, anatomy: Anatomy, lora_rank: int | None) -> tuple[nn.Module, Any]:
    """What learns, and what is to be done when it has."""
    kept = {name: weight.requires_grad for name, weight in network.named_parameters()}

    def thaw() -> None:
        for name, weight in network.named_parameters():
            weight.requires_grad_(kept[name])

    # Words stay as they are: a head may be tied to them.
    inside = anatomy.layers + "."
    if lora_rank is None:
        for name, weight in network.named_parameters():
            weight.requires_grad_(name.startswith(inside))
        return network, thaw
    peft = _peft()
    linears = [
        name
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear) and name.startswith(inside)
    ]
    config = peft.LoraConfig(r=lora_rank, lora_alpha=2 * lora_rank, target_modules=linears)
    adapted = peft.get_peft_model(network, config)

    def merge() -> None:
        adapted.merge_and_unload()
        thaw()

    return adapted, merge


def _peft() -> Any:
    try:
        import peft
    except ImportError:
        raise UsageError(
            "low-rank updates need peft, which is not installed: pip install 'vlmbench[lora]'"
        ) from None
    return peft


def _bar(name: str, steps: int) -> Any:
    from tqdm import tqdm

    bar = tqdm(total=steps, desc=name, unit="step", mininterval=5, leave=False)

    def watch(step: int, loss: float) -> None:
        bar.n = step + 1
        bar.set_postfix(loss=f"{loss:.3f}" if math.isfinite(loss) else "not finite", refresh=False)
        bar.update(0)
        if step + 1 == steps:
            bar.close()

    return watch

"""What is learnt from lessons: their answers, and the steps that lead to a letter."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers.models.qwen2_vl.modeling_qwen2_vl import apply_rotary_pos_emb

from vlmbench.embedded.sequences import ELDER, KNOWN_AFTER, SOUGHT_IN, Inputs, visible
from vlmbench.prompting import IGNORED
from vlmbench.spec import Anatomy

_TAUGHT = ("labels", "weights", "segments", "sought", *KNOWN_AFTER)
"""What a batch holds beside the network's inputs."""


def loss(
    network: Any, anatomy: Anatomy, batch: Inputs, *, steps: bool = False, elder: Any = None
) -> Tensor:
    """Of the answers, and with `steps` of those that lead to a letter.

    Steps (KNOWN_AFTER, SOUGHT_IN) are read from the hidden states; the network has no part
    that is only for them. With `elder`, a network of as many layers, what it thinks while it
    answers is imitated layer by layer.
    """
    theirs = {n.removeprefix(ELDER): given for n, given in batch.items() if n.startswith(ELDER)}
    batch = {name: given for name, given in batch.items() if not name.startswith(ELDER)}
    mask = visible(batch["segments"])
    out = _thoughts(network, batch, mask, told=steps or elder is not None)
    (named,) = anatomy.modules("head")
    decoder, head = network.get_submodule(anatomy.decoder), network.get_submodule(named)
    asked = batch["labels"][:, 1:] != IGNORED
    total = answered(head(out.last_hidden_state[:, :-1][asked]), batch)
    if elder is not None:
        with torch.no_grad():
            known = _thoughts(elder, theirs, visible(theirs["segments"]), told=True)
        due = theirs["labels"][:, 1:] != IGNORED
        total = total + _unlike(out.hidden_states, asked, known.hidden_states, due)
    if not steps:
        return total
    for name, layers in KNOWN_AFTER.items():
        due = batch[name] != IGNORED
        early = head(decoder.norm(out.hidden_states[layers][due]))
        total = total + _mean(early, batch[name][due])
    return total + _sought(decoder, out.hidden_states, batch, mask)


def _thoughts(network: Any, batch: Inputs, mask: Tensor, *, told: bool) -> Any:
    inputs = {name: given for name, given in batch.items() if name not in _TAUGHT}
    return network.model(**inputs, attention_mask=mask, use_cache=False, output_hidden_states=told)


def _unlike(
    mine: tuple[Tensor, ...], asked: Tensor, theirs: tuple[Tensor, ...], due: Tensor
) -> Tensor:
    """Mean squared difference of hidden states, in shares of the variance of theirs.

    `asked` and `due` mark, in sequences of one model and the other, where the next token of the
    same answers is due.
    """
    errors = []
    for one, other in zip(mine[1:], theirs[1:], strict=True):
        wanted = other[:, :-1][due]
        error = (one[:, :-1][asked] - wanted).square().mean()
        errors.append(error / wanted.var(0).mean())
    return torch.stack(errors).mean()


def answered(logits: Tensor, batch: Inputs) -> Tensor:
    """Mean cross entropy of the answers' tokens [tokens, words], weighed as `encode` says."""
    labels, weights = batch["labels"][:, 1:], batch["weights"][:, 1:]
    asked = labels != IGNORED
    each = nn.functional.cross_entropy(logits, labels[asked], reduction="none")
    return (each * weights[asked]).sum() / weights[asked].sum()


def _mean(logits: Tensor, wanted: Tensor) -> Tensor:
    """Mean cross entropy; 0 of nothing."""
    return nn.functional.cross_entropy(logits, wanted, reduction="sum") / max(1, len(wanted))


def _sought(decoder: Any, hidden: tuple[Tensor, ...], batch: Inputs, mask: Tensor) -> Tensor:
    """Cross entropy of where the first head of layer SOUGHT_IN looks."""
    layer = decoder.layers[SOUGHT_IN]
    at = layer.input_layernorm(hidden[SOUGHT_IN])
    queries, keys = _of_first_head(layer.self_attn, at)
    turned = decoder.rotary_emb(at, batch["position_ids"])
    queries, keys = (part[:, 0] for part in apply_rotary_pos_emb(queries, keys, *turned))
    due = batch["sought"] != IGNORED
    looks = torch.einsum("nd,ntd->nt", queries[due], keys[due.nonzero()[:, 0]])
    looks = (looks * layer.self_attn.scaling).masked_fill(~mask[:, 0][due], -torch.inf)
    return _mean(looks, batch["sought"][due])


def _of_first_head(attention: Any, at: Tensor) -> tuple[Tensor, Tensor]:
    """Queries and keys [batch, 1, tokens, dim], from linears of their own or from one (Phi-3)."""
    dim = attention.head_dim
    if hasattr(attention, "qkv_proj"):
        together = attention.qkv_proj(at)
        first = attention.config.num_attention_heads * dim
        parts = together[..., :dim], together[..., first : first + dim]
    else:
        parts = attention.q_proj(at)[..., :dim], attention.k_proj(at)[..., :dim]
    return parts[0][:, None], parts[1][:, None]

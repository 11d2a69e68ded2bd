"""What is learnt from lessons: their answers, and the steps that lead to a letter."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers.models.qwen2_vl.modeling_qwen2_vl import apply_rotary_pos_emb

from vlmbench.embedded.sequences import KNOWN_AFTER, SOUGHT_IN, Inputs, visible
from vlmbench.prompting import IGNORED
from vlmbench.spec import Anatomy

_TAUGHT = ("labels", "weights", "segments", "sought", *KNOWN_AFTER)
"""What a batch holds beside the network's inputs."""


def loss(network: Any, anatomy: Anatomy, batch: Inputs, *, steps: bool = False) -> Tensor:
    """Of the answers, and with `steps` of those that lead to a letter.

    Steps (KNOWN_AFTER, SOUGHT_IN) are read from the hidden states; the network has no part
    that is only for them.
    """
    inputs = {name: given for name, given in batch.items() if name not in _TAUGHT}
    mask = visible(batch["segments"])
    out = network.model(**inputs, attention_mask=mask, use_cache=False, output_hidden_states=steps)
    (named,) = anatomy.modules("head")
    decoder, head = network.get_submodule(anatomy.decoder), network.get_submodule(named)
    asked = batch["labels"][:, 1:] != IGNORED
    total = answered(head(out.last_hidden_state[:, :-1][asked]), batch)
    if not steps:
        return total
    for name, layers in KNOWN_AFTER.items():
        due = batch[name] != IGNORED
        early = head(decoder.norm(out.hidden_states[layers][due]))
        total = total + _mean(early, batch[name][due])
    return total + _sought(decoder, out.hidden_states, batch, mask)


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
    split = (*at.shape[:2], -1, layer.self_attn.head_dim)
    queries, keys = (
        project(at).view(split)[:, :, :1].transpose(1, 2)
        for project in (layer.self_attn.q_proj, layer.self_attn.k_proj)
    )
    turned = decoder.rotary_emb(at, batch["position_ids"])
    queries, keys = (part[:, 0] for part in apply_rotary_pos_emb(queries, keys, *turned))
    due = batch["sought"] != IGNORED
    looks = torch.einsum("nd,ntd->nt", queries[due], keys[due.nonzero()[:, 0]])
    looks = (looks * layer.self_attn.scaling).masked_fill(~mask[:, 0][due], -torch.inf)
    return _mean(looks, batch["sought"][due])

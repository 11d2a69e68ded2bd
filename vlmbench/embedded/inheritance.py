"""What a checkpoint takes over from one that is trained: a decoder, words, how labels are said."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from transformers import AutoProcessor, AutoTokenizer

from vlmbench import architectures, catalogue
from vlmbench.embedded import CHECKPOINTS, attending, outliers
from vlmbench.embedded.labels import ABSENT, CLASSES, SLOTS, split
from vlmbench.embedded.school import SEED
from vlmbench.errors import CheckpointError

PARENT = "qwen2"
"""Whose words all others begin with."""
LOUD = 0.2
# A token that is written otherwise does what the parent's does; Qwen2 begins a turn, not a text.
_USES = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "bos_token": "<|im_start|>"}


def processor_of(name: str) -> Any:
    """The processor of a trained checkpoint."""
    load: Any = AutoProcessor.from_pretrained
    return load(_folder(name))


def tokenizer_of(name: str) -> Any:
    """The tokenizer of a trained checkpoint."""
    return AutoTokenizer.from_pretrained(_folder(name))


def parent(name: str) -> Any:
    """A trained checkpoint in float32, without its outliers, which stays as it is."""
    model = catalogue.models()[name]
    network: Any = architectures.find(model.architecture)
    network = network.from_pretrained(
        _folder(name), dtype=torch.float32, attn_implementation=attending.NAME
    )
    layers = network.get_submodule(model.anatomy.layers)
    outliers.take_out(layers, torch.Generator().manual_seed(SEED))
    return network.requires_grad_(False).eval()


def _folder(name: str) -> str:
    folder = CHECKPOINTS / name
    if not folder.is_dir():
        raise CheckpointError(
            f"{folder} is to be taken over and is not there: "
            f"python -m vlmbench.embedded train {name}"
        )
    return str(folder)


@torch.no_grad()
def take_over(mine: tuple[Any, Any], theirs: tuple[Any, Any], tokenizers: tuple[Any, Any]) -> None:
    """Layers and words, heard and said; `mine` and `theirs` are each a decoder and its head.

    `tokenizers`: mine and theirs. The biases of Qwen2's queries, keys and values have no place in
    the others.
    """
    (decoder, head), (elder, said) = mine, theirs
    known = dict(_apart(elder))
    heard = known["embed_tokens.weight"]
    if "layers.0.self_attn.qkv_proj.weight" in decoder.state_dict():
        known = dict(_fused(known))
    known["embed_tokens.weight"] = with_uses(heard, tokenizers)
    missing, unknown = decoder.load_state_dict(known, strict=False)
    # A decoder may hold the tower.
    assert not unknown and not [n for n in missing if n.startswith(("layers", "norm"))]
    head.weight.copy_(with_uses(said.weight, tokenizers))


def with_uses(words: Tensor, tokenizers: tuple[Any, Any]) -> Tensor:
    """Words [words, dim] with those that begin, end and fill up a text where mine are.

    `tokenizers`: mine and theirs.
    """
    mine, theirs = tokenizers
    moved = words.clone()
    for use, written in _USES.items():
        number = theirs.convert_tokens_to_ids(getattr(theirs, use) or written)
        moved[mine.convert_tokens_to_ids(getattr(mine, use))] = words[number]
    return moved


def _apart(elder: Any) -> Iterator[tuple[str, Tensor]]:
    """Words and layers with a linear each for queries, keys, values, gate and up."""
    config = elder.config
    # A head's width is left out of some configurations.
    dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    heads = config.num_attention_heads, *[config.num_key_value_heads] * 2
    for name, weight in elder.state_dict().items():
        if name.endswith("qkv_proj.weight"):
            for part, one in zip("qkv", weight.split([dim * n for n in heads]), strict=True):
                yield name.replace("qkv_proj", f"{part}_proj"), one
        elif name.endswith("gate_up_proj.weight"):
            for part, one in zip(("gate", "up"), weight.chunk(2), strict=True):
                yield name.replace("gate_up_proj", f"{part}_proj"), one
        elif name.startswith(("layers", "norm", "embed_tokens")) and not name.endswith("proj.bias"):
            yield name, weight


def _fused(known: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Layers as Phi-3 has them: queries, keys and values in one, gate and up in one."""
    for name, weight in known.items():
        if name.endswith("q_proj.weight"):
            parts = [known[name.replace("q_proj", f"{part}_proj")] for part in "qkv"]
            yield name.replace("q_proj", "qkv_proj"), torch.cat(parts)
        elif name.endswith("gate_proj.weight"):
            up = known[name.replace("gate_proj", "up_proj")]
            yield name.replace("gate_proj", "gate_up_proj"), torch.cat([weight, up])
        elif not name.endswith(("k_proj.weight", "v_proj.weight", "up_proj.weight")):
            yield name, weight


@torch.no_grad()
def words(told: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
    """How a decoder is told each label: [numbers + 1, dim], the last row what it is always told.

    `told`: what its projector makes of tokens, [tokens, dim], and their labels.
    """
    said, named = zip(*told, strict=True)
    return solved(numbers(torch.cat(named)), torch.cat(said))


@torch.no_grad()
def begin_words(heard: Any, places: Any, tokenizer: Any) -> None:
    """Begin a text's embeddings: words as Qwen2-VL knows them, and places that tell neighbours.

    Source of the places: Vaswani et al., arXiv 1706.03762, 3.5, about as loud as the words.
    """
    theirs = parent(PARENT).get_input_embeddings().weight
    heard.weight.copy_(with_uses(theirs, (tokenizer, tokenizer_of(PARENT))))
    count, dim = places.weight.shape
    turns = torch.arange(count)[:, None] * 1e4 ** -(torch.arange(0, dim, 2) / dim)
    places.weight.copy_(LOUD * torch.cat([turns.sin(), turns.cos()], dim=1))


def numbers(labels: Tensor) -> Tensor:
    """Labels [tokens, len(CLASSES) + SHADES], their classes as 0 and 1; unknown is nothing.

    A slot that has no place for a character is not even that: all of its classes are 0.
    """
    classes, shades = split(labels)
    known, there = classes.clamp(min=0), classes != ABSENT
    named = [
        torch.nn.functional.one_hot(known[:, i], size) * there[:, i, None]
        for i, size in enumerate(CLASSES)
    ]
    return torch.cat([*named, shades], dim=1)


def said(labels: Tensor, words: Tensor) -> Tensor:
    """What a decoder is told of labels, [tokens, dim]."""
    return with_one(numbers(labels)) @ words


def misspoken(heard: Tensor, wanted: Tensor, labels: Tensor) -> Tensor:
    """Squared error of what is said of labels, both [tokens, dim], in shares of the variance."""
    counts = weights(labels)
    missed = (heard - wanted).square().mean(1) * counts
    spread = (wanted - wanted.mean(0)).square().mean(1) * counts
    return missed.sum() / spread.sum()


def weights(labels: Tensor) -> Tensor:
    """What tokens count for, [tokens].

    One that shows something counts for more, and most one that shows a thing, which stands in one
    of fifty.
    """
    shown = labels[:, : len(CLASSES)] > 0
    return 1 + 4 * shown.any(1) + 5 * shown[:, SLOTS]


def with_one(inputs: Tensor) -> Tensor:
    """Inputs with a last column of 1, for what is always said."""
    return torch.cat([inputs, torch.ones(len(inputs), 1)], dim=1)


def solved(inputs: Tensor, outputs: Tensor) -> Tensor:
    """The linear map with a constant, [inputs + 1, outputs], that comes nearest."""
    found: Tensor = torch.linalg.lstsq(with_one(inputs), outputs, driver="gelsd").solution
    return found

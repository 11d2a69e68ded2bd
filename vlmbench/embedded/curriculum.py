"""Lessons as sequences: what the questions on one picture share is computed once.

A sequence is a picture (or none), then every question on it with its answer. A question sees the
picture and itself, at the very positions it has when it is asked alone: what is learnt is exactly
what asking them one by one would teach, for a third of the work.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

import torch
from torch import Tensor, nn
from transformers.models.qwen2_vl.modeling_qwen2_vl import apply_rotary_pos_emb

from vlmbench.embedded import canvas, labels
from vlmbench.embedded.canvas import Canvas
from vlmbench.embedded.lessons import LESSONS, Lesson, exam
from vlmbench.prompting import IGNORED, decode_picture, encode_answered, render
from vlmbench.training import Plan

Inputs = dict[str, Tensor]


@dataclass(frozen=True)
class Stage:
    """Lessons by weight, and how long they are taught."""

    name: str
    plan: Plan
    weights: dict[str, float]
    batch: int = 24
    sight: bool = True
    """Whether pictures are seen by the tower, which learns as well; else labels are seen."""
    steps: bool = False
    """Whether the steps to a letter are taught as well."""


# What stands where is found before pages are read and letters looked up: a circuit forms while
# much of each batch is about it. What is left out is forgotten, so every lesson stays to the end.
FINDING = Stage(
    "finding",
    Plan(1200, muon_rate=5e-3, adamw_rate=3e-3, floor=0.6),
    {"scene": 0.45, "strip": 0.2, "page": 0.1, "choice": 0.15, "diagram": 0.1},
    sight=False,
)
ANSWERING = Stage(
    "answering",
    Plan(800, muon_rate=4e-3, adamw_rate=2e-3, floor=0.5),
    {"scene": 0.2, "strip": 0.1, "page": 0.25, "choice": 0.25, "diagram": 0.2},
    sight=False,
)
EXPLAINING = Stage(
    "explaining",
    Plan(600, muon_rate=3e-3, adamw_rate=1.5e-3, floor=0.5),
    {"scene": 0.12, "strip": 0.08, "page": 0.15, "choice": 0.15, "diagram": 0.5},
    sight=False,
)
SEEING = Stage(
    "seeing",
    Plan(800, muon_rate=2e-3, adamw_rate=1e-3, floor=0.4, save_every=100),
    {"scene": 0.25, "strip": 0.05, "page": 0.2, "choice": 0.1, "diagram": 0.4},
)
# A word is matched with its option on text first, which is cheap; then on diagrams.
MATCHING = Stage(
    "matching",
    Plan(300, muon_rate=3e-3, adamw_rate=1.5e-3, floor=0.3, save_every=50),
    {"scene": 0.08, "strip": 0.01, "page": 0.06, "choice": 0.6, "diagram": 0.25},
    steps=True,
)
CHOOSING = Stage(
    "choosing",
    Plan(750, muon_rate=2.2e-3, adamw_rate=1.1e-3, save_every=50),
    {"scene": 0.16, "strip": 0.02, "page": 0.14, "choice": 0.1, "diagram": 0.58},
    steps=True,
)
# What the letters cost the others is learnt again.
POLISHING = Stage(
    "polishing",
    Plan(400, muon_rate=1.4e-3, adamw_rate=7e-4, save_every=50),
    {"scene": 0.4, "strip": 0.03, "page": 0.22, "choice": 0.02, "diagram": 0.33},
    steps=True,
)
# The letter of a choice takes three steps, and no answer's loss finds them: an option's word knows
# its letter, the end of a prompt knows the right word, and looks for the option of that word.
KNOWN_AFTER = {"own_word": 2, "own_letter": 3, "word": 4}
"""Layers after which the hidden states are read as if they were the last."""
SOUGHT_IN = 4
"""The layer whose first head, where a letter is due, is to look at the option of that word."""
_OPTION = re.compile(r"^([A-Z])\. (.+?)(?=<\||$)", re.MULTILINE)
_PAIR = re.compile(r"(\S+) ([A-Z])(?=,|$)")


def batch_maker(processor: Any, network: Any, stage: Stage) -> Callable[[int], list[Inputs]]:
    """Batches by step number, lessons drawn by weight; in two parts, so that little is padding."""
    names, weights = list(stage.weights), list(stage.weights.values())

    def batch_at(step: int) -> list[Inputs]:
        rng = Random(f"{stage.name}/{step}")
        chosen = rng.choices(names, weights, k=stage.batch)
        with canvas.remembered() as pictures:
            taught = [LESSONS[name](step * stage.batch + i) for i, name in enumerate(chosen)]
        drawn = None if stage.sight else pictures
        made = [encode(processor, network, one, drawn) for one in taught if one]
        made.sort(key=lambda one: one["input_ids"].shape[1])
        half = len(made) // 2
        return [_stacked(part) for part in (made[:half], made[half:])]

    return batch_at


def encode(
    processor: Any, network: Any, lesson: Lesson, pictures: dict[bytes, Canvas] | None = None
) -> Inputs:
    """One lesson as one sequence; with `pictures`, labels stand in place of the pixels.

    `labels` are the answers' tokens, IGNORED elsewhere; `weights` let an answer count by the root
    of its length; `segments` number the questions from 1, 0 is what they share. What KNOWN_AFTER
    names is a token each, `sought` a place in the sequence; IGNORED where there is none.
    """
    tokenizer = processor.tokenizer
    prompts = [render(processor, turn) for turn, _ in lesson]
    shared = _shared(tokenizer, prompts)
    shown = lesson[0][0].pictures
    head = processor(
        text=[prompts[0][:shared]],
        images=[decode_picture(data) for data in shown] or None,
        return_tensors="pt",
    )
    places = _positions(network, head)
    ids, positions = [head["input_ids"]], [places]
    wanted = [torch.full_like(ids[0], IGNORED)]
    weights, segments = [torch.zeros(ids[0].shape)], [torch.zeros_like(ids[0])]
    known = {name: [wanted[0]] for name in KNOWN_AFTER}
    sought, begun = [wanted[0]], ids[0].shape[1]
    texts = [prompt[shared:] for prompt in prompts] + [answer for _, answer in lesson]
    split = tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True)
    tokens, offsets = split["input_ids"], split["offset_mapping"]
    for number, asked in enumerate(tokens[: len(lesson)], start=1):
        said = [*tokens[len(lesson) + number - 1], tokenizer.eos_token_id]
        length = len(asked) + len(said)
        ids.append(torch.tensor([asked + said]))
        positions.append(1 + places.max() + torch.arange(length).expand(3, 1, -1))
        wanted.append(torch.tensor([[IGNORED] * len(asked) + said]))
        weights.append(torch.tensor([[0.0] * len(asked) + [len(said) ** -0.5] * len(said)]))
        segments.append(torch.full((1, length), number))
        both = slice(number - 1, None, len(lesson))
        marked, looked_up = _known(texts[both], offsets[both])
        for name, marks in known.items():
            marks.append(torch.full((1, length), IGNORED))
            for place, word in marked[name].items():
                marks[-1][0, place] = tokenizer(word, add_special_tokens=False)["input_ids"][0]
        sought.append(torch.full((1, length), IGNORED))
        for place, option in looked_up.items():
            sought[-1][0, place] = begun + option
        begun += length
    made = {"input_ids": ids, "labels": wanted, "weights": weights, "segments": segments}
    made |= {"sought": sought, **known}
    batch = {name: torch.cat(parts, dim=1) for name, parts in made.items()}
    batch["position_ids"] = torch.cat(positions, dim=2)
    if shown:
        batch["image_grid_thw"] = head["image_grid_thw"]
        seen = head["pixel_values"]
        if pictures is not None:
            seen = torch.cat([labels.of(pictures[picture]) for picture in shown])
        batch["pixel_values"] = seen
    return batch


def _known(
    texts: list[str], offsets: list[list[tuple[int, int]]]
) -> tuple[dict[str, dict[int, str]], dict[int, int]]:
    """What is known at which token of a prompt and its answer; which option is sought at which.

    `offsets` say where in the two texts each token begins and ends.
    """
    (prompt, answer), (asked, said) = texts, offsets
    options = {option[1]: option for option in _OPTION.finditer(prompt)}
    ends = {end: place for place, (_, end) in enumerate(asked)}
    places = {letter: ends[option.end()] for letter, option in options.items()}
    found = {0: answer} if answer in options else {}
    for pair in _PAIR.finditer(answer):
        if pair[2] in options and options[pair[2]][2] == pair[1]:
            found[next(i for i, (start, _) in enumerate(said) if start == pair.start(2))] = pair[2]
    due = {len(asked) + i - 1: letter for i, letter in found.items()}
    known = {
        "own_word": {place: options[letter][2] for letter, place in places.items()},
        "own_letter": {place: letter for letter, place in places.items()},
        "word": {place: options[letter][2] for place, letter in due.items()},
    }
    return known, {place: places[letter] for place, letter in due.items()}


def _shared(tokenizer: Any, prompts: list[str]) -> int:
    """How much of its text every prompt has, up to a special token: there tokens never join."""
    same = itertools.takewhile(lambda letters: len(set(letters)) == 1, zip(*prompts, strict=False))
    common = "".join(letters[0] for letters in same)
    special = [t.content for t in tokenizer.added_tokens_decoder.values() if t.special]
    return max(common.rfind(token) + len(token) for token in special if token in common)


def _positions(network: Any, head: Any) -> Tensor:
    """Where each token stands in time, row and column: [3, 1, tokens]."""
    kinds, grid = head["mm_token_type_ids"], head.get("image_grid_thw")
    places: Tensor = network.model.get_rope_index(
        head["input_ids"], kinds, image_grid_thw=grid, attention_mask=head["attention_mask"]
    )[0]
    return places


def _stacked(sequences: list[Inputs]) -> Inputs:
    """Sequences of several lengths as one batch, padded on the right."""
    longest = max(one["input_ids"].shape[1] for one in sequences)
    # Padding is a segment that nothing asked belongs to.
    fill = {"input_ids": 0, "labels": IGNORED, "weights": 0, "segments": -1, "position_ids": 0}
    fill |= dict.fromkeys([*KNOWN_AFTER, "sought"], IGNORED)
    batch = {}
    for name, value in fill.items():
        rows = [
            nn.functional.pad(one[name], (0, longest - one[name].shape[-1]), value=value)
            for one in sequences
        ]
        batch[name] = torch.cat(rows, dim=rows[0].ndim - 2)
    for name in ("pixel_values", "image_grid_thw"):
        if seen := [one[name] for one in sequences if name in one]:
            batch[name] = torch.cat(seen)
    return batch


def _visible(segments: Tensor) -> Tensor:
    """What each token attends to, [batch, 1, tokens, tokens]: itself, what is shared, its own."""
    asking, asked = segments[:, :, None], segments[:, None, :]
    return ((asking == asked) | (asked == 0)).tril()[:, None]


def loss(network: Any, batch: Inputs, *, steps: bool = False) -> Tensor:
    """Of the answers, and with `steps` of those that lead to a letter.

    Steps (KNOWN_AFTER, SOUGHT_IN) are read from the hidden states; the network has no part
    that is only for them.
    """
    inputs = {name: batch[name] for name in ("input_ids", "position_ids")}
    inputs |= {n: batch[n] for n in ("pixel_values", "image_grid_thw") if n in batch}
    mask = _visible(batch["segments"])
    out = network.model(**inputs, attention_mask=mask, use_cache=False, output_hidden_states=steps)
    decoder, head = network.model.language_model, network.lm_head
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


@torch.no_grad()
def exact(network: nn.Module, processor: Any, sight: bool, count: int) -> dict[str, float]:
    """Share of held-out answers right in every token: greedy decoding would give just these."""
    right = {}
    for dataset in ("docvqa", "vqav2", "scienceqa", "flickr30k"):
        with canvas.remembered() as pictures:
            asked = exam(dataset, count)
        batch = encode_answered(processor, [t for t, _ in asked], [answer for _, answer in asked])
        if not sight:
            drawn = [labels.of(pictures[picture]) for t, _ in asked for picture in t.pictures]
            batch["pixel_values"] = torch.cat(drawn)
        wanted = batch.pop("labels")[:, 1:]
        guesses = network(**batch).logits[:, :-1].argmax(-1)
        correct = ((guesses == wanted) | (wanted == IGNORED)).all(1)
        right[dataset] = round(float(correct.float().mean()), 3)
    return right

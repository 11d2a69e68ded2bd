"""Lessons as sequences: what the questions on one picture share is computed once.

A sequence is a picture (or none), then every question on it with its answer. A question sees the
picture and itself, at the very positions it has when it is asked alone: what is learnt is exactly
what asking them one by one would teach, for a third of the work.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from vlmbench.embedded.lessons import Lesson
from vlmbench.prompting import IGNORED, process, render, together, watch
from vlmbench.spec import Turn
from vlmbench.video import Frames

Inputs = dict[str, Tensor]
TEXT = ("input_ids", "attention_mask", "mm_token_type_ids")
"""What a processor makes of a text; all else that it makes is what a sequence shows."""
Labelled = Callable[[Turn, Frames | None], Tensor]
"""What a turn shows, as labels in the shape of its pixels."""
ELDER = "elder "
"""Before the names of what an imitated model is given."""
# The letter of a choice takes three steps, and no answer's loss finds them: an option's word knows
# its letter, the end of a prompt knows the right word, and looks for the option of that word.
KNOWN_AFTER = {"own_word": 2, "own_letter": 3, "word": 4}
"""Layers after which the hidden states are read as if they were the last."""
SOUGHT_IN = 4
"""The layer whose first head, where a letter is due, is to look at the option of that word."""
_PICTURE = re.compile(r"<\|image_\d+\|>")
"""A picture's place in Phi-3.5's prompts, which becomes special tokens."""
_OPTION = re.compile(r"^([A-Z])\. (.+?)(?=<\||$)", re.MULTILINE)
_PAIR = re.compile(r"(\S+) ([A-Z])(?=,|$)")


def encode(
    processor: Any, network: Any, lesson: Lesson, labelled: Labelled | None = None
) -> Inputs:
    """One lesson as one sequence; with `labelled`, labels stand in place of the pixels.

    `labels` are the answers' tokens, IGNORED elsewhere; `weights` let an answer count by the root
    of its length; `segments` number the questions from 1, 0 is what they share. What KNOWN_AFTER
    names is a token each, `sought` a place in the sequence; IGNORED where there is none.
    """
    tokenizer = processor.tokenizer
    first = lesson[0][0]
    watched = watch(first)
    frames = len(watched.indices) if watched else 0
    prompts = [render(processor, turn, frames) for turn, _ in lesson]
    shared = _shared(tokenizer, prompts)
    head = process(processor, [prompts[0][:shared]], [first], [watched])
    places = _positions(network, head)
    ids, positions = [head["input_ids"]], [places]
    wanted = [torch.full_like(ids[0], IGNORED)]
    weights, segments = [torch.zeros(ids[0].shape)], [torch.zeros_like(ids[0])]
    known = {name: [wanted[0]] for name in KNOWN_AFTER}
    sought, begun = [wanted[0]], ids[0].shape[1]
    texts = [_rest(processor, prompt, shared) for prompt in prompts]
    texts += [answer for _, answer in lesson]
    split = tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True)
    tokens, offsets = split["input_ids"], split["offset_mapping"]
    for number, asked in enumerate(tokens[: len(lesson)], start=1):
        said = [*tokens[len(lesson) + number - 1], tokenizer.eos_token_id]
        length = len(asked) + len(said)
        ids.append(torch.tensor([asked + said]))
        following = 1 + places.max() + torch.arange(length)
        positions.append(following.expand(*places.shape[:-1], -1))
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
    batch["position_ids"] = torch.cat(positions, dim=-1)
    batch |= {name: shown for name, shown in head.items() if name not in TEXT}
    if labelled is not None and (first.pictures or first.clip):
        batch[pixels_in(batch)] = labelled(first, watched)
    return batch


def pixels_in(inputs: Mapping[str, Any]) -> str:
    """What a model calls the pixels of pictures among its inputs."""
    return next(name for name in inputs if name.startswith("pixel_values"))


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
    special += _PICTURE.findall(common)
    ends = (common.rfind(token) + len(token) for token in special if token in common)
    return max(ends, default=0)


def _rest(processor: Any, prompt: str, shared: int) -> str:
    """What follows what is shared; Idefics2's processor parts a word from a picture before it."""
    rest = prompt[shared:]
    parts = hasattr(processor, "fake_image_token") and prompt[:shared].endswith("<image>")
    return f" {rest}" if parts and rest[:1] not in ("", " ", "\n", "<") else rest


def _positions(network: Any, head: Any) -> Tensor:
    """Where each token stands: [1, tokens], or in time, row and column [3, 1, tokens]."""
    if not hasattr(network.model, "get_rope_index"):
        return torch.arange(head["input_ids"].shape[1])[None]
    places: Tensor = network.model.get_rope_index(
        head["input_ids"],
        head["mm_token_type_ids"],
        image_grid_thw=head.get("image_grid_thw"),
        video_grid_thw=head.get("video_grid_thw"),
        attention_mask=head["attention_mask"],
    )[0]
    return places


def stacked(sequences: list[Inputs]) -> Inputs:
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
    for name in dict.fromkeys(name for one in sequences for name in one if name not in fill):
        batch[name] = together([one[name] for one in sequences if name in one])
    return batch


def visible(segments: Tensor) -> Tensor:
    """What each token attends to, [batch, 1, tokens, tokens]: itself, what is shared, its own."""
    asking, asked = segments[:, :, None], segments[:, None, :]
    return ((asking == asked) | (asked == 0)).tril()[:, None]

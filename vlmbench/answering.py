"""Batched greedy generation, or choice: from named turns to answers."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vlmbench import retrieval
from vlmbench.errors import NumericsError, OutOfTimeError, PictureError, UsageError, VlmbenchError
from vlmbench.finite import NonFinite
from vlmbench.prompting import encode
from vlmbench.spec import Choices, Turn

if TYPE_CHECKING:
    from torch import Tensor

    from vlmbench.variant import Variant

Batch = tuple[str, ...]
Results = dict[str, "Answer | VlmbenchError"]
Prepared = tuple[Batch, "dict[str, Tensor] | None", Results]
"""The turns whose inputs follow, and those that cannot be asked, with the reason."""


@dataclass(frozen=True)
class _Among:
    """What every turn's answer is chosen from, and how the model sees it."""

    choices: Choices
    known: Tensor


@dataclass(frozen=True)
class Answer:
    """What a model generated for one turn."""

    text: str
    tokens: int
    cut: bool
    """The token limit ended it, not the model."""


def answer(
    variant: Variant,
    turns: Mapping[str, Turn],
    *,
    max_new_tokens: int,
    batch_size: int,
    done: Callable[[int], None] = lambda answers: None,
    failed: Callable[[str, VlmbenchError], None] | None = None,
    known: Mapping[str, Answer] | None = None,
    keep: Callable[[Mapping[str, Answer]], None] = lambda answers: None,
) -> dict[str, Answer]:
    """Answer every turn, in the order of `turns`; `done` hears how many each batch added.

    A turn that cannot be answered is told to `failed` and left out; without it, that raises.
    `keep` gets each batch's answers as it ends; given back as `known` to a later call with the
    same turns and batch size, they are not made again: the other batches are those they would be.

    The longest go first, so that memory runs out at once or never; then the batch is halved.
    The next batch's pictures are prepared while the current one is answered.

    Raises:
        PictureError: a picture cannot be read or is beyond the processor's limits; names the turn.
            Of a picture that is only to be chosen: whatever `failed` is.
        UsageError: memory does not suffice for a single turn.
        NumericsError: the logits are no numbers.
        OutOfTimeError: the variant's time limit ended it.
    """
    names = sorted(turns, key=lambda name: -_length(turns[name]))
    batches = [tuple(names[i : i + batch_size]) for i in range(0, len(names), batch_size)]
    known = known or {}
    finished = [batch for batch in batches if known.keys() >= set(batch)]
    answers = {name: known[name] for batch in finished for name in batch}
    batches = [batch for batch in batches if batch not in finished]
    if answers:
        done(len(answers))
    offered = turns[names[0]].choices if batches else None
    among = _Among(offered, retrieval.embedded(variant, offered)) if offered else None
    for prepared, inputs, made in _ahead(variant.processor, turns, batches):
        if inputs is not None:
            made |= _generate(variant, turns, prepared, inputs, max_new_tokens, among)
        for name, result in made.items():
            if isinstance(result, Answer):
                answers[name] = result
            elif failed is None:
                raise result
            else:
                failed(name, result)
        keep({name: answers[name] for name in made if name in answers})
        done(len(made))
    return {name: answers[name] for name in turns if name in answers}


def _length(turn: Turn) -> float:
    """Roughly how many tokens a turn takes: characters, and the area of its pictures."""
    from PIL import Image

    area = 0
    for data in turn.pictures:
        try:
            with Image.open(io.BytesIO(data)) as picture:
                area += picture.width * picture.height
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            continue  # told with its name when it is prepared
    return len(turn.question) / 4 + area / 784


def _ahead(processor: Any, turns: Mapping[str, Turn], batches: list[Batch]) -> Iterator[Prepared]:
    with ThreadPoolExecutor(max_workers=1) as pool:
        futures = [pool.submit(_prepare, processor, turns, batch) for batch in batches[:2]]
        for i in range(len(batches)):
            prepared = futures[i].result()
            futures[i] = None  # type: ignore[call-overload]  # frees the pictures
            if i + 2 < len(batches):
                futures.append(pool.submit(_prepare, processor, turns, batches[i + 2]))
            yield prepared


def _prepare(processor: Any, turns: Mapping[str, Turn], batch: Batch) -> Prepared:
    """A batch's inputs, without the turns whose pictures cannot be read or taken."""
    try:
        return batch, _encode(processor, [turns[name] for name in batch]), {}
    except PictureError as error:
        whole = error
    refused: Results = {}
    for name in batch:
        try:
            _encode(processor, [turns[name]])
        except PictureError as error:
            refused[name] = PictureError(f"sample {name!r}: {error}")
    if not refused:
        raise whole
    kept = tuple(name for name in batch if name not in refused)
    return kept, _encode(processor, [turns[n] for n in kept]) if kept else None, refused


def _encode(processor: Any, turns: list[Turn]) -> dict[str, Tensor]:
    return (retrieval.encode if turns[0].choices else encode)(processor, turns)


def _generate(
    variant: Variant,
    turns: Mapping[str, Turn],
    batch: Batch,
    inputs: dict[str, Tensor],
    max_new_tokens: int,
    among: _Among | None,
) -> Results:
    import torch

    made: Results = {}
    try:
        if among:
            return dict(_chosen(variant, batch, among, inputs))
        ids = variant.generate(inputs, max_new_tokens=max_new_tokens)
        return dict(zip(batch, _read(variant, batch, ids, max_new_tokens), strict=True))
    except torch.OutOfMemoryError:
        if len(batch) == 1:
            return {
                batch[0]: UsageError(
                    f"{variant.name}: out of memory on the single sample {batch[0]!r}. Use a "
                    "larger device or a smaller compression."
                )
            }
        middle = len(batch) // 2
        again = [batch[:middle], batch[middle:]]
    except NonFinite as broken:
        # Those that went wrong have no answer; the others are answered without them.
        told = variant.explain(inputs)
        made |= {
            batch[row]: NumericsError(f"{variant.name}: sample {batch[row]!r}: {told}")
            for row in broken.rows
        }
        again = [tuple(name for name in batch if name not in made)]
    # Outside the handler, whose exception would keep the failed batch's memory alive.
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    for part in filter(None, again):
        _, prepared, _ = _prepare(variant.processor, turns, part)
        assert prepared is not None, "it was prepared before"
        made |= _generate(variant, turns, part, prepared, max_new_tokens, among)
    return made


def _chosen(
    variant: Variant, batch: Batch, among: _Among, inputs: dict[str, Tensor]
) -> Iterator[tuple[str, Answer | NumericsError]]:
    texts = retrieval.choose(variant, among.choices, among.known, inputs)
    for name, text in zip(batch, texts, strict=True):
        if text is None:
            yield name, NumericsError(f"{variant.name}: sample {name!r}: its features are NaN")
        else:
            yield name, Answer(text, tokens=0, cut=False)


def _read(
    variant: Variant, batch: Batch, ids: Tensor, max_new_tokens: int
) -> Iterator[Answer | OutOfTimeError]:
    """New token ids [batch, tokens] -> answers, each up to its end-of-turn token."""
    ends = variant.network.generation_config.eos_token_id
    ends = set(ends if isinstance(ends, list) else [ends])
    for name, row in zip(batch, ids.tolist(), strict=True):
        length = next((i for i, token in enumerate(row) if token in ends), None)
        if variant.time_limit_s and length is None and len(row) < max_new_tokens:
            yield OutOfTimeError(
                f"{variant.name}: sample {name!r} has no answer after {variant.time_limit_s} s, "
                f"{len(row)} tokens. Give a batch more time (--time-limit) or fewer samples."
            )
            continue
        kept = row if length is None else row[:length]
        text = variant.processor.tokenizer.decode(kept, skip_special_tokens=True)
        yield Answer(text.strip(), len(kept), cut=length is None)

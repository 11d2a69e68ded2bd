"""Drawn pictures as rows in the columns of the published data sets.

A picture is drawn from its data set, split and number alone, so that any row can be drawn on
demand and is the same every time.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

from vlmbench.embedded import DATA, clips, diagrams, pages, scenes

Row = dict[str, Any]
SPLITS = {"validation": 100, "test": 500}
"""Questions with a picture in each stored split; train is drawn on demand, without end.

Of videoqa twice as many: two on each clip.
"""


def rng_of(dataset: str, split: str, number: int) -> Random:
    """The random numbers of one picture."""
    return Random(f"vlmbench/1/{dataset}/{split}/{number}")


def picture_key(png: bytes) -> str:
    """Content hash of an encoded picture."""
    return hashlib.sha256(png).hexdigest()[:16]


def key_of(row: Row) -> str | None:
    """Content hash of what a row shows; None where it shows nothing."""
    seen = row.get("image") or row.get("video")
    return picture_key(seen["bytes"]) if seen else None


def draw(dataset: str, split: str, number: int) -> list[Row]:
    """The rows of one picture: one, or several that share it."""
    return _DRAW[dataset](rng_of(dataset, split, number), number, split)


@functools.cache
def held_out(dataset: str) -> frozenset[str]:
    """Keys of the stored pictures that no train picture may equal."""
    return frozenset(json.loads((DATA / f"{dataset}.json").read_text())["held_out"])


def train(dataset: str, held_out: frozenset[str], start: int = 0) -> Iterator[Row]:
    """The train split from picture `start` on, without the pictures in `held_out`."""
    for number in itertools.count(start):
        for row in draw(dataset, "train", number):
            if key_of(row) not in held_out:
                yield row


def _file(data: bytes) -> dict[str, Any]:
    return {"bytes": data, "path": None}


def _docvqa(rng: Random, number: int, split: str) -> list[Row]:
    page = pages.draw(rng)
    image = _file(page.canvas.png())
    return [
        {"id": f"{number}_{kind}", "image": image, "query": {"en": question}, "answers": answers}
        for kind, question, answers in pages.questions(page, rng, 2)
    ]


def _vqav2(rng: Random, number: int, split: str) -> list[Row]:
    scene = scenes.draw(rng, rng.randint(2, 5))
    image = _file(scene.canvas.png())
    return [
        {
            "question_id": number * 10 + i,
            "image_id": number,
            "image": image,
            "question": asked.question,
            "multiple_choice_answer": asked.answer,
            "answers": [
                {"answer": answer, "answer_confidence": "yes", "answer_id": n}
                for n, answer in enumerate(asked.annotators, start=1)
            ],
        }
        for i, asked in enumerate(scenes.questions(scene, rng, 2))
    ]


def _scienceqa(rng: Random, number: int, split: str) -> list[Row]:
    diagram = diagrams.draw(rng)
    # As in the published data, some questions come without a picture.
    return [of_diagram(diagram, pictured=number % 13 != 12)]


def of_diagram(diagram: diagrams.Diagram, pictured: bool) -> Row:
    """A diagram's question as a row of scienceqa."""
    return {
        "image": _file(diagram.canvas.png()) if pictured else None,
        "question": diagram.question,
        "choices": list(diagram.choices),
        "answer": diagram.answer,
        "hint": diagram.hint,
        "task": "closed choice",
        "grade": "grade4",
        "subject": "natural science",
        "topic": diagram.subject,
        "category": diagram.kind,
        "skill": diagram.kind,
        "lecture": diagram.lecture,
        "solution": f"The answer is {diagram.choices[diagram.answer]}.",
    }


def _flickr30k(rng: Random, number: int, split: str) -> list[Row]:
    scene = scenes.draw(rng, rng.randint(2, 3))
    return [
        {
            "image": _file(scene.canvas.png()),
            "caption": scenes.captions(scene, rng),
            "sentids": [str(number * 5 + i) for i in range(5)],
            "split": split,
            "img_id": str(number),
            "filename": f"{number}.png",
        }
    ]


def _clips(rng: Random, number: int, split: str) -> list[Row]:
    clip = clips.draw(rng)
    return [
        {
            "video_id": f"clip{number}",
            "video": _file(clip.mp4()),
            "caption": clips.captions(clip),
        }
    ]


def _videoqa(rng: Random, number: int, split: str) -> list[Row]:
    clip = clips.draw(rng_of("clips", split, number))
    video = _file(clip.mp4())
    return [
        {
            "video_id": f"clip{number}",
            "video": video,
            "question_id": f"clip{number}_{i}",
            "question": asked.question,
            "answer": asked.answer,
            "answers": asked.annotators,
        }
        for i, asked in enumerate(clips.questions(clip, rng, 2))
    ]


_DRAW: dict[str, Callable[[Random, int, str], list[Row]]] = {
    "docvqa": _docvqa,
    "vqav2": _vqav2,
    "scienceqa": _scienceqa,
    "flickr30k": _flickr30k,
    "clips": _clips,
    "videoqa": _videoqa,
}
DATASETS = tuple(_DRAW)

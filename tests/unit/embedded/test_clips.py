"""Drawn clips: what happens in them is what is said and asked of them."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from vlmbench.embedded import clips, rows, tower
from vlmbench.embedded.blank import qwen2
from vlmbench.embedded.canvas import Thing
from vlmbench.embedded.clips import Event
from vlmbench.embedded.facts import clip_facts_right
from vlmbench.video import uniform

STAR, RING = Thing("star", "red", 70, 70, 30), Thing("ring", "blue", 20, 20, 30)
DRAWN = [clips.draw(rows.rng_of("clips", "train", number)) for number in range(300)]


def shown(event: Event) -> list[Thing | None]:
    """What eight frames at equal steps show."""
    return [event.at(i / 8) for i in range(8)]


@pytest.mark.parametrize("way", clips.WAYS)
def test_what_moves_goes_one_way(way: str) -> None:
    dx, dy = clips.WAYS[way]
    seen = [thing for thing in shown(Event("move", STAR, detail=way)) if thing]
    along = [dx * thing.x + dy * thing.y for thing in seen]
    assert along == sorted(along) and along[-1] - along[0] > 30
    assert {(thing.x, thing.y) for thing in seen[:1]} == {(70, 70)}


@pytest.mark.parametrize("times", clips.TIMES)
def test_what_bounces_comes_down_so_often(times: str) -> None:
    """As often as it stops falling, over all frames of the film."""
    event = Event("bounce", STAR, detail=times)
    heights = [thing.y for i in range(240) if (thing := event.at(i / 240))]
    turns = sum(a < b >= c for a, b, c in zip(heights, heights[1:], heights[2:], strict=False))
    assert turns == int(times)
    assert len({round(thing.y) for thing in shown(event) if thing}) > 2


def test_what_comes_and_goes() -> None:
    there = {
        "appear": [False] * 4 + [True] * 4,
        "vanish": [True] * 4 + [False] * 4,
        "still": [True] * 8,
    }
    for kind, expected in there.items():
        assert [thing is not None for thing in shown(Event(kind, STAR))] == expected
    visit = Event("visit", STAR, 0.5, 0.95)
    assert [thing is not None for thing in shown(visit)] == [False] * 4 + [True] * 4
    colors = [thing.color for thing in shown(Event("turn", STAR, detail="blue")) if thing]
    assert colors == ["red"] * 4 + ["blue"] * 4


def test_everything_stays_in_the_picture_and_apart() -> None:
    for clip in DRAWN:
        for time in (0.0, 0.25, 0.5, 0.75, 0.99):
            things = [thing for event in clip.events if (thing := event.at(time))]
            assert all(0 <= t.x < clips.SIDE and 0 <= t.y < clips.SIDE for t in things)
            if len(things) == 2 and clip.events[0].kind != "pass":
                a, b = things
                assert max(abs(a.x - b.x), abs(a.y - b.y)) > 20, clip.listing


def test_two_different_questions_on_each() -> None:
    kinds: Counter[str] = Counter()
    for number, clip in enumerate(DRAWN):
        asked = clips.questions(clip, rows.rng_of("q", "train", number), 2)
        assert len({one.question for one in asked}) == 2, clip.listing
        kinds.update(one.kind for one in asked)
    assert set(kinds) == {"deed", "way", "times", "turn", "there", "first", "last"}
    assert min(kinds.values()) >= 20


def test_where_it_starts_does_not_tell_which_way_it_goes() -> None:
    """Who sees the first frame alone, and knows how clips are drawn, is often wrong."""
    ways: dict[tuple[int, int], Counter[str]] = {}
    for number in range(2000):
        for event in clips.draw(rows.rng_of("clips", "train", number)).events:
            if event.kind == "move":
                place = (int(event.thing.x // clips.PITCH), int(event.thing.y // clips.PITCH))
                ways.setdefault(place, Counter())[event.detail] += 1
    best = sum(max(found.values()) for found in ways.values())
    assert best / sum(found.total() for found in ways.values()) < 0.7


def test_every_description_is_true() -> None:
    for number in range(100):
        clip = clips.draw(rows.rng_of("clips", "test", number))
        said = clips.captions(clip)
        assert len(set(said)) == 5
        assert [clip_facts_right("test", number, one) for one in said] == [1.0] * 5, said


def test_what_is_wrong_or_left_out_counts() -> None:
    number = next(
        n
        for n in range(100)
        if clips.draw(rows.rng_of("clips", "test", n)).events[0].kind == "move"
        and len(clips.draw(rows.rng_of("clips", "test", n)).events) == 1
    )
    event = clips.draw(rows.rng_of("clips", "test", number)).events[0]
    other = next(way for way in clips.WAYS if way != event.detail)
    name = event.thing.name
    assert clip_facts_right("test", number, f"A {name} moves {event.detail}.") == 1.0
    assert clip_facts_right("test", number, f"A {name} moves {other}.") == 0.5
    assert clip_facts_right("test", number, f"A {name}.") == 0.5
    assert clip_facts_right("test", number, "Nothing.") == 0.0


def test_equal_drawings_give_equal_bytes() -> None:
    clip = DRAWN[0]
    assert clip.mp4() == clip.mp4()
    assert 2 * clips.RATE <= clip.frames <= 4 * clips.RATE


def test_the_tower_learns_two_moments_in_one_token() -> None:
    """The labels are those of the frames shown, the first moment before the second."""
    torch.manual_seed(0)
    tokenizer = qwen2.tokenizer()
    processor, network = qwen2.processor(tokenizer), qwen2.network(tokenizer)
    tracker = tower.Tracker(network.model.visual, 128)
    films, stills = tower.film_maker(processor)(0)
    assert len(films["shown"]) == int((films["grid"].prod(1) // 4).sum())
    assert torch.equal(stills["shown"][:, :2], stills["shown"][:, 2:])
    assert not torch.equal(films["shown"][:, :2], films["shown"][:, 2:])
    before = tracker.loss(films)
    optimizer = torch.optim.AdamW(tracker.parameters(), lr=1e-4)
    for _ in range(3):
        loss = tracker.loss(films)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert loss < before
    assert tracker.accuracy(films).keys() == {"first", "second"}
    assert all(p.grad is None for p in tracker.still.parameters())


def test_eight_frames_see_every_event() -> None:
    for clip in DRAWN[:50]:
        times = [i / clip.frames for i in uniform(clip.frames, 8)]
        for event in clip.events:
            looks = {(t and (round(t.x), round(t.y), t.color)) for t in map(event.at, times)}
            assert len(looks) >= (1 if event.kind == "still" else 2), clip.listing

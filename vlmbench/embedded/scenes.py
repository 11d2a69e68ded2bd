"""vqav2 and flickr30k: scenes of coloured shapes, what is asked and what is said of them."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from vlmbench.embedded.canvas import COLORS, SHAPES, Canvas, Color, Thing, with_article

SIDE = 140
PITCH = SIDE / 3
ROWS, COLUMNS = ("top", "middle", "bottom"), ("left", "center", "right")
SETTINGS: dict[str, tuple[Color, Color]] = {
    "on the grass": ((205, 235, 255), (150, 205, 130)),
    "on the sand": ((225, 240, 250), (235, 215, 165)),
    "in the snow": ((200, 205, 215), (245, 248, 250)),
    "at dusk": ((245, 205, 185), (175, 150, 150)),
}
"""What stands behind the things: the colours of sky and ground."""


@dataclass(frozen=True)
class Scene:
    """A drawn scene; `places` are the (row, column) of each thing on a 3x3 grid."""

    canvas: Canvas
    setting: str
    places: tuple[tuple[int, int], ...]

    @property
    def things(self) -> list[Thing]:
        """The things in the order of `places`: top to bottom, then left to right."""
        return self.canvas.things

    def where(self, index: int) -> str:
        """The place of a thing in words: `top left`."""
        row, column = self.places[index]
        return f"{ROWS[row]} {COLUMNS[column]}"

    @property
    def listing(self) -> str:
        """Every thing with its place, in reading order."""
        return ", ".join(f"{t.name} {self.where(i)}" for i, t in enumerate(self.things))


def draw(rng: Random, things: int) -> Scene:
    """A scene of so many things, no two of the same colour and shape."""
    setting = rng.choice(list(SETTINGS))
    sky, ground = SETTINGS[setting]
    canvas = Canvas(SIDE, SIDE, sky)
    canvas.pen.rectangle((0, rng.randint(70, 100), SIDE, SIDE), fill=ground)
    cells = sorted(rng.sample([(r, c) for r in range(3) for c in range(3)], things))
    names = rng.sample(pool(rng), things)
    for (row, column), (shape, color) in zip(cells, names, strict=True):
        size = rng.uniform(26, 40)
        slack = (PITCH - size) / 2
        x = PITCH * (column + 0.5) + rng.uniform(-slack, slack)
        y = PITCH * (row + 0.5) + rng.uniform(-slack, slack)
        canvas.thing(Thing(shape, color, x, y, size))
    return Scene(canvas, setting, tuple(cells))


def pool(rng: Random) -> list[tuple[str, str]]:
    """(shape, colour) pairs to draw from; few kinds, so that counts and comparisons occur."""
    shapes, colors = rng.sample(SHAPES, 3), rng.sample(list(COLORS), 3)
    return [(shape, color) for shape in shapes for color in colors]


_SYNONYMS = {"purple": "violet", "ring": "circle", "moon": "half circle", "cross": "plus"}


def annotators(answer: str, slips: list[str], rng: Random) -> list[str]:
    """Ten answers: mostly `answer`, now and then another word for it or a slip."""
    others = [_SYNONYMS[answer]] if answer in _SYNONYMS else slips
    dissent = rng.choice((0, 0, 0, 1, 1, 2, 3)) if others else 0
    answers = [answer] * (10 - dissent) + [rng.choice(others) for _ in range(dissent)]
    rng.shuffle(answers)
    return answers


@dataclass(frozen=True)
class Asked:
    """A question on a scene with the answers of ten annotators."""

    kind: str
    question: str
    answer: str
    annotators: list[str]


def questions(scene: Scene, rng: Random, count: int) -> list[Asked]:
    """`count` questions of different kinds on one scene."""
    makers = {
        "count": _ask_count,
        "color": _ask_color,
        "shape": _ask_shape,
        "exists": _ask_exists,
        "place": _ask_place,
        "relation": _ask_relation,
    }
    kinds = [k for k in rng.sample(list(makers), len(makers))]
    asked: list[Asked] = []
    for kind in kinds:
        made = makers[kind](scene, rng)
        if made and len(asked) < count:
            question, answer, slips = made
            asked.append(Asked(kind, question, answer, annotators(answer, slips, rng)))
    return asked


Made = tuple[str, str, list[str]] | None


def _ask_count(scene: Scene, rng: Random) -> Made:
    by_shape = rng.random() < 0.5
    kinds = [t.shape if by_shape else t.color for t in scene.things]
    options = SHAPES if by_shape else tuple(COLORS)
    kind = rng.choice(kinds) if rng.random() < 0.85 else rng.choice(options)
    number = kinds.count(kind)
    wanted = f"{plural(kind)}" if by_shape else f"{kind} shapes"
    return f"How many {wanted} are there?", str(number), [str(number + 1)]


def plural(shape: str) -> str:
    """More than one of a shape."""
    return shape + ("es" if shape.endswith("s") else "s")


def _unique(values: list[str], rng: Random) -> int | None:
    """The index of a value that occurs once."""
    indices = [i for i, v in enumerate(values) if values.count(v) == 1]
    return rng.choice(indices) if indices else None


def _ask_color(scene: Scene, rng: Random) -> Made:
    index = _unique([t.shape for t in scene.things], rng)
    if index is None:
        return None
    thing = scene.things[index]
    return f"What color is the {thing.shape}?", thing.color, []


def _ask_shape(scene: Scene, rng: Random) -> Made:
    index = _unique([t.color for t in scene.things], rng)
    if index is None:
        return None
    thing = scene.things[index]
    return f"What shape is {thing.color}?", thing.shape, []


def _ask_exists(scene: Scene, rng: Random) -> Made:
    names = {t.name for t in scene.things}
    if rng.random() < 0.5:
        name = rng.choice(sorted(names))
    else:
        shapes, colors = {t.shape for t in scene.things}, {t.color for t in scene.things}
        absent = [f"{c} {s}" for c in colors for s in shapes if f"{c} {s}" not in names]
        absent.append(f"{rng.choice(list(COLORS))} {rng.choice(SHAPES)}")
        name = rng.choice(sorted(absent))
    yes = name in names
    return f"Is there {with_article(name)}?", "yes" if yes else "no", ["no" if yes else "yes"]


def _ask_place(scene: Scene, rng: Random) -> Made:
    index = rng.randrange(len(scene.things))
    where = scene.where(index)
    slip = where.split()[0]
    return f"Where is the {scene.things[index].name}?", where, [slip]


def _ask_relation(scene: Scene, rng: Random) -> Made:
    if len(scene.things) < 2:
        return None
    a, b = rng.sample(range(len(scene.things)), 2)
    (row_a, column_a), (row_b, column_b) = scene.places[a], scene.places[b]
    if column_a != column_b and (row_a == row_b or rng.random() < 0.5):
        yes, side = column_a < column_b, "left of"
    else:
        yes, side = row_a < row_b, "above"
    question = f"Is the {scene.things[a].name} {side} the {scene.things[b].name}?"
    return question, "yes" if yes else "no", ["no" if yes else "yes"]


def captions(scene: Scene, rng: Random) -> list[str]:
    """Five differently worded captions of a scene of two or three things."""
    things, setting = scene.things, scene.setting
    a, b = things[0].phrase, things[1].phrase
    relation = "above" if scene.places[0][0] < scene.places[1][0] else "left of"
    inverse = {"above": "below", "left of": "right of"}[relation]
    third = f" and {things[2].phrase}" if len(things) > 2 else ""
    number = {2: "Two", 3: "Three"}[len(things)]
    first, *others = (thing.phrase for thing in rng.sample(things, len(things)))
    return [
        f"{a.capitalize()} is {relation} {b}{third} {setting}.",
        f"There is {b} {inverse} {a}{third} {setting}.",
        f"{number} shapes {setting}: {', '.join([first, *others])}.",
        f"{first.capitalize()} {setting} with {' and '.join(others)}.",
        f"The picture shows {a}, {b}{third} {setting}.",
    ]

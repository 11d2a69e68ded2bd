"""scienceqa: diagrams of school science, with lettered choices and a hint."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from random import Random

from vlmbench.embedded.canvas import COLORS, Canvas, Color, Thing, shade

WIDTH, HEIGHT = 168, 140
SERIF, SANS, BOLD = "DejaVuSerif", "DejaVuSans", "DejaVuSans-Bold"


@dataclass(frozen=True)
class Diagram:
    """A drawn diagram with its question: `choices[answer]` is right."""

    kind: str
    subject: str
    canvas: Canvas
    question: str
    choices: tuple[str, ...]
    answer: int
    hint: str
    lecture: str
    reading: str
    """What is on it, in words; the answer follows from it."""
    steps: dict[str, str]
    """Questions on the way to the answer, and the same question asked of the other things."""


def draw(rng: Random, kind: str | None = None) -> Diagram:
    """A diagram of the given or a random kind, its choices in random order."""
    maker = MAKERS[kind or rng.choice(list(MAKERS))]
    canvas = Canvas(WIDTH, HEIGHT, shade(rng, 228, 255))
    return maker(canvas, rng)


def _diagram(
    name: tuple[str, str],
    canvas: Canvas,
    asked: tuple[str, str, list[str]],
    notes: tuple[str, str],
    reading: str,
    steps: dict[str, str],
    rng: Random,
) -> Diagram:
    question, right, wrong = asked
    choices = rng.sample([right, *wrong], len(wrong) + 1)
    answer = choices.index(right)
    return Diagram(*name, canvas, question, tuple(choices), answer, *notes, reading, steps)


_LEVELS = (
    ("grass", "corn", "algae", "clover", "wheat"),
    ("rabbit", "mouse", "snail", "cricket", "duck"),
    ("snake", "frog", "perch", "weasel", "cat"),
    ("eagle", "fox", "owl", "wolf", "heron"),
)


def _food_chain(canvas: Canvas, rng: Random) -> Diagram:
    chain = [rng.choice(level) for level in _LEVELS[: rng.randint(3, 4)]]
    left = rng.uniform(14, 60)
    for i, word in enumerate(chain):
        y = 28 * i + 14 + rng.uniform(-1.5, 1.5)
        font = rng.choice((SANS, SERIF))
        width = canvas.text(left + 6, y, word, font=font, size=15)
        canvas.pen.rectangle((left, y - 9, left + width + 12, y + 9), outline=(90, 90, 90))
        if i:
            canvas.pen.line((left - 8, y - 22, left - 8, y), fill=(60, 60, 60))
            canvas.pen.polygon(
                [(left - 11, y - 4), (left - 5, y - 4), (left - 8, y + 2)], (60, 60, 60)
            )
    if rng.random() < 0.5:
        eater = rng.randrange(1, len(chain))
        question, right = f"What does the {chain[eater]} eat?", chain[eater - 1]
    else:
        eaten = rng.randrange(len(chain) - 1)
        question, right = f"Which animal eats the {chain[eaten]}?", chain[eaten + 1]
    wrong = [w for w in chain if w != right and w not in question][:3]
    spare = [w for level in _LEVELS for w in level if w not in chain]
    wrong += rng.sample(spare, 3 - len(wrong)) if len(wrong) < 2 else []
    return _diagram(
        ("food_chain", "biology"),
        canvas,
        (question, right, wrong),
        (
            "Each arrow points to the eater.",
            "In a food chain each living thing eats the one before.",
        ),
        ", ".join(chain),
        {f"What does the {eater} eat?": eaten for eaten, eater in pairwise(chain)}
        | {f"Which animal eats the {eaten}?": eater for eaten, eater in pairwise(chain)},
        rng,
    )


def _magnets(canvas: Canvas, rng: Random) -> Diagram:
    poles = ["N", "S"], ["S", "N"]
    pair = rng.choice(poles), rng.choice(poles)
    y = rng.uniform(40, 100)
    left, gap = rng.uniform(6, 18), rng.uniform(10, 24)
    for i, bar in enumerate(pair):
        for j, pole in enumerate(bar):
            x = left + i * (60 + gap) + j * 30
            color = (225, 90, 90) if pole == "N" else (100, 140, 235)
            canvas.pen.rectangle((x, y - 13, x + 30, y + 13), fill=color, outline=(50, 50, 50))
            canvas.text(x + 9, y, pole, font=BOLD, size=16)
    attract = pair[0][1] != pair[1][0]
    words = ("attract", "repel") if attract else ("repel", "attract")
    return _diagram(
        ("magnets", "physics"),
        canvas,
        ("Will these magnets attract or repel each other?", words[0], [words[1]]),
        ("Look at the poles that face each other.", "Opposite poles attract, like poles repel."),
        ", ".join(" ".join(bar) for bar in pair),
        {
            "Which poles face each other?": f"{pair[0][1]} {pair[1][0]}",
            "Are the poles that face each other alike?": "no" if attract else "yes",
            "Do these magnets attract or repel each other?": words[0],
        },
        rng,
    )


def _punnett(canvas: Canvas, rng: Random) -> Diagram:
    letter = rng.choice("BRT")
    big, small = letter, letter.lower()
    parents = [
        rng.sample([big, small], 2) if rng.random() < 0.7 else [rng.choice([big, small])] * 2
    ]
    parents.append(
        rng.sample([big, small], 2) if rng.random() < 0.7 else [rng.choice([big, small])] * 2
    )
    left, top = rng.uniform(30, 60), 28 + rng.uniform(0, 8)
    hidden = rng.randrange(4)
    for i in range(2):
        canvas.text(left + 15 + 40 * i, top - 12, parents[0][i], font=BOLD, size=16)
        canvas.text(left - 18, top + 18 + 36 * i, parents[1][i], font=BOLD, size=16)
    for box in range(4):
        row, column = divmod(box, 2)
        x, y = left + 40 * column, top + 36 * row
        canvas.pen.rectangle((x, y, x + 40, y + 36), outline=(40, 40, 40))
        pair = "".join(sorted(parents[0][column] + parents[1][row]))
        canvas.text(x + 9, y + 18, "?" if box == hidden else pair, font=SANS, size=16)
    row, column = divmod(hidden, 2)
    right = "".join(sorted(parents[0][column] + parents[1][row]))
    wrong = [pair for pair in (big * 2, big + small, small * 2) if pair != right]
    return _diagram(
        ("punnett", "biology"),
        canvas,
        ("Which genotype belongs in the box with the question mark?", right, wrong),
        ("Each parent gives one letter.", "A Punnett square pairs one allele of each parent."),
        ", ".join(" ".join(letters) for letters in parents),
        {
            "Where is the question mark?": ("top ", "bottom ")[row] + ("left", "right")[column],
            "Which letter is above the question mark?": parents[0][column],
            "Which letter is left of the question mark?": parents[1][row],
            "Which letters meet at the question mark?": f"{parents[0][column]} {parents[1][row]}",
            "What genotype is hidden?": right,
        },
        rng,
    )


def _thermometers(canvas: Canvas, rng: Random) -> Diagram:
    levels = rng.sample(range(1, 8), 2)
    for i, level in enumerate(levels):
        x = 44 + 76 * i + rng.uniform(-8, 8)
        canvas.pen.rectangle((x - 6, 14, x + 6, 112), outline=(60, 60, 60), fill=(255, 255, 255))
        canvas.pen.rectangle((x - 4, 110 - 12 * level, x + 4, 114), fill=(220, 40, 40))
        canvas.pen.ellipse((x - 11, 108, x + 11, 130), fill=(220, 40, 40))
        canvas.mark(Thing("circle", "red", x, 110 - 12 * level, 8))
    warmer = rng.random() < 0.5
    first = (levels[0] > levels[1]) == warmer
    words = ("left", "right") if first else ("right", "left")
    sides = words if warmer else words[::-1]
    asked = "hotter" if warmer else "colder"
    return _diagram(
        ("thermometers", "physics"),
        canvas,
        (f"Which thermometer shows the {asked} day?", words[0], [words[1]]),
        ("The red column rises with heat.", "A thermometer measures temperature."),
        f"left {levels[0]}, right {levels[1]}",
        {
            "How high is the left column?": str(levels[0]),
            "How high is the right column?": str(levels[1]),
            "Which thermometer is hotter?": sides[0],
            "Which thermometer is colder?": sides[1],
        },
        rng,
    )


def _bars(canvas: Canvas, rng: Random) -> Diagram:
    colors = rng.sample(list(COLORS), rng.randint(3, 4))
    heights = rng.sample(range(1, 8), len(colors))
    base = rng.uniform(122, 132)
    canvas.pen.line((8, base, 160, base), fill=(40, 40, 40), width=2)
    for i, (color, height) in enumerate(zip(colors, heights, strict=True)):
        x = 14 + 37 * i + rng.uniform(-3, 3)
        canvas.pen.rectangle((x, base - 15 * height, x + 26, base), fill=COLORS[color])
        canvas.mark(Thing("square", color, x + 13, base - 15 * height, 26))
    most = rng.random() < 0.5
    right = colors[heights.index(max(heights) if most else min(heights))]
    return _diagram(
        ("bars", "statistics"),
        canvas,
        (
            f"Which bar is the {'tallest' if most else 'shortest'}?",
            right,
            [color for color in colors if color != right],
        ),
        ("Compare the tops of the bars.", "A bar chart shows amounts by height."),
        ", ".join(f"{color} {height}" for color, height in zip(colors, heights, strict=True)),
        {
            f"How high is the {colors[0]} bar?": str(heights[0]),
            "Which color is the tallest?": colors[heights.index(max(heights))],
            "Which color is the shortest?": colors[heights.index(min(heights))],
        },
        rng,
    )


def _matter(canvas: Canvas, rng: Random) -> Diagram:
    state = rng.choice(("solid", "liquid", "gas"))
    color: Color = COLORS[rng.choice(("blue", "red", "green", "purple"))]
    left, top = rng.uniform(14, 50), rng.uniform(6, 20)
    canvas.pen.rectangle((left, top, left + 104, top + 110), outline=(40, 40, 40), width=2)
    spots = [(13.0 * c, 13.0 * r) for r in range(8) for c in range(8)]
    if state == "solid":
        spots = [s for s in spots if s[1] >= 52]
    elif state == "liquid":
        lower = [s for s in spots if s[1] >= 39]
        spots = [(x + rng.uniform(-4, 4), y + rng.uniform(-4, 2)) for x, y in rng.sample(lower, 24)]
    else:
        spots = [(x + rng.uniform(0, 4), y + rng.uniform(0, 4)) for x, y in rng.sample(spots, 10)]
    for x, y in spots:
        canvas.pen.ellipse((left + 3 + x, top + 5 + y, left + 12 + x, top + 14 + y), fill=color)
    canvas.count((left + 7.5 + x, top + 9.5 + y) for x, y in spots)
    return _diagram(
        ("matter", "chemistry"),
        canvas,
        (
            "Which state of matter is shown?",
            state,
            [other for other in ("solid", "liquid", "gas") if other != state],
        ),
        ("Look at how close the particles are.", "Particles of a gas are far apart."),
        state,
        {"Is it a solid, a liquid or a gas?": state},
        rng,
    )


_TOWNS = ("Arden", "Boro", "Calne", "Dover", "Elgin", "Frome", "Goole", "Hythe")


def _map(canvas: Canvas, rng: Random) -> Diagram:
    names = rng.sample(_TOWNS, 3)
    rows, columns = rng.sample(range(5), 3), rng.sample(range(3), 3)
    canvas.pen.polygon(
        [(4, 20), (60, 4), (150, 8), (164, 70), (140, 134), (40, 136), (6, 90)],
        fill=(214, 228, 196),
    )
    for name, row, column in zip(names, rows, columns, strict=True):
        x, y = 14 + 38 * column + rng.uniform(-4, 4), 28 * row + 14
        canvas.pen.ellipse((x - 3, y - 3, x + 3, y + 3), fill=(180, 30, 30))
        canvas.text(x + 6, y, name, font=SANS, size=14)
    north = rng.random() < 0.5
    by_row = [name for _, name in sorted(zip(rows, names, strict=True))]
    right = by_row[0 if north else -1]
    return _diagram(
        ("map", "geography"),
        canvas,
        (
            f"Which town is farthest {'north' if north else 'south'}?",
            right,
            [name for name in names if name != right],
        ),
        ("North is at the top.", "Maps usually show north at the top."),
        ", ".join(by_row),
        {"Which town is at the top?": by_row[0], "Which town is at the bottom?": by_row[-1]},
        rng,
    )


MAKERS = {
    "food_chain": _food_chain,
    "magnets": _magnets,
    "punnett": _punnett,
    "thermometers": _thermometers,
    "bars": _bars,
    "matter": _matter,
    "map": _map,
}

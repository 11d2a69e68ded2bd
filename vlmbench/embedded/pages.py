"""docvqa: business pages of labelled fields, and questions about one field."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from vlmbench.embedded.canvas import FONTS, PITCH, Canvas, shade

WIDTH, HEIGHT, LINE = 252, 196, 28
TAB = 3 * PITCH
"""Labels and values begin at tab stops, as on typed forms."""

MONTHS = {
    **{"Jan": "January", "Feb": "February", "Mar": "March", "Apr": "April", "Jun": "June"},
    **{"Jul": "July", "Aug": "August", "Sep": "September", "Oct": "October", "Nov": "November"},
}
FIRST = """Anna Ben Carla David Elena Felix Grace Hugo Irene Jonas Karin Leo Maria Nadia Oscar Paula
Quinn Rosa Simon Tara Ugo Vera Walter Yann Zoe Amir Bela Chloe Dario Emil""".split()
LAST = """Adler Brandt Costa Dorn Evans Fuchs Garcia Huber Ivanov Jensen Keller Lopez Moser Novak
Olsen Peters Quast Rossi Stein Turner Urban Vogel Weber Young Zander Bauer Clark Diaz""".split()
TOWNS = """Oslo Berlin Madrid Vienna Zurich Lisbon Dublin Turin Ghent Malmo Porto Krakow Bergen
Leeds Nantes Basel Graz Lyon Bonn Riga Split Varna Cork Delft""".split()
GOODS = """Paper Lamps Chairs Cables Pumps Bricks Shoes Tents Bikes Clocks Drills Boots Pens
Tiles Motors Ladders Gloves Radios""".split()
TITLES = ("Invoice", "Receipt", "Order Form", "Delivery Note", "Memo", "Registration", "Statement")


@dataclass(frozen=True)
class Kind:
    """One kind of field: how pages label it, how questions ask for it, what values it takes."""

    labels: tuple[str, ...]
    questions: tuple[str, ...]
    value: Callable[[Random], tuple[str, ...]]
    """Draws the accepted answers; the first is what stands on the page."""


def _code(rng: Random) -> tuple[str, ...]:
    letters = "".join(rng.choice("ABCDEFGHKLMNPRSTVWXZ") for _ in range(2))
    digits = "".join(rng.choice("0123456789") for _ in range(4))
    return (f"{letters}-{digits}", f"{letters}{digits}")


def _date(rng: Random) -> tuple[str, ...]:
    month = rng.choice(list(MONTHS))
    day, year = rng.randint(1, 28), rng.randint(1990, 2029)
    return (f"{day} {month.upper()} {year}", f"{day} {MONTHS[month]} {year}")


def _money(rng: Random) -> tuple[str, ...]:
    amount = f"{rng.randint(1, 999)}.{rng.choice(['00', '50', '25', '75', '99', '40', '10'])}"
    return (f"${amount}", amount)


def _name(rng: Random) -> tuple[str, ...]:
    return (f"{rng.choice(FIRST)} {rng.choice(LAST)}".upper(),)


def _phone(rng: Random) -> tuple[str, ...]:
    digits = [str(rng.randint(0, 9)) for _ in range(7)]
    return ("".join(digits[:3]) + "-" + "".join(digits[3:]), "".join(digits))


def _quantity(rng: Random) -> tuple[str, ...]:
    return (str(rng.randint(2, 480)),)


def _town(rng: Random) -> tuple[str, ...]:
    return (rng.choice(TOWNS).upper(),)


def _goods(rng: Random) -> tuple[str, ...]:
    return (rng.choice(GOODS).upper(),)


KINDS = {
    "number": Kind(("Number", "No."), ("What is the number?", "Which number is given?"), _code),
    "date": Kind(("Date", "Issued"), ("What is the date?", "When was it issued?"), _date),
    "total": Kind(("Total", "Amount"), ("What is the total?", "How much is the amount?"), _money),
    "tax": Kind(("Tax", "VAT"), ("How much is the tax?", "What is the VAT?"), _money),
    "name": Kind(("Name", "Client"), ("What is the name?", "Who is the client?"), _name),
    "manager": Kind(("Manager", "Signed"), ("Who is the manager?", "Who signed it?"), _name),
    "town": Kind(("City", "Town"), ("What is the city?", "Which town is named?"), _town),
    "phone": Kind(("Phone", "Tel"), ("What is the phone number?", "Which phone is given?"), _phone),
    "item": Kind(("Item", "Goods"), ("What is the item?", "Which goods are listed?"), _goods),
    "count": Kind(("Quantity", "Units"), ("What is the quantity?", "How many units?"), _quantity),
}


@dataclass(frozen=True)
class Page:
    """A drawn page: its title, and for each field kind the label and the accepted answers."""

    canvas: Canvas
    title: str
    fields: dict[str, tuple[str, tuple[str, ...]]]

    @property
    def lines(self) -> list[str]:
        """What a reader reads, top to bottom."""
        return [self.title, *(f"{label}: {values[0]}" for label, values in self.fields.values())]


def draw(rng: Random) -> Page:
    """A page of four to six fields in random order, font, size and layout."""
    kinds = rng.sample(list(KINDS), rng.randint(4, 6))
    fields = {kind: (rng.choice(KINDS[kind].labels), KINDS[kind].value(rng)) for kind in kinds}
    page = Page(Canvas(WIDTH, HEIGHT, shade(rng, 225, 255)), rng.choice(TITLES), fields)
    font, size = rng.choice(FONTS), rng.randint(12, 14)
    ink = shade(rng, 0, 80)
    left = TAB * rng.randint(0, 1)
    column = TAB * rng.choice((0, 0, 3, 4))
    heading = rng.choice(("DejaVuSans-Bold", "STIXGeneralBol", font))
    y = LINE / 2 + rng.uniform(-2, 2)
    page.canvas.text(left, y, page.title, font=heading, size=15, ink=ink)
    if rng.random() < 0.4:
        page.canvas.pen.line((left, LINE, WIDTH - left, LINE), fill=ink)
    for row, (label, values) in enumerate(fields.values(), start=1):
        y = LINE * (row + 0.5) + rng.uniform(-3, 3)
        width = page.canvas.text(left, y, f"{label}:", font=font, size=size, ink=ink)
        last = (WIDTH - PITCH * len(values[0])) // TAB * TAB
        start = min(max(math.ceil((left + width + PITCH) / TAB) * TAB, column), last)
        page.canvas.text(start, y, values[0], font=font, size=size, ink=ink)
    return page


def questions(page: Page, rng: Random, count: int) -> list[tuple[str, str, list[str]]]:
    """(field kind, question, accepted answers) of `count` different fields of the page."""
    return [
        (kind, rng.choice(KINDS[kind].questions), list(page.fields[kind][1]))
        for kind in rng.sample(list(page.fields), count)
    ]

"""Draws the map of the packages, lists their wings, and counts their rooms: `python docs/make_map.py`.

It writes `docs/pictures/map.svg` and the tables in `docs/architecture.md`, and prints how many rooms and arrows there
are. It reads the import statements of all modules (`docs/read_rooms.py`).

A room stands one floor above the highest room that it imports, so each arrow points down. The picture leaves out an
arrow where a longer way down already says the same; the numbers are those of all arrows.

`--revision REV` counts that commit, too. It is read from the repository, without a checkout.
"""

import argparse
import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from pathlib import Path

from read_rooms import House, all_imports, below, circles, house, module_paths, room, sources, table

DOCS = Path(__file__).parent
PICTURE = DOCS / "pictures" / "map.svg"
PAGE = DOCS / "architecture.md"

STYLE = """<style>
.ground{fill:#fff} text{font:12px system-ui,sans-serif;fill:#1f2328} .title{font-weight:600;font-size:15px}
.dim{fill:#59636e} .floor{fill:#f6f8fa} .room{fill:#fff;stroke:#59636e} .folder{fill:#ddf4ff;stroke:#0969da}
.arrow{fill:none;stroke:#818b98;stroke-width:1} .head{fill:#818b98} .wide{fill:none;stroke:#818b98;stroke-width:4}
@media (prefers-color-scheme:dark){.ground{fill:#0d1117} text{fill:#e6edf3} .dim{fill:#9198a1} .floor{fill:#151b23}
.room{fill:#0d1117;stroke:#9198a1} .folder{fill:#121d2f;stroke:#4493f8} .arrow,.wide{stroke:#656c76}
.head{fill:#656c76}}
</style>"""
FLOOR, BOX, GAP = 50, 24, 12  # heights of a floor and of a box; pixels between boxes
LETTER, PADDING, DETOUR = 6.6, 18, 6  # width of a letter, of what is around a name, of an arrow that passes a floor
MARGIN, TITLE = 16, 40
ROUNDS = 30  # of putting rooms below those that import them; more change nothing


@dataclass(frozen=True)
class Spot:
    """A room on its floor; or an arrow to that room, from ``passing``, where it passes a floor between the two."""

    room: str
    floor: int
    passing: str | None = None


def floors_of(of: House) -> dict[str, int]:
    """The floor of each room, 0 at the ground. Raises ValueError where rooms go round in a circle."""
    if found := circles(of):
        raise ValueError(f"{of.name}: these rooms import each other: {', '.join(sorted(found[0]))}")
    floors: dict[str, int] = {}

    def climb(name: str) -> int:
        if name not in floors:
            floors[name] = max((climb(target) + 1 for source, target in of.arrows if source == name), default=0)
        return floors[name]

    for name in sorted(of.modules):
        climb(name)
    return floors


def drawn(of: House) -> list[tuple[str, str]]:
    """Arrows without those that a longer way down says, too."""
    targets = {name: {target for source, target in of.arrows if source == name} for name in of.modules}
    return sorted(
        (source, target)
        for source, target in of.arrows
        if not any(target in below(of.arrows, other) for other in targets[source] - {target})
    )


def label(of: House, name: str) -> str:
    """What is written on a room's box."""
    if name in of.folders:
        return f"{name}/ {of.modules[name]}"
    return name or "__init__"


class Plan:
    """Where everything in a house stands: floors as rows, each arrow a chain of spots from floor to floor."""

    def __init__(self, of: House) -> None:
        self.house, self.floors = of, floors_of(of)
        self.rows: list[list[Spot]] = [[] for _ in range(max(self.floors.values()) + 1)]
        spots = {name: Spot(name, self.floors[name]) for name in sorted(of.modules)}
        for spot in spots.values():
            self.rows[spot.floor].append(spot)
        self.chains: list[list[Spot]] = []
        for source, target in drawn(of):
            between = [Spot(target, floor, source) for floor in range(self.floors[source] - 1, self.floors[target], -1)]
            for spot in between:
                self.rows[spot.floor].append(spot)
            self.chains.append([spots[source], *between, spots[target]])
        self._beside: dict[Spot, tuple[list[Spot], list[Spot]]] = {
            spot: ([], []) for row in self.rows for spot in row
        }  # those above, those below
        for chain in self.chains:
            for upper, lower in pairwise(chain):
                self._beside[upper][1].append(lower)
                self._beside[lower][0].append(upper)
        self.x: dict[Spot, float] = {}
        self._order()
        self._place()
        left = min(self.x[spot] - self.width(spot) / 2 for spot in self.x)
        self.x = {spot: x - left for spot, x in self.x.items()}
        self.whole = max(self.x[spot] + self.width(spot) / 2 for spot in self.x)

    def width(self, spot: Spot) -> float:
        """Of a box, or of an arrow that passes."""
        return DETOUR if spot.passing is not None else len(label(self.house, spot.room)) * LETTER + PADDING

    def _order(self) -> None:
        """Put the spots of each row into the order in which the fewest arrows cross."""
        best, fewest = [list(row) for row in self.rows], self._crossings()
        for turn in range(ROUNDS):
            rows = self.rows if turn % 2 else self.rows[::-1]
            for row in rows:
                place = {spot: number for each in self.rows for number, spot in enumerate(each)}
                wanted = {}
                for spot in row:
                    near = self._beside[spot][1 if turn % 2 else 0]
                    wanted[spot] = sum(place[other] for other in near) / len(near) if near else float(place[spot])
                row.sort(key=lambda spot: wanted[spot])
            if (crossings := self._crossings()) < fewest:
                best, fewest = [list(row) for row in self.rows], crossings
        self.rows = best

    def _crossings(self) -> int:
        place = {spot: number for row in self.rows for number, spot in enumerate(row)}
        count = 0
        for row in self.rows:
            lines = [(place[spot], place[lower]) for spot in row for lower in self._beside[spot][1]]
            count += sum(a < c and b > d for a, b in lines for c, d in lines)
        return count

    def _place(self) -> None:
        """Give each spot its middle: near to what it is joined to, in its row's order, with a gap to its neighbours."""
        for row in self.rows:
            self._spread(row, [0.0] * len(row))
        for turn in range(ROUNDS):
            for row in self.rows if turn % 2 else self.rows[::-1]:
                wanted = []
                for spot in row:
                    above, under = self._beside[spot]
                    near = [*above, *under]
                    wanted.append(sum(self.x[other] for other in near) / len(near) if near else self.x[spot])
                self._spread(row, wanted)

    def _spread(self, row: list[Spot], wanted: list[float]) -> None:
        apart = [(self.width(one) + self.width(other)) / 2 + GAP for one, other in pairwise(row)]
        right, left = list(wanted), list(wanted)
        for number, distance in enumerate(apart):
            right[number + 1] = max(right[number + 1], right[number] + distance)
        for number in range(len(apart) - 1, -1, -1):
            left[number] = min(left[number], left[number + 1] - apart[number])
        for spot, one, other in zip(row, right, left, strict=True):
            self.x[spot] = (one + other) / 2


def _text(x: float, y: float, words: str, anchor: str = "start", kind: str = "") -> str:
    return f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}" class="{kind}">{escape(words)}</text>'


def _box(kind: str, x: float, y: float, width: float, height: float) -> str:
    return f'<rect class="{kind}" x="{x:.0f}" y="{y:.0f}" width="{width:.0f}" height="{height:.0f}" rx="4"/>'


def _house(plan: Plan, left: float, top: float, width: float) -> Iterator[str]:
    """A house, drawn into ``width`` pixels."""
    of, inset = plan.house, left + 24
    shift = inset + (width - 24 - plan.whole) / 2

    def y(floor: int) -> float:
        return top + TITLE + (len(plan.rows) - 1 - floor) * FLOOR

    yield _text(left, top + 22, of.name, kind="title")
    count = f"{sum(of.modules.values())} modules in {len(of.modules)} rooms"
    yield _text(left + width, top + 22, count, "end", "dim")
    for floor in range(len(plan.rows)):
        yield _box("floor", left, y(floor) - 5, width, BOX + 10)
        yield _text(left + 10, y(floor) + 16, str(floor), "middle", "dim")
    for chain in plan.chains:
        source, target = chain[0], chain[-1]
        path = f"M{shift + plan.x[source]:.0f},{y(source.floor) + BOX:.0f}"
        for upper, lower in pairwise(chain):
            a, b = shift + plan.x[upper], shift + plan.x[lower]
            start, end = y(upper.floor) + BOX, y(lower.floor) - (4 if lower is target else 0)
            path += f" C{a:.0f},{(start + end) / 2:.0f} {b:.0f},{(start + end) / 2:.0f} {b:.0f},{end:.0f}"
            if lower is not target:
                path += f" V{y(lower.floor) + BOX:.0f}"
        yield f'<path class="arrow" d="{path}" marker-end="url(#head)"/>'
    for row in plan.rows:
        for spot in row:
            if spot.passing is None:
                kind = "folder" if spot.room in of.folders else "room"
                box, x = plan.width(spot), shift + plan.x[spot]
                yield _box(kind, x - box / 2, y(spot.floor), box, BOX)
                yield _text(x, y(spot.floor) + 16, label(of, spot.room), "middle")


def picture() -> str:
    """The map, as SVG."""
    texts = sources()
    arrows = all_imports(texts)
    daemon, client, engine = (Plan(house(name, texts, arrows)) for name in ("pop3d", "pop3cli", "pop3core"))
    beside = [plan.whole + 40 for plan in (daemon, client)]
    width = max(sum(beside) + MARGIN, engine.whole + 40)
    beside[1] = width - beside[0] - MARGIN
    tall = max(len(daemon.rows), len(client.rows))
    parts: list[str] = []
    left, ground = float(MARGIN), MARGIN + TITLE + tall * FLOOR
    for plan, room_for in zip((daemon, client), beside, strict=True):
        top = MARGIN + (tall - len(plan.rows)) * FLOOR
        parts += _house(plan, left, top, room_for)
        middle = left + room_for / 2
        parts.append(f'<path class="wide" d="M{middle:.0f},{ground - 12} V{ground + 18}" marker-end="url(#foot)"/>')
        left += room_for + MARGIN
    parts += _house(engine, MARGIN, ground + 24, width)
    height = ground + 24 + TITLE + len(engine.rows) * FLOOR + 16
    notes = "Blue: a folder with its number of modules. Arrow: imports. Not drawn: what a longer way down already says."
    parts.append(_text(MARGIN, height - 8, notes, kind="dim"))
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width + 2 * MARGIN:.0f} {height:.0f}" role="img">'
    title = "The rooms of pop3d, pop3cli and pop3core, and which imports which"
    markers = "".join(
        f'<marker id="{name}" viewBox="0 0 8 8" refX="{at}" refY="4" markerWidth="{size}" markerHeight="{size}"'
        ' orient="auto"><path class="head" d="M0,0 L8,4 L0,8 Z"/></marker>'
        for name, at, size in (("head", 4, 6), ("foot", 2, 3))
    )
    ground_box = _box("ground", 0, 0, width + 2 * MARGIN, height)
    parts = [head, f"<title>{title}</title>", STYLE, f"<defs>{markers}</defs>", ground_box, *parts, "</svg>", ""]
    return "\n".join(parts)


def wings(package: str) -> str:
    """The folders of a package, by what their docstrings say: what each is about, and what it may touch."""
    texts = sources()
    arrows = all_imports(texts)
    rows = ["| wing | is about | may touch |", "|---|---|---|"]
    top = house(package, texts, arrows)
    for name in sorted(module_paths()):
        if name.startswith(f"{package}.") and module_paths()[name].name == "__init__.py":
            docstring = (ast.get_docstring(ast.parse(texts[name])) or "").replace("``", "`")
            about, *more = (" ".join(paragraph.split()) for paragraph in docstring.split("\n\n"))
            found = re.search(r"\bMay touch (.*?)\.(?= |$)", " ".join(more))
            imported = sorted(target for source, target in top.arrows if source == room(name, package))
            touches = found[1] if found else ", ".join(f"`{target or package}`" for target in imported)
            rows.append(f"| `{name.replace('.', '/')}/` | {about} | {touches} |")
    return "\n".join(rows)


def made(page: str) -> str:
    """The page with its tables made anew."""

    def part(found: re.Match[str]) -> str:
        return f"<!-- wings of {found[1]} -->\n{wings(found[1])}\n<!-- end -->"

    return re.sub(r"<!-- wings of (\w+) -->\n.*?<!-- end -->", part, page, flags=re.DOTALL)


def main() -> None:
    """Draw the map and list the wings of the working tree, and print how many rooms there are."""
    parser = argparse.ArgumentParser(description="Draw docs/pictures/map.svg and count rooms and arrows.")
    parser.add_argument("--revision", metavar="REV", action="append", default=[], help="count this commit, too")
    arguments = parser.parse_args()
    PICTURE.write_text(picture())
    PAGE.write_text(made(PAGE.read_text()))
    print(table([*arguments.revision, None]))


if __name__ == "__main__":
    main()

"""The page of performance shows the figures that are kept, and its plots are pictures."""

import xml.etree.ElementTree as ET

import pytest

from tests.bench import plots
from tests.bench.svg import Bar, Curve, bars, lines


def test_the_page_is_made_from_what_is_kept() -> None:
    page = plots.PAGE.read_text()
    assert plots.made(page) == page, "run: python -m tests.bench.plots"
    for name in plots.PARTS:
        assert f"<!-- {name} -->" in page


@pytest.mark.parametrize("name", plots.pictures())
def test_a_plot_is_made_from_what_is_kept(name: str) -> None:
    picture = plots.pictures()[name]
    assert (plots.PICTURES / f"{name}.svg").read_text() == picture, "run: python -m tests.bench.plots"
    assert f"pictures/{name}.svg" in plots.PAGE.read_text()
    assert ET.fromstring(picture).tag.endswith("svg")


def test_bars_go_to_both_sides() -> None:
    figures = [Bar("a & b", 0.5, "0.5", (("aim", 0.7),)), Bar("less", -0.25, "-25%")]
    root = ET.fromstring(bars("title", figures, whole=1, whole_told="all", legend=[("aim", "aim")]))
    drawn = [one for one in root.iter() if one.get("class") == "bar"]
    starts, widths = ([float(one.get(key, "")) for one in drawn] for key in ("x", "width"))
    assert widths[0] == pytest.approx(2 * widths[1], rel=0.01)
    assert starts[1] + widths[1] == pytest.approx(starts[0], abs=0.1)
    assert "a & b" in {one.text for one in root.iter()}


def test_a_line_of_slope_one_is_straight() -> None:
    root = ET.fromstring(
        lines("title", "sizes", [(1, "1"), (10, "10"), (100, "100")], {"s": [Curve("a", [1, 10, 100])]})
    )
    places = [(float(one.get("cx", "")), float(one.get("cy", ""))) for one in root.iter() if one.get("r") == "3"]
    (a, b), (c, d), (e, f) = places
    assert (c - a, d - b) == pytest.approx((e - c, f - d), abs=0.2)

"""Pictures of effects: where things stand on the axis, what is drawn, and nothing that the numbers do not say."""

import math

import pytest

from mtkd.evidence import forest
from mtkd.evidence.forest import REACH, Strip
from mtkd.evidence.verdicts import Member, judge

GAIN = [0.9, 1.1, 1.0, 1.2, 0.8, 1.0, 1.1, 0.9]


def verdict(**known):
    members = [Member("a", GAIN), Member("b", [2 * x for x in GAIN])]
    return judge("S1", members, tier="demo", unit="points", **known)


@pytest.mark.parametrize(("value", "place"), [(0, 0.5), (-2 * REACH, 0), (2 * REACH, 1), (1e9, 1), (2, 0.5 + 0.5 / REACH)])
def test_the_axis_is_in_smallest_effects_and_ends(value, place):
    assert Strip("", 0, 0, 0, delta=2.0, unit="points").at(value) == pytest.approx(place)


def test_a_claims_strips_are_its_mean_its_settings_and_the_papers_numbers():
    printed = tuple({"label": str(x), "difference": x, "fails": x < 0} for x in (-0.5, 1.0, 2.5))
    found = forest.of_claim(verdict(printed=printed))
    assert [strip.kind for strip in found] == ["mean", "setting", "setting", "printed"]
    assert found[0].effect == pytest.approx(1.5)
    assert (found[-1].effect, found[-1].low, found[-1].high) == (pytest.approx(1.0), -0.5, 2.5)


def test_claims_without_an_effect_have_no_strip_and_yours_is_marked():
    strips = forest.of_claims([verdict(), judge("S2", [], tier="demo")], [judge("S1", [Member("a", [0.4])], tier="demo")])
    assert [(strip.label, strip.yours) for strip in strips] == [("S1", 0.4)]
    assert "×" in forest.lines(strips)[0]
    assert "yours +0.40" in forest.lines(strips)[0]
    assert "×" not in forest.lines(forest.of_claims([verdict()]))[0]


def test_text_fits_its_width_and_says_where_it_is_cut_off():
    far = [Strip("T9", 40.0, 30.0, 50.0, 1.0, "points", verdict="supported"), Strip("T10", -4.0, -9.0, -1.0, 1.0, "points")]
    drawn = forest.lines(far, 80)
    assert drawn[0].index("●") < drawn[0].index("+40.00")
    assert "◂" in drawn[1]
    assert drawn[1].count("┤") == 1
    assert max(map(len, drawn)) <= 80 + 20  # a short terminal wraps the verdict rather than losing the picture
    assert forest.lines([]) == []


def test_one_replicate_has_an_effect_and_no_interval():
    strip = forest.of_claims([judge("S1", [Member("a", [0.4])], tier="demo")])[0]
    assert math.isnan(strip.low)
    assert strip.words == "+0.40"
    assert "├" not in forest.lines([strip])[0]


def test_the_figure_has_a_row_per_claim():
    axes = forest.figure([("demo", forest.of_claims([verdict()])), ("small", [])], {"supported": "green"}).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["S1"]

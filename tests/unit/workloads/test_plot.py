"""The roofline in characters: a golden picture, and properties of all pictures."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workloads.plot import HEIGHT, WIDTH, Point, Roof, draw, roofs_of
from workloads.roofline import Ceilings

GOLDEN = r"""
500 GFLOP/s |
            |                                //-------------------- bf16
200 GFLOP/s |                             ///
            |                          ///------------------------- fp32
100 GFLOP/s |                       ///                       BC
            |                    ///
 50 GFLOP/s |                 ///
            |              ///
 20 GFLOP/s |            //
            |         ///
 10 GFLOP/s |      ///D
            |   ///   A
  5 GFLOP/s |///
            |
            +--------------+----------------+----------------+----------
  FLOP/byte                1                10               100
A decode: 0.5 FLOP/byte, 9 GFLOP/s
B prefill: 120 FLOP/byte, 130 GFLOP/s
C train.forward: 118 FLOP/byte, 128 GFLOP/s
D train.optimizer: 0.5 FLOP/byte, 13 GFLOP/s
"""
ROOFS = [Roof("fp32", 150e9, 28e9), Roof("bf16", 400e9, 28e9)]
POINTS = [
    Point("decode", 0.5, 9e9),
    Point("prefill", 120, 130e9),
    Point("train.forward", 118, 128e9),
    Point("train.optimizer", 0.5, 13e9),
]

rates = st.floats(1e6, 1e18)
intensities = st.floats(1e-4, 1e6)
points = st.builds(Point, st.just("phase"), intensities, rates)
roofs = st.builds(Roof, st.sampled_from(["fp32", "bf16"]), rates, rates)


def test_the_picture() -> None:
    assert draw(ROOFS, POINTS) == GOLDEN.strip("\n")


@given(st.lists(roofs, min_size=1, max_size=3), st.lists(points, max_size=40))
def test_every_picture_fits_and_shows_the_points(over: list[Roof], under: list[Point]) -> None:
    lines = draw(over, under).splitlines()
    assert len(lines) == HEIGHT + len(under)
    assert max(map(len, lines[:HEIGHT])) <= WIDTH
    if under:
        assert any(letter in "".join(lines[: HEIGHT - 2]) for letter in "A*")


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 0.0, -1.0])
def test_what_is_no_number_is_left_out(bad: float) -> None:
    assert draw([Roof("fp32", bad, 1e9)], POINTS) == ""
    assert draw(ROOFS, [*POINTS, Point("odd", bad, 1e9)]) == draw(ROOFS, POINTS)


def test_roofs_come_from_measured_ceilings() -> None:
    measured = Ceilings({"fp32": 1e11}, 2e10, 3e10)
    assert roofs_of(measured) == [Roof("fp32", 1e11, 3e10)]
    assert roofs_of(Ceilings({"fp32": 1e11})) == []

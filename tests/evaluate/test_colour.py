"""Colours against published figures."""

from __future__ import annotations

import numpy as np
import pytest

from unskew.evaluate.classifiers.colour import ciede2000, ita, lab
from unskew.evaluate.classifiers.skin_tone import MONK_LAB, MONK_RGB

MONK_PUBLISHED = [
    (94.211, 1.503, 5.422),
    (92.275, 2.061, 7.28),
    (93.091, 0.216, 14.205),
    (87.573, 0.459, 17.748),
    (77.902, 3.471, 23.136),
    (55.142, 7.783, 26.74),
    (42.47, 12.325, 20.53),
    (30.678, 11.667, 13.335),
    (21.069, 2.69, 5.964),
    (14.61, 1.482, 3.525),
]
"""L*, a*, b* as they stand at skintone.google."""
SHARMA = """
50 2.6772 -79.7751 50 0 -82.7485 2.0425
50 3.1571 -77.2803 50 0 -82.7485 2.8615
50 2.8361 -74.0200 50 0 -82.7485 3.4412
50 -1.3802 -84.2814 50 0 -82.7485 1.0000
50 -1.1848 -84.8006 50 0 -82.7485 1.0000
50 -0.9009 -85.5211 50 0 -82.7485 1.0000
50 0 0 50 -1 2 2.3669
50 -1 2 50 0 0 2.3669
50 2.49 -0.001 50 -2.49 0.0009 7.1792
50 2.49 -0.001 50 -2.49 0.0010 7.1792
50 2.49 -0.001 50 -2.49 0.0011 7.2195
50 2.49 -0.001 50 -2.49 0.0012 7.2195
50 -0.001 2.49 50 0.0009 -2.49 4.8045
50 -0.001 2.49 50 0.0010 -2.49 4.8045
50 -0.001 2.49 50 0.0011 -2.49 4.7461
50 2.5 0 50 0 -2.5 4.3065
50 2.5 0 73 25 -18 27.1492
50 2.5 0 61 -5 29 22.8977
50 2.5 0 56 -27 -3 31.9030
50 2.5 0 58 24 15 19.4535
50 2.5 0 50 3.1736 0.5854 1.0000
50 2.5 0 50 3.2972 0 1.0000
50 2.5 0 50 1.8634 0.5757 1.0000
50 2.5 0 50 3.2592 0.3350 1.0000
60.2574 -34.0099 36.2677 60.4626 -34.1751 39.4387 1.2644
63.0109 -31.0961 -5.8663 62.8187 -29.7946 -4.0864 1.2630
61.2901 3.7196 -5.3901 61.4292 2.2480 -4.9620 1.8731
35.0831 -44.1164 3.7933 35.0232 -40.0716 1.5901 1.8645
22.7233 20.0904 -46.6940 23.0331 14.9730 -42.5619 2.0373
36.4612 47.8580 18.3852 36.2715 50.5065 21.2231 1.4146
90.8027 -2.0831 1.4410 91.1528 -1.6435 0.0447 1.4441
90.9257 -0.5406 -0.9208 88.6381 -0.8985 -0.7239 1.5381
6.7747 -0.2908 -2.4247 5.8714 -0.0985 -2.2286 0.6377
2.0776 0.0795 -1.1350 0.9033 -0.0636 -0.5514 0.9082
"""
"""Table 1 of Sharma, Wu and Dalal 2005: two L*a*b* colours and their CIEDE2000."""


def test_lab_is_the_published_one() -> None:
    """The Monk scale's L*a*b* from its RGB, within the white point's rounding."""
    np.testing.assert_allclose(MONK_LAB, MONK_PUBLISHED, atol=0.01)


def test_ciede2000_passes_the_test_data_of_its_reference() -> None:
    """All 34 pairs, among them those where usual mistakes show, in both directions."""
    rows = np.array([line.split() for line in SHARMA.split("\n") if line], dtype=np.float64)
    assert len(rows) == 34
    for one, other in ((rows[:, :3], rows[:, 3:6]), (rows[:, 3:6], rows[:, :3])):
        np.testing.assert_allclose(ciede2000(one, other), rows[:, 6], atol=6e-5)


def test_ita_falls_from_light_to_dark() -> None:
    """The angle of the definition, and lower for each darker Monk tone."""
    assert ita(np.array([60.0, 3.0, 10.0])) == pytest.approx(45)
    assert (np.diff(ita(MONK_LAB)) < 0).all()
    assert lab(np.array([255, 255, 255], np.uint8)) == pytest.approx([100, 0, 0], abs=0.01)
    assert len(MONK_RGB) == 10

"""Colours as people see them: CIE L*a*b*, how two of them differ, and how light a skin is."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

D65 = np.array([0.95047, 1.0, 1.08883])
"""The white of sRGB, CIE 1931 2 degree observer."""
TO_XYZ = np.array(
    [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
)
"""Linear sRGB to XYZ, IEC 61966-2-1."""


def lab(rgb: NDArray[np.uint8]) -> Floats:
    """(..., 3) L* in [0, 100], a* and b*, of (..., 3) sRGB bytes; white D65."""
    part = np.asarray(rgb, dtype=np.float64) / 255
    linear = np.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4)
    t = linear @ TO_XYZ.T / D65
    f = np.where(t > (6 / 29) ** 3, np.cbrt(t), t / (3 * (6 / 29) ** 2) + 4 / 29)
    x, y, z = f[..., 0], f[..., 1], f[..., 2]
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def ita(lab_3: Floats) -> Floats:
    """(...) individual typology angle in degrees: arctan((L* - 50) / b*), Chardon et al. 1991.

    Over 55 is very light, 41 to 55 light, 28 to 41 intermediate, 10 to 28 tan, -30 to 10 brown,
    under that dark (Del Bino and Bernerd 2013).
    """
    return np.asarray(np.degrees(np.arctan2(lab_3[..., 0] - 50, lab_3[..., 2])))


def ciede2000(one: Floats, other: Floats) -> Floats:
    """(...) how different two L*a*b* colours look; 0 is equal, about 1 is just seen.

    CIE 142-2001 as Sharma, Wu and Dalal 2005 write it out ("The CIEDE2000 color-difference
    formula: implementation notes", Color Research and Application 30).
    """
    l1, a1, b1 = np.moveaxis(np.asarray(one, dtype=np.float64), -1, 0)
    l2, a2, b2 = np.moveaxis(np.asarray(other, dtype=np.float64), -1, 0)
    c7 = ((np.hypot(a1, b1) + np.hypot(a2, b2)) / 2) ** 7
    g = 0.5 * (1 - np.sqrt(c7 / (c7 + 25.0**7)))
    a1, a2 = (1 + g) * a1, (1 + g) * a2
    c1, c2 = np.hypot(a1, b1), np.hypot(a2, b2)
    h1, h2 = np.degrees(np.arctan2(b1, a1)) % 360, np.degrees(np.arctan2(b2, a2)) % 360
    grey = c1 * c2 == 0
    turn = (h2 - h1 + 180) % 360 - 180
    turn = np.where((turn == -180) & (h2 > h1), 180.0, turn)
    dl, dc = l2 - l1, c2 - c1
    dh = np.where(grey, 0, 2 * np.sqrt(c1 * c2) * np.sin(np.radians(turn / 2)))
    l_mean, c_mean = (l1 + l2) / 2, (c1 + c2) / 2
    far = np.abs(h1 - h2) > 180
    h_mean = np.where(far, (h1 + h2 + np.where(h1 + h2 < 360, 360, -360)) / 2, (h1 + h2) / 2)
    h_mean = np.where(grey, h1 + h2, h_mean)
    t = (
        1
        - 0.17 * np.cos(np.radians(h_mean - 30))
        + 0.24 * np.cos(np.radians(2 * h_mean))
        + 0.32 * np.cos(np.radians(3 * h_mean + 6))
        - 0.20 * np.cos(np.radians(4 * h_mean - 63))
    )
    s_l = 1 + 0.015 * (l_mean - 50) ** 2 / np.sqrt(20 + (l_mean - 50) ** 2)
    s_c, s_h = 1 + 0.045 * c_mean, 1 + 0.015 * c_mean * t
    c7 = c_mean**7
    twist = np.sin(np.radians(60 * np.exp(-(((h_mean - 275) / 25) ** 2))))
    r_t = -2 * np.sqrt(c7 / (c7 + 25.0**7)) * twist
    parts = (dl / s_l) ** 2 + (dc / s_c) ** 2 + (dh / s_h) ** 2 + r_t * (dc / s_c) * (dh / s_h)
    return np.asarray(np.sqrt(np.maximum(parts, 0)))

"""Dates as numbers: elapsed days, and month, weekday and hour on circles (so that December is next to January)."""

from typing import Any

import numpy as np

PARTS = ("elapsed", "month sin", "month cos", "weekday sin", "weekday cos", "hour sin", "hour cos")


def date_parts(dates: Any) -> dict[str, np.ndarray]:
    """{part: float64 [N]} of a datetime column, nan where it is null; elapsed is days since 1970."""
    micros = dates.dt.timestamp("us").cast(float).to_numpy()
    found = {"elapsed": np.array(micros, np.float64) / 86_400e6}
    for name, values, period in (
        ("month", dates.dt.month() - 1 + (dates.dt.day() - 1) / 31, 12),
        ("weekday", dates.dt.weekday() - 1, 7),
        ("hour", dates.dt.hour() + dates.dt.minute() / 60, 24),
    ):
        angle = 2 * np.pi / period * values.cast(float).to_numpy()
        found |= {f"{name} sin": np.sin(angle), f"{name} cos": np.cos(angle)}
    return found

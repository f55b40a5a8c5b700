"""How far a prediction can be trusted: calibrated probabilities, and intervals and sets with a promised coverage."""

from mtl_jax.uncertainty.calibration import (
    Calibration,
    TaskCalibration,
    calibrate,
    can_calibrate,
    coverage_of,
    coverage_table,
    regions,
)
from mtl_jax.uncertainty.conformal import Interval

__all__ = ["Calibration", "Interval", "TaskCalibration", "calibrate", "can_calibrate", "coverage_of",
           "coverage_table", "regions"]  # fmt: skip

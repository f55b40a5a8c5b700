"""Training: one compiled step, the loop around it, and the run that comes out. Names are imported when first used."""

import importlib
from typing import TYPE_CHECKING, Any

_FROM = {
    "Trainer": "trainer",
    "options_for_table": "tables",
    **dict.fromkeys(
        ("Balancing", "Devices", "FitOptions", "Intervals", "Optimization", "Output", "Selection"), "options"
    ),
}
_ROOMS = ("writers", "schedule")

__all__ = [*_FROM, *_ROOMS]


def __getattr__(name: str) -> Any:
    if name in _FROM:
        return getattr(importlib.import_module(f"{__name__}.{_FROM[name]}"), name)
    if name in _ROOMS:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])


if TYPE_CHECKING:  # what `__getattr__` finds, for editors and type checkers
    from mtl_jax.training import schedule as schedule
    from mtl_jax.training import writers as writers
    from mtl_jax.training.options import (
        Balancing as Balancing,
    )
    from mtl_jax.training.options import (
        Devices as Devices,
    )
    from mtl_jax.training.options import (
        FitOptions as FitOptions,
    )
    from mtl_jax.training.options import (
        Intervals as Intervals,
    )
    from mtl_jax.training.options import (
        Optimization as Optimization,
    )
    from mtl_jax.training.options import (
        Output as Output,
    )
    from mtl_jax.training.options import (
        Selection as Selection,
    )
    from mtl_jax.training.tables import options_for_table as options_for_table
    from mtl_jax.training.trainer import Trainer as Trainer

"""mtl_jax: multi-task and transfer learning in JAX.

Several related prediction problems are learned by one model, and what was learned is carried to new tasks. Names are
imported when they are first used, so that importing the package is quick, and a part of it loads no other.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # what `__getattr__` finds, for editors and type checkers
    from mtl_jax import (
        analysis,
        balancing,
        data,
        encoders,
        heads,
        losses,
        metrics,
        parallel,
        partition,
        reporting,
        sharing,
        tasks,
        training,
        transfer,
        uncertainty,
    )
    from mtl_jax.analysis.compare import compare
    from mtl_jax.analysis.pareto import pareto_front
    from mtl_jax.balancing.linearization import JointLoss
    from mtl_jax.balancing.transformation import balanced
    from mtl_jax.batch import Batch, PerTask
    from mtl_jax.reporting.describe import describe
    from mtl_jax.tasks import Task
    from mtl_jax.training.fit import fit
    from mtl_jax.training.interrupts import Interrupted
    from mtl_jax.training.run import Run, evaluate, load_run

__version__ = "0.1.0"

_FROM = {
    "Batch": "batch",
    "PerTask": "batch",
    "Task": "tasks",
    "JointLoss": "balancing.linearization",
    "balanced": "balancing.transformation",
    "fit": "training.fit",
    "Interrupted": "training.interrupts",
    "Run": "training.run",
    "evaluate": "training.run",
    "load_run": "training.run",
    "describe": "reporting.describe",
    "compare": "analysis.compare",
    "pareto_front": "analysis.pareto",
}
_ROOMS = ("analysis", "balancing", "data", "encoders", "heads", "losses", "metrics", "parallel", "partition",
          "reporting", "sharing", "tasks", "training", "transfer", "uncertainty")  # fmt: skip

__all__ = [*_FROM, *_ROOMS]


def __getattr__(name: str):
    if name in _FROM:
        return getattr(importlib.import_module(f"mtl_jax.{_FROM[name]}"), name)
    if name in _ROOMS:
        return importlib.import_module(f"mtl_jax.{name}")
    raise AttributeError(f"module 'mtl_jax' has no attribute {name!r}")


def __dir__():
    return sorted([*globals(), *__all__])

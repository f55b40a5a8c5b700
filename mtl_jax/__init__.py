"""mtl_jax: multi-task and transfer learning in JAX.

Several related prediction problems are learned by one model, and what was learned is carried to new tasks. Names are
imported when they are first used, so that importing the package is quick, and a part of it loads no other.
"""

import importlib
from typing import TYPE_CHECKING

__version__ = "0.2.0"

_FROM = {
    "Batch": "batch",
    "PerTask": "batch",
    "Task": "tasks",
    "JointLoss": "gradients.linearization",
    "balanced": "balancing.transformation",
    "fit": "training.fit",
    "Interrupted": "training.interrupts",
    "Run": "training.run",
    "evaluate": "training.run",
    "load_run": "training.loading",
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


if TYPE_CHECKING:  # what `__getattr__` finds, for editors and type checkers
    from mtl_jax import (
        analysis as analysis,
    )
    from mtl_jax import (
        balancing as balancing,
    )
    from mtl_jax import (
        data as data,
    )
    from mtl_jax import (
        encoders as encoders,
    )
    from mtl_jax import (
        heads as heads,
    )
    from mtl_jax import (
        losses as losses,
    )
    from mtl_jax import (
        metrics as metrics,
    )
    from mtl_jax import (
        parallel as parallel,
    )
    from mtl_jax import (
        partition as partition,
    )
    from mtl_jax import (
        reporting as reporting,
    )
    from mtl_jax import (
        sharing as sharing,
    )
    from mtl_jax import (
        tasks as tasks,
    )
    from mtl_jax import (
        training as training,
    )
    from mtl_jax import (
        transfer as transfer,
    )
    from mtl_jax import (
        uncertainty as uncertainty,
    )
    from mtl_jax.analysis.compare import compare as compare
    from mtl_jax.analysis.pareto import pareto_front as pareto_front
    from mtl_jax.balancing.transformation import balanced as balanced
    from mtl_jax.batch import Batch as Batch
    from mtl_jax.batch import PerTask as PerTask
    from mtl_jax.gradients.linearization import JointLoss as JointLoss
    from mtl_jax.reporting.describe import describe as describe
    from mtl_jax.tasks import Task as Task
    from mtl_jax.training.fit import fit as fit
    from mtl_jax.training.interrupts import Interrupted as Interrupted
    from mtl_jax.training.loading import load_run as load_run
    from mtl_jax.training.run import Run as Run
    from mtl_jax.training.run import evaluate as evaluate

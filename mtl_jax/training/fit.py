"""`fit`: from a model and a data set to a run."""

from typing import Any

from mtl_jax.data.dataset import Dataset
from mtl_jax.model import MultiTaskModel
from mtl_jax.training import changes, options
from mtl_jax.training.run import Run
from mtl_jax.training.start import Adapted
from mtl_jax.training.trainer import Trainer


def fit(model: MultiTaskModel | Adapted, data: Dataset, *groups: Any, **keywords: Any) -> Run:
    """Trains a model and keeps the variables that are best on validation (the last ones, without validation data).

    It is a loop over a `Trainer`, which can be written out.

    Args:
      model: what to train, or what `transfer.adapt` returned.
      data: must have the model's tasks, by name; its labels are matched by class name, and its scalers are used (a
        head that `transfer.adapt` carried keeps its own).
      *groups: options by group, such as ``mtl.training.Optimization(num_steps=2000)``; keywords go over them.
      {options}

    Raises:
      ValueError: for arguments or data that do not fit, or a workdir that is in use or holds another run, saying what
        differs; for a name of another library, what it is here.
      Interrupted: after Ctrl-C or SIGTERM, once the run is saved; `error.run` is the run so far.
      FloatingPointError: naming step and task, or part of the step, that is not finite; the last good checkpoint stays.
    """
    job = Trainer(model, data, *groups, **keywords)
    changes.warn_of_earlier(job)
    for _ in job:
        pass
    return job.result()


options.documented(fit)

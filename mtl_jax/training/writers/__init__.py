"""Writers: where the records of a run go besides metrics.jsonl; one file each, the package imported when it is used."""

import importlib
import pathlib
from typing import Any

from mtl_jax import parts
from mtl_jax.training.writers.base import Writer, numbers_of

_FROM = {"tensorboard": "TensorBoard", "wandb": "WeightsAndBiases", "mlflow": "MLflow"}
__all__ = ["Writer", "numbers_of", *_FROM.values()]


def __getattr__(name: str) -> Any:
    for module, kind in _FROM.items():
        if name == kind:
            return getattr(importlib.import_module(f"{__name__}.{module}"), kind)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def of(given: Any, workdir: pathlib.Path | None) -> list[Any]:
    """The writers of a run: metrics.jsonl of its workdir, and one or several that were asked for, by text or object.

    Raises:
      ValueError: for a name that is not known, or what is no writer.
      ImportError: for one whose package is not there, naming the extra.
    """
    from mtl_jax.training.arguments import read_several
    from mtl_jax.training.writers.lines import Lines

    found: list[Any] = [] if workdir is None else [Lines(workdir)]
    for each in read_several(given):
        if isinstance(each, str):
            name = parts.parse(each, "writer")[0]
            parts.lookup(name, _FROM, "writer")
            each = parts.build(each, {name: __getattr__(_FROM[name])}, "writer")
        if isinstance(each, type) or not isinstance(each, Writer):
            wanted = f"a writer, its text ({', '.join(_FROM)}), or an object with begin, write and close"
            raise parts.no_such("an entry of writers", each, wanted)
        if hasattr(each, "at"):
            each.at(workdir)
        found.append(each)
    return found

"""Classes of a head that is loaded: matched by name with those of the new task, or refused."""

import re
import warnings
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from mtl_jax.tasks import Task

OUTPUT = re.compile(r"(?:tasks|shared/heads)/([^/]+)/(?:.*/)?out/(?:kernel|bias)")


def outputs_in_order(
    path: str, old_path: str, tasks: Sequence[Task], old_tasks: Sequence[Task]
) -> Int[np.ndarray, " class"] | None:
    """Which outputs of the old head are those of the new one, in its order; None: all, as they are.

    Args:
      path: of a leaf of the new model.
      old_path: of the leaf that it is loaded from.
      tasks: of the new model.
      old_tasks: of the source.

    Raises:
      ValueError: for tasks of unlike kinds, or a class that the old head was not trained for.
    """
    hit, old_hit = OUTPUT.fullmatch(path), OUTPUT.fullmatch(old_path)
    if not hit or not old_hit:
        return None
    new = next((t for t in tasks if t.name == hit[1]), None)
    old = next((t for t in old_tasks if t.name == old_hit[1]), None)
    if new is None or old is None:
        return None
    if new.kind != old.kind:
        raise ValueError(f"task {new.name!r} is {new.kind}, and the head is of {old.name!r}, which is {old.kind}")
    if new.classes == old.classes or new.kind == "binary":
        if new.classes != old.classes and new.classes and old.classes:
            raise ValueError(f"task {new.name!r} has the classes {', '.join(new.classes)}, and the head's are "
                             f"{', '.join(old.classes)}, in this order")  # fmt: skip
        return None
    if not new.classes or not old.classes:
        named = new.classes or old.classes
        warnings.warn(f"task {new.name!r}: model or checkpoint does not name its classes; the checkpoint's outputs "
                      f"are taken for {', '.join(f'{i} = {c}' for i, c in enumerate(named[:6]))}",
                      UserWarning, stacklevel=2)  # fmt: skip
        return None
    return in_order(new.name, new.classes, old.classes)


def in_order(task: str, classes: Sequence[str], old: Sequence[str]) -> Int[np.ndarray, " class"]:
    """The numbers that `classes` have among `old`.

    Raises:
      ValueError: naming a class that is not there, or is there twice.
    """
    lost = [c for c in classes if list(old).count(c) != 1]
    if lost:
        several = list(old).count(lost[0])
        what = f"{several} outputs are called" if several else "it was not trained for"
        raise ValueError(
            f"task {task!r}: the head was trained for the classes {', '.join(old[:8])}{', ...' * (len(old) > 8)}; "
            f"{what} {lost[0]!r}; KEEP the head's initial values for a new one"
        )
    return np.array([list(old).index(c) for c in classes])

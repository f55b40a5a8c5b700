"""Heads that come along to a new data set: their outputs mean the classes and the scale that they were trained for."""

import dataclasses
import re
from collections.abc import Sequence

from mtl_jax import partition
from mtl_jax.reporting import many
from mtl_jax.tasks import Task
from mtl_jax.training.run import Run


def heads_carried(run: Run, tasks: Sequence[Task], paths: Sequence[str], load: partition.Rules) -> tuple[str, ...]:
    """The tasks of which parameters of a head are to be loaded from the run: names, in the tasks' order.

    Args:
      run: which must have a task of the same name; or one head for all tasks.
      tasks: the new ones.
      paths: of the new model's parameters.
      load: see `adapt`.
    """
    old = set(partition.flatten(run.params))
    loaded = [p for p, wanted in partition.match(load, list(paths), False).items() if wanted and p in old]
    known = {t.name for t in run.tasks}
    one_head = any(p.startswith("shared/head/") for p in loaded)
    return tuple(
        t.name for t in tasks if (t.name in known and any(_is_head(p, t.name, paths) for p in loaded)) or one_head
    )


def _is_head(path: str, task: str, paths: Sequence[str]) -> bool:
    name = re.escape(task)
    if re.match(f"shared/heads/{name}/", path):
        return True
    # A model that calls no part of a task's branch its head: all of the branch may be.
    part = f"tasks/{name}/head/" if any(re.match(f"tasks/{name}/head/", p) for p in paths) else f"tasks/{name}/"
    return bool(re.match(part, path))


def fitting_heads(run: Run, tasks: Sequence[Task], carried: Sequence[str]) -> tuple[Task, ...]:
    """The tasks, those that are `carried` with the classes, in their order, and the scaler of the run's head.

    Raises:
      ValueError: for a class that the head was not trained for.
    """
    by_name = {t.name: t for t in run.tasks}
    found, unnamed = [], {}
    for task in tasks:
        if task.name not in carried:
            found.append(task)
            continue
        old = by_name.get(task.name, run.tasks[0])
        if old.classes and task.classes and not set(task.classes) <= set(old.classes):
            raise ValueError(
                f"task {task.name!r}: its head was trained for the classes {', '.join(old.classes)}, and the task has "
                f"{', '.join(task.classes)}; leave the head out of `load` for a new one"
            )
        if task.classes and not old.classes and task.size == old.size:
            unnamed[task.name] = (
                f"task {task.name!r}: its head was trained on class numbers without names, which are taken for "
                f"{', '.join(f'{i} = {c}' for i, c in enumerate(task.classes))}"
            )
        same = task.kind == old.kind
        found.append(dataclasses.replace(
            task,
            size=old.size if same and old.classes and task.classes else task.size,
            classes=(old.classes or task.classes) if same else task.classes,
            scaler=old.scaler if same else task.scaler,
        ))  # fmt: skip
    many.warn_of(unnamed, tasks, stacklevel=3)
    return tuple(found)

"""Where a pretrained encoder and its head go in a model of any architecture, as rules of loading."""

import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from mtl_jax import parts
from mtl_jax.reporting import many
from mtl_jax.tasks import Task
from mtl_jax.transfer.class_order import in_order
from mtl_jax.transfer.importing.layouts import Rule
from mtl_jax.transfer.load_rules import KEEP

# What architectures call their copies of an encoder; those of one name lie stacked.
PLACE = re.compile(r"(?:.*/)?(?:encoder|columns|copies|experts|experts_of)/(stage_\d+/.+)")


def head_rules(
    tasks: Sequence[Task], given: str | Mapping[str, Any] | None, head: str | None, classes: Sequence[str], count: int
) -> list[Rule]:
    """Rules for the tasks that take the head along.

    Args:
      tasks: the new ones.
      given: which of them do (`Pretrained.adapt`).
      head: its text; None if there is none.
      classes: names of its outputs, where they have any.
      count: of its outputs.

    Raises:
      ValueError: for a task or class that is not there.
    """
    by_name = {t.name: t for t in tasks}
    wanted = {given: classes} if isinstance(given, str) else dict(given or {})
    if wanted and head is None:
        raise ValueError("the pretrained model has no head to take along")
    rules: list[Rule] = []
    for name, outputs in wanted.items():
        if name not in by_name:
            raise parts.unknown("task of heads", name, by_name)
        order = outputs_for(by_name[name], outputs, count)
        change = None if order is None else functools.partial(_chosen, order)
        rules.append((rf"tasks/{re.escape(name)}/head/(out/.*)", r"head/\1", change))
        if "(" in (head or ""):  # layers in front of the outputs
            rules.append((rf"tasks/{re.escape(name)}/head/(.*)", r"head/\1", None))
    return rules


def outputs_for(task: Task, given: Any, count: int) -> Int[np.ndarray, " class"] | None:
    """Which of a head's `count` outputs a task takes; None for all as they are.

    Args:
      task: the new one.
      given: {class: number}, the names of all outputs, or None.
      count: of the outputs.
    """
    if given is None:
        return None
    if isinstance(given, Mapping):
        numbers = []
        for name in task.classes:
            if name not in given:
                raise ValueError(f"task {task.name!r}: heads gives no output for class {name!r}")
            if not isinstance(given[name], int) or not 0 <= given[name] < count:
                raise ValueError(f"task {task.name!r}: there is no output {given[name]!r}; the head has 0..{count - 1}")
            numbers.append(given[name])
        if numbers:
            return np.array(numbers)
    if not given or not task.classes:
        whose = f"task {task.name!r}" if given else "the pretrained model"
        raise ValueError(
            f"{whose} does not name its classes; say which outputs are meant, "
            f"heads={{{task.name!r}: {{'a class': 0}}}}, or None for all as they are"
        )
    return in_order(task.name, task.classes, given)


def _chosen(order: np.ndarray, x: Any) -> Any:
    return x[..., order]


def _stacked(copies: tuple[int, ...], x: Any) -> Any:
    for count in reversed(copies):
        x = x[None].repeat(count, 0)
    return x


def encoder_rules(leaves: Mapping[str, Any], names: Mapping[str, Any], architecture: str) -> list[Rule]:
    """Rules for every copy of the encoder in a model, alone or stacked; what else the model has is kept.

    Raises:
      ValueError: if some of the encoder's arrays have no place.
    """
    rules: list[Rule] = []
    placed = set()
    for path, leaf in leaves.items():
        hit = PLACE.fullmatch(path)
        name = hit[1] if hit else ""
        if name not in names:
            rules.append((re.escape(path), KEEP, None))
            continue
        placed.add(name)
        one, whole = tuple(names[name].shape), tuple(leaf.shape)
        copies = whole[: len(whole) - len(one)]
        change = functools.partial(_stacked, copies) if copies and whole == (*copies, *one) else None
        rules.append((re.escape(path), name, change))
    lost = [n for n in names if n not in placed and not n.startswith("head/")]
    if lost:
        raise ValueError(f"sharing {architecture!r} has no place for {len(lost)} arrays of the pretrained encoder "
                         f"({many.some(lost, 3)}); give load_parameters rules of your own")  # fmt: skip
    return rules

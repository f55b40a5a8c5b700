"""Every architecture, with what it needs to know of the tasks."""

from collections.abc import Sequence


def with_tasks(name: str, tasks: Sequence[str], stages: int) -> str:
    """The text of an architecture.

    `cascade` and `aitm` get the tasks' order, `esmm` the first two, `branched` a tree that parts them in two halves.
    """
    tasks = tuple(tasks)
    if name == "cascade":
        return f"cascade(order={tasks!r})"
    if name == "aitm":
        return f"aitm(funnel={tasks!r})"
    if name == "esmm":
        return f"esmm(click={tasks[0]!r}, conversion={tasks[1]!r})"
    if name == "branched":
        half = (len(tasks) + 1) // 2
        return f"branched(tree={((tasks[:half], tasks[half:]),) * stages!r})"
    return name


def every(tasks: Sequence[str], stages: int) -> dict[str, str]:
    """{name: text} of all of `mtl_jax.sharing.NAMES`."""
    from mtl_jax import sharing

    return {name: with_tasks(name, tasks, stages) for name in sharing.NAMES}

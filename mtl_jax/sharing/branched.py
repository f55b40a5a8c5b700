"""A given tree of tasks over an encoder's stages: at every stage the tasks fall into groups, and a group has one copy.

Lu et al., CVPR 2017, arXiv:1611.05377; Vandenhende et al., "Branched Multi-Task Networks", BMVC 2020, arXiv:1904.02920.
"""

from collections.abc import Sequence
from typing import Any

from mtl_jax import heads, parts
from mtl_jax.batch import PerTask
from mtl_jax.encoders import base
from mtl_jax.encoders.base import Encoder
from mtl_jax.members import Outputs
from mtl_jax.model import MultiTaskModel
from mtl_jax.sharing.architecture import architecture
from mtl_jax.sharing.encoder_copies import Layers
from mtl_jax.sharing.walk import walked
from mtl_jax.tasks import Task, check_names

Tree = Sequence[Sequence[Sequence[str]]]  # stages of groups of task names


@architecture(
    paper="Lu et al., CVPR 2017, arXiv:1611.05377; Vandenhende et al., BMVC 2020, arXiv:1904.02920",
    when="a known tree of tasks, or the one that was learned",
)
def branched(encoder: Encoder, tasks: Sequence[Task], tree: Tree) -> MultiTaskModel:
    """The model of a discrete tree; each task pays for its own branch only.

    A copy that all tasks share is under ``shared/encoder``, that of several under ``shared/branches/<first of them by
    name>``, that of a single task under ``tasks/<t>/encoder``. One group at every stage is hard sharing, one task per
    group are independent networks. Tasks may have inputs of their own.

    Where it departs from the paper: the papers find the tree, by widening and by affinities; here it is given, or read
    off `learning_to_branch`.

    Source: Lu et al., CVPR 2017, arXiv:1611.05377; Vandenhende et al., BMVC 2020, arXiv:1904.02920.

    Args:
      encoder: the stages; the pool goes with the last one.
      tasks: on common inputs, or each on its own.
      tree: a partition of the tasks' names per stage, such as ``((("a", "b", "c"),), (("a", "b"), ("c",)))`` for two
        stages; a group is part of a group of the stage before.

    Raises:
      ValueError: for a tree that is none, or that does not fit the stages and the tasks.
    """
    tasks = check_names(tasks)
    names = tuple(t.name for t in tasks)
    groups = _groups(tree, names, len(encoder.stages))
    modules = {t.name: heads.build(t, encoder.members) for t in tasks}

    def place(group: frozenset[str]) -> str:
        if len(group) == len(names):
            return "shared/encoder"
        return f"tasks/{min(group)}/encoder" if len(group) == 1 else f"shared/branches/{min(group)}"

    # What a task shares with others at first, then what it has alone: encode and decode.
    alone = {n: [len(g[n]) == 1 < len(names) for g in groups] for n in names}
    layers = [base.layers(encoder, i, i + 1) for i in range(len(groups))]

    def walk(at: Any, inputs: Any) -> PerTask:
        """The features of the last copy that a task shares."""
        x = dict.fromkeys(at.wanted, inputs)
        for i, group in enumerate(groups):
            made: dict[frozenset[str], Any] = {}
            for n in [n for n in at.wanted if not alone[n][i]]:
                if group[n] not in made:
                    made[group[n]] = at(layers[i], place(group[n]), x[n])
                x[n] = made[group[n]]
        return PerTask(x)

    def finish(at: Any, x: Any) -> Outputs:
        own: Layers = [layer for i, named in enumerate(layers) if alone[at.task][i] for layer in named]
        return at([("head", modules[at.task])], "own", at(own, "own/encoder", x))

    def read(name: str) -> tuple[str, ...]:
        """Which copies a task runs through, but for those of its own."""
        return tuple("alone" if own else place(g[name]) for own, g in zip(alone[name], groups, strict=True))

    return walked("branched", encoder, tasks, walk, finish, alike=read)


def _groups(tree: Tree, names: tuple[str, ...], stages: int) -> list[dict[str, frozenset[str]]]:
    """Per stage {task: its group}, or an error that says what is wrong with the tree."""
    if len(tree) != stages:
        raise ValueError(f"branched: the tree has {len(tree)} stages and the encoder {stages}")
    found: list[dict[str, frozenset[str]]] = []
    for i, partition in enumerate(tree):
        groups: dict[str, frozenset[str]] = {}
        for group in partition:
            if isinstance(group, str):
                raise ValueError(f"branched: group {group!r} of stage {i} must be a sequence of task names")
            for name in group:
                if name not in names:
                    raise parts.unknown(f"task in stage {i} of branched's tree", name, names)
                if name in groups:
                    raise ValueError(f"branched: stage {i} of the tree has task {name!r} twice")
                groups[name] = frozenset(group)
        for name in names:
            if name not in groups:
                raise ValueError(f"branched: stage {i} of the tree lacks task {name!r}")
            if found and not groups[name] <= found[-1][name]:
                apart = min(groups[name] - found[-1][name])
                raise ValueError(f"branched: {name!r} and {apart!r} part before stage {i} and cannot meet there again")
        found.append(groups)
    return found

"""Where earlier versions kept what lies elsewhere now, so that their runs still load.

Statistics of shared modules in a task's pass were ``tasks/<t>/<place>`` in some architectures; in others all state of
such a pass was below ``tasks/<t>/shared`` and ``tasks/<t>/tasks/<t>``. Now they are ``tasks/<t>/shared/<place>`` beside
``tasks/<t>/<place>`` of the task's own modules. Experts and gates of tasks in the earlier layers of PLE had a branch
each, and lie stacked now.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

# (what a path of today is like, where the same was)
MOVED = (
    (r"(.*\bstate/)tasks/([^/]+)/shared/(.+)", r"\1tasks/\2/\3"),
    (r"(.*\bstate/)tasks/([^/]+)/shared/(.+)", r"\1tasks/\2/tasks/\2/\3"),
    (r"(.*\bstate/)tasks/([^/]+)/(.+)", r"\1tasks/\2/tasks/\2/\3"),
    (r"(.*\bstate/shared/units/[^/]+)/finish/(.+)", r"\1/\2"),
)
# The same of what is stacked in the tasks' order now, with {} for the name of each.
STACKED = (
    (r"(.*\bshared/layer_\d+/(?:experts_of|gates))/(.+)", r"\1/{}/\2"),
    (r"(.*\bshared/layer_\d+/gate/of)/(.+)", r"\1_{}/\2"),
)


class Moved:
    """What is stored elsewhere than it is wanted.

    Args:
      stored: {path: what has a shape}.
      wanted: {path: its form}.
      tasks: their names, in order.
      axis: of tasks in what is stacked; 1 where members are before it.
    """

    def __init__(
        self, stored: Mapping[str, Any], wanted: Mapping[str, jax.ShapeDtypeStruct], tasks: Sequence[str], axis: int
    ):
        self.wanted, self.axis, self.at = wanted, axis, {}  # {path: where it, or what it is stacked of, is stored}
        for path in [p for p in wanted if p not in stored]:
            places = [[re.sub(now, before, path)] for now, before in MOVED if re.fullmatch(now, path)]
            for now, before in STACKED:
                if tasks and re.fullmatch(now, path):
                    place = re.sub(now, before, path)
                    places.append([place.replace("{}", name) for name in tasks])
            for at in places:
                if path not in self.at and all(p in stored and p not in wanted for p in at):
                    self.at[path] = at
        self.stacked = {p for p, at in self.at.items() if len(stored[at[0]].shape) < len(wanted[p].shape)}
        gone = {p for at in self.at.values() for p in at}
        self.today = {p: x for p, x in stored.items() if p not in gone}
        for path, at in self.at.items():
            shape = list(stored[at[0]].shape)
            shape[axis:axis] = [len(at)] * (path in self.stacked)
            self.today[path] = jax.ShapeDtypeStruct(tuple(shape), wanted[path].dtype)

    def stored(self) -> dict[str, jax.ShapeDtypeStruct]:
        """{stored path: its form} of what is to be read."""
        found = {p: x for p, x in self.wanted.items() if p not in self.at}
        for path, at in self.at.items():
            form = self.wanted[path]
            if path in self.stacked:
                shape = (*form.shape[: self.axis], *form.shape[self.axis + 1 :])
                one = jax.sharding.SingleDeviceSharding(jax.devices()[0])
                form = jax.ShapeDtypeStruct(shape, form.dtype, sharding=one)
            found |= dict.fromkeys(at, form)
        return found

    def made(self, loaded: Mapping[str, Any]) -> dict[str, Any]:
        """{path: array} of {stored path: array}."""
        found = {p: loaded[p] for p in self.wanted if p not in self.at}
        return found | {path: self._one(path, [loaded[p] for p in at]) for path, at in self.at.items()}

    def _one(self, path: str, arrays: Sequence[Any]) -> Any:
        return jnp.stack(arrays, self.axis) if path in self.stacked else arrays[0]

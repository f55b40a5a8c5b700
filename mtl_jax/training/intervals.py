"""How often a run logs, validates and saves, in whole dispatches."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mtl_jax import parts

NAMES = ("steps_per_dispatch", "eval_every", "checkpoint_every", "log_every")


def intervals(
    num_steps: int,
    steps_per_dispatch: int | None,
    eval_every: int | None,
    checkpoint_every: int | None,
    log_every: int | None,
) -> dict[str, int]:
    """The four intervals; what is None is chosen so that steps_per_dispatch divides everything."""
    given = {"num_steps": num_steps, "eval_every": eval_every, "checkpoint_every": checkpoint_every,
             "log_every": log_every}  # fmt: skip
    for key, value in {**given, "steps_per_dispatch": steps_per_dispatch}.items():
        if value is not None:
            parts.check_whole(key, value)
    if steps_per_dispatch is None:
        common = np.gcd.reduce([v for v in given.values() if v is not None])
        steps_per_dispatch = max(d for d in range(1, 51) if common % d == 0)
    for key, value in given.items():
        if value is not None and value % steps_per_dispatch:
            raise ValueError(f"{key}={value} is not a multiple of steps_per_dispatch={steps_per_dispatch}")

    def about(part: int) -> int:
        return max(1, round(num_steps / part / steps_per_dispatch)) * steps_per_dispatch

    eval_every = eval_every or about(10)
    return {
        "steps_per_dispatch": int(steps_per_dispatch),
        "eval_every": int(eval_every),
        "checkpoint_every": int(checkpoint_every or eval_every),
        "log_every": int(log_every or about(50)),
    }


def continued(num_steps: int, named: Mapping[str, int | None], stored: Mapping[str, Any] | None) -> dict[str, int]:
    """The intervals of a run that goes on where an earlier one of fewer or more steps is: what no one names stays.

    Args:
      num_steps: in all.
      named: {interval: what the caller gives, or None}.
      stored: the identity of the earlier run (its "settings", and in "named" what its caller gave), or None.
    """
    if stored is None:
        return intervals(num_steps, **named)
    was, given = stored["settings"], stored.get("named", ())
    kept = {k: named[k] or (None if k in given else was.get(k)) for k in NAMES if k != "steps_per_dispatch"}
    size = named["steps_per_dispatch"]
    if size is None and was.get("steps_per_dispatch"):
        # It has to reach every step at which the earlier run may have been saved, and every step that is to come.
        ends = [num_steps, was.get("num_steps"), was["steps_per_dispatch"], *kept.values()]
        size = int(np.gcd.reduce([int(n) for n in ends if n]))
    return intervals(num_steps, size, kept["eval_every"], kept["checkpoint_every"], kept["log_every"])

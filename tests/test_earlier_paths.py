"""Checkpoints of earlier versions: what lay elsewhere then is found, in the tasks' order, beside members too."""

import numpy as np
import pytest

from mtl_jax.checkpoint import Checkpoints

NORM = "encoder/stage_0/batch_stats/norm/mean"


def nested(flat):
    """A tree of {path: array}."""
    tree = {}
    for path, x in flat.items():
        *above, last = path.split("/")
        node = tree
        for part in above:
            node = node.setdefault(part, {})
        node[last] = x
    return tree


def restored(folder, old, new, tasks, axis=0):
    """The array at the path `new` of a checkpoint that holds `old`."""
    shapes = {path: np.zeros(shape, np.float32) for path, shape in new.items()}
    with Checkpoints(folder) as kept:
        kept.save(1, {"best": nested(old)})
        kept.wait()
        found = kept.restore(1, {"best": nested(shapes)}, tasks, axis)["best"]
    for path in new:
        found_at = found
        for part in path.split("/"):
            found_at = found_at[part]
        yield np.asarray(found_at)


@pytest.mark.parametrize(
    "before, now",
    [
        (f"state/tasks/a/{NORM}", f"state/tasks/a/shared/{NORM}"),  # film, hard on own inputs
        ("state/tasks/a/tasks/a/experts/norm", "state/tasks/a/experts/norm"),  # cgc on own inputs
        ("state/tasks/a/tasks/a/carry/norm", "state/tasks/a/shared/carry/norm"),  # mtan on own inputs
        ("state/shared/units/stage_0/batch_stats/mean", "state/shared/units/stage_0/finish/batch_stats/mean"),  # nddr
    ],
)
def test_statistics_that_moved(tmp_path, before, now):
    x = np.arange(3, dtype=np.float32)
    (found,) = restored(tmp_path, {before: x}, {now: (3,)}, ("a",))
    np.testing.assert_array_equal(found, x)


@pytest.mark.parametrize("members", [None, 2])
def test_what_lies_stacked_now(tmp_path, members):
    """PLE's experts and gates, with several members in front; the tasks' order is not that of their names."""
    lead, tasks, draw = () if members is None else (members,), ("b", "a"), np.random.default_rng(0)
    places = {
        "params/shared/layer_0/experts_of/{}/stage_0/kernel": "params/shared/layer_0/experts_of/stage_0/kernel",
        "params/shared/layer_0/gate/of_{}/bias": "params/shared/layer_0/gate/of/bias",
    }
    old = {p.format(t): draw.normal(size=(*lead, 2, 3)).astype(np.float32) for p in places for t in tasks}
    found = restored(tmp_path, old, dict.fromkeys(places.values(), (*lead, 2, 2, 3)), tasks, len(lead))
    for before, x in zip(places, found, strict=True):
        np.testing.assert_array_equal(x, np.stack([old[before.format(t)] for t in tasks], len(lead)))


def test_what_is_not_there_at_all_is_said(tmp_path):
    with pytest.raises(ValueError, match="missing state/tasks/a/shared/encoder"):
        list(
            restored(
                tmp_path, {"state/tasks/b/x": np.ones(3, np.float32)}, {f"state/tasks/a/shared/{NORM}": (3,)}, "ab"
            )
        )

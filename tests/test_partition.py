"""Paths, owners and ordered rules."""

import numpy as np
import pytest

from mtl_jax import partition

PARAMS = {
    "shared": {"encoder": {"stage_0": {"kernel": np.zeros((2, 3))}}},
    "tasks": {"a": {"head": {"bias": np.zeros(1), "kernel": np.zeros((3, 1))}}},
}


def test_paths_and_owners():
    flat = partition.flatten(PARAMS)
    assert list(flat) == ["shared/encoder/stage_0/kernel", "tasks/a/head/bias", "tasks/a/head/kernel"]
    assert [partition.owner(p) for p in flat] == ["shared", "a", "a"]
    back = partition.unflatten({"tasks/a/head/bias": np.ones(1)}, PARAMS)
    assert back["tasks"]["a"]["head"]["bias"] == 1 and back["shared"] == PARAMS["shared"]


def test_the_first_rule_that_matches_the_whole_path_wins():
    found = partition.label(PARAMS, [(".*/bias", "no decay"), ("tasks/.*", "head"), (".*", "trunk")], None)
    assert found["tasks"]["a"]["head"] == {"bias": "no decay", "kernel": "head"}
    assert found["shared"]["encoder"]["stage_0"]["kernel"] == "trunk"
    with pytest.raises(ValueError, match="rule 'kernel' matches no parameter; paths are shared/encoder/stage_0/kernel"):
        partition.label(PARAMS, [("kernel", 1)], 0)
    with pytest.raises(ValueError, match=r"rule '\(' is not a regular expression"):
        partition.label(PARAMS, [("(", 1)], 0)


def test_freezing():
    assert partition.trainable_paths(PARAMS, None) == set(partition.flatten(PARAMS))
    assert partition.trainable_paths(PARAMS, "shared/.*") == {"tasks/a/head/bias", "tasks/a/head/kernel"}
    assert partition.trainable_paths(PARAMS, [(".*/bias", True), "tasks/.*"]) == {
        "shared/encoder/stage_0/kernel", "tasks/a/head/bias"
    }  # fmt: skip


def test_the_table_of_parameters():
    rows = partition.rows(PARAMS, frozenset({"tasks/a/head/bias"}))
    assert rows[0] == ("shared/encoder/stage_0/kernel", (2, 3), 6, "shared", False)
    assert [r[4] for r in rows] == [False, True, False]

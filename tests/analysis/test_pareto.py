"""The front: exact hypervolumes and dominance by hand, and that preferences move the models along it."""

import dataclasses
import json

import numpy as np
import pytest

import mtl_jax as mtl
from mtl_jax import parallel
from mtl_jax.analysis import pareto
from mtl_jax.training.run import Run
from tests import tiny


def test_dominance_and_hypervolume_by_hand():
    points = np.array([[0.2, 0.8], [0.5, 0.5], [0.8, 0.2], [0.6, 0.6], [1.5, 0.1]])
    np.testing.assert_array_equal(pareto.is_on_front(points), [True, True, True, False, True])
    # The union of three rectangles up to (1, 1); the last point is worse than the reference.
    assert pareto.hypervolume(points, np.ones(2)) == pytest.approx(0.8 * 0.2 + 0.5 * 0.3 + 0.2 * 0.3)
    assert pareto.hypervolume(points + 2, np.ones(2)) == 0


def test_a_model_that_came_to_nan_is_not_on_the_front():
    points = np.array([[0.2, 0.8], [np.nan, 0.1], [0.1, 0.9]])
    np.testing.assert_array_equal(pareto.is_on_front(points), [True, True, True])
    points[1, 1] = 0.8
    np.testing.assert_array_equal(pareto.is_on_front(points), [True, False, True])


def test_hypervolume_in_three_and_four_dimensions_by_sampling():
    draw = np.random.default_rng(0)
    for count in (3, 4):
        points, samples = draw.random((6, count)), draw.random((200_000, count))
        share = (samples[:, None] >= points[None]).all(-1).any(1).mean()
        # A share of 2e5 draws has a standard deviation below 0.0012.
        assert pareto.hypervolume(points, np.ones(count)) == pytest.approx(share, abs=0.005)


def test_preferences_lie_on_the_simplex_and_reach_its_corners():
    for count in (2, 3, 5):
        grid = pareto.spread_preferences(count, 6)
        assert grid.shape == (6, count) and (grid > 0).all()
        np.testing.assert_allclose(grid.sum(1), 1)
    np.testing.assert_allclose(pareto.spread_preferences(2, 3)[:, 0], [1 / 1.01, 0.5, 0.01 / 1.01])


def test_a_front_of_a_small_model(tmp_path):
    data = tiny.data().select(("color", "price"))
    model = tiny.model(data.tasks)
    options = {"num_steps": 60, "batch_size": 16, "optimizer": "adam(0.02)", "mesh": parallel.make_mesh(1)}
    front = mtl.pareto_front(model, data, "fixed", 5, seeds=(0, 1), split="val", **options)
    assert front.losses.shape == (5, 2) and front.run.members == 10
    assert front.losses[0, 0] < front.losses[-1, 0] and front.losses[0, 1] > front.losses[-1, 1]
    # Each member is what `fit` makes of its preference alone.
    alone = mtl.fit(model, data, balancer="fixed((0.75, 0.25))", seed=(0, 1), **options)
    tiny.assert_close(front.run.member(3).state.params, alone.member(1).state.params, rtol=1e-3, atol=1e-5)
    lines = front.table().splitlines()
    assert lines[7].startswith("hypervolume") and ("!" in front.table()) == bool((front.losses > 1).any())
    front.plot(tmp_path / "front.png")
    assert (tmp_path / "front.png").read_bytes()[:4] == b"\x89PNG"


def test_a_task_that_tells_nothing_is_left_out():
    data = tiny.data()
    test = data.test._replace(masks={**data.test.masks, "sold": np.zeros(24, bool)})
    data = dataclasses.replace(data, test=test)
    front = mtl.pareto_front(tiny.model(data.tasks), data, "fixed", 2, num_steps=4, batch_size=16,
                             mesh=parallel.make_mesh(1))  # fmt: skip
    told = front.losses[:, :2]
    assert front.left_out == {"sold": "no labels in test"} and np.isfinite(told).all()
    assert front.hypervolume == pytest.approx(pareto.hypervolume(told, np.ones(2)))
    assert front.table().splitlines()[-1] == "left out: sold (no labels in test)"
    json.dumps(front.content(), allow_nan=False)
    test = test._replace(masks={**test.masks, "price": np.zeros(24, bool)})
    with pytest.raises(ValueError, match="at least two tasks that test can tell .*sold: no labels in test"):
        mtl.pareto_front(tiny.model(data.tasks), dataclasses.replace(data, test=test), "fixed", 2)


def test_errors():
    data = tiny.data()
    with pytest.raises(ValueError, match="balancer 'pcgrad' takes no preference; these do: fixed, stch"):
        mtl.pareto_front(tiny.model(data.tasks), data, "pcgrad")
    with pytest.raises(ValueError, match="preference is what the front varies, so leave it out"):
        mtl.pareto_front(tiny.model(data.tasks), data, "stch(preference=(1.0, 1.0, 1.0))")
    with pytest.raises(ValueError, match=r"preferences have shape \(2, 2\); it takes \(points, 3\)"):
        mtl.pareto_front(tiny.model(data.tasks), data, "stch", np.ones((2, 2)))
    with pytest.raises(ValueError, match="a front needs at least two tasks"):
        mtl.pareto_front(tiny.model(data.tasks[:1]), data)


def test_preferences_that_all_gave_the_same_model_are_told():
    data = tiny.data().select(("color", "price"))
    options = {"num_steps": 4, "batch_size": 16, "mesh": parallel.make_mesh(1)}
    with pytest.warns(UserWarning, match=r"'stch\(warmup=4\)': all preferences gave the same model.*warmup"):
        front = mtl.pareto_front(tiny.model(data.tasks), data, "stch(warmup=4)", 3, **options)
    assert (front.losses == front.losses[0]).all()


def test_a_front_of_many_tasks_in_short():
    """A row per preference with mean, quartiles and the worst; a volume of so many axes would take hours."""
    names, model = tuple(f"t{i}" for i in range(25)), tiny.model(tiny.data().tasks)
    run = Run(model, model.tasks, {}, [], tiny.batch())
    preferences = np.full((2, 25), 0.01)
    preferences[0, 3] = preferences[1, 7] = 0.76
    losses = np.stack([np.linspace(0.1, 0.9, 25), np.linspace(0.2, 1.2, 25)])
    losses[:, 4] = np.nan
    front = pareto.Front(names, "fixed", preferences, losses, pareto.is_on_front(losses), float("nan"), run,
                         {"t4": "no labels in test"})  # fmt: skip
    header, _, first, second, volume, worse, left = front.table().splitlines()
    assert header.split() == [
        "preferred",
        "mean",
        "loss",
        "min",
        "25%",
        "50%",
        "75%",
        "max",
        "worst",
        "on",
        "the",
        "front",
    ]
    assert first.split()[0] == "t3" and second.split()[0] == "t7" and "t24 0.9000, t23 0.8667" in first
    assert f"{np.nanmean(losses[0]):.4f}" in first and volume.endswith("no hypervolume, which takes 12 tasks at most")
    assert worse.startswith("!") and left == "left out: t4 (no labels in test)"
    with pytest.raises(ValueError, match="25 tasks are too many pairs for a figure of a front"):
        front.plot("front.png")

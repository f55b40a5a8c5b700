"""Every kind of task from labels to predictions, on tiny models; what constants score; and what a task may not be."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

import mtl_jax as mtl
from mtl_jax import tasks
from mtl_jax.encoders.base import Encoder, values_of, with_values
from mtl_jax.training.constants import baseline_losses
from tests import tiny

ROWS, STEPS, SIDE = 80, 6, 4
LEVELS = (0.1, 0.5, 0.9)


class Position(nn.Module):
    """A dense layer at every position of a sequence or an image."""

    width: int

    @nn.compact
    def __call__(self, x: Array | dict[str, Array], *, train: bool) -> Array | dict[str, Array]:
        return with_values(x, nn.tanh(nn.Dense(self.width, name="dense")(values_of(x))))


ENCODER = Encoder((Position(12),))


def sequence_data():
    """Tags, a ranking of the steps, and tasks on whole sequences, with padding and missing labels that hold nan."""
    draw = np.random.default_rng(0)
    x = draw.normal(size=(ROWS, STEPS, 4)).astype(np.float32)
    there = np.arange(STEPS) < draw.integers(2, STEPS + 1, size=ROWS)[:, None]
    mean = np.where(there[..., None], x, 0).sum(1) / there.sum(1, keepdims=True)
    corner = mean[:, :2] * 9 + 50
    grades = np.clip(np.round(x[..., 2] + 1), 0, 3)
    labels = {
        "tags": np.array(["O", "B-a", "I-a"])[x[..., :3].argmax(-1)],
        "items": np.where(there & (draw.random(there.shape) < 0.9), grades, np.nan),
        "box": np.concatenate([corner, corner + 5 + np.abs(mean[:, 2:])], 1),
        "spread": 100 + 20 * mean[:, 0] + draw.normal(size=ROWS),
    }
    labels["box"][::7, 2] = np.nan  # one corner is missing: the box is
    labels["spread"][::5] = np.nan
    kinds = {
        "tags": "tagging", "items": "ranking", "box": mtl.Task("box", "box", loss="box(giou=0.2)"),
        "spread": mtl.Task("spread", "quantile", quantiles=LEVELS),
    }  # fmt: skip
    masks = {"tags": there & (draw.random(there.shape) < 0.9)}
    return mtl.data.from_arrays({"values": x, "mask": there}, labels, masks=masks, kinds=kinds, val=0.2, test=0.2)


def image_data():
    """Classes, depth and normals of pixels, with missing ones."""
    draw = np.random.default_rng(1)
    x = draw.normal(size=(ROWS, SIDE, SIDE + 1, 4)).astype(np.float32)
    labels = {
        "ground": x[..., :3].argmax(-1),
        "far": 5 + np.abs(x[..., 0]) * 3,
        "facing": np.stack([x[..., 1], x[..., 2], np.full(x.shape[:3], 0.5)], -1),
    }
    labels["far"][draw.random(x.shape[:3]) < 0.2] = np.nan
    labels["facing"][draw.random(x.shape[:3]) < 0.2] = np.nan
    masks = {"ground": draw.random(x.shape[:3]) < 0.8}
    kinds = {"ground": "segmentation", "far": "depth", "facing": "normals"}
    return mtl.data.from_arrays(x, labels, masks=masks, kinds=kinds, val=0.2, test=0.2)


PREDICTED = {
    "tags": (STEPS, 3), "items": (STEPS,), "box": (4,), "spread": (3,), "ground": (SIDE, SIDE + 1, 3),
    "far": (SIDE, SIDE + 1), "facing": (SIDE, SIDE + 1, 3),
}  # fmt: skip


@pytest.mark.parametrize("made", [sequence_data, image_data])
def test_every_kind_learns_evaluates_predicts_saves_and_loads(made, tmp_path):
    """Source: losses fall far below the best constant's; predictions are in the units and ranges of the table."""
    data = made()
    model = mtl.sharing.hard(ENCODER, data.tasks)
    run = tiny.fit(model, data, num_steps=200, steps_per_dispatch=50, eval_every=100, log_every=50, batch_size=24,
                   optimizer="adam(learning_rate=0.03)")  # fmt: skip
    found = mtl.evaluate(run, data.test)
    constant = dict(zip((t.name for t in data.tasks), baseline_losses(data.tasks, data.train), strict=True))
    predicted = run.predict(data.test.inputs)
    for task in data.tasks:
        metrics = found[task.name]
        assert metrics["loss"] < 0.75 * constant[task.name], (task.name, metrics, constant)
        assert all(np.isfinite(v) for v in metrics.values())
        assert set(metrics) == {"loss", *(m.name for m in tasks.metric_functions(task))}
        assert predicted[task.name].shape == (16, *PREDICTED[task.name])
    if made is sequence_data:
        np.testing.assert_allclose(predicted["tags"].sum(-1), 1, rtol=1e-5)
        assert found["tags"]["span_f1"] > 0.7
        assert tasks.metric_functions(data.tasks[0])[0].name == "span_f1"
        assert found["items"]["ndcg_10"] > 0.85 and found["box"]["box_iou"] > 0.5
        assert (np.diff(predicted["spread"]) >= 0).all() and 60 < predicted["spread"].mean() < 140
        assert 0.4 < found["spread"]["coverage"] <= 1
    else:
        np.testing.assert_allclose(np.linalg.norm(predicted["facing"], axis=-1), 1, rtol=1e-5)
        assert 5 < predicted["far"].mean() < 10 and found["ground"]["mean_iou"] > 0.6
        assert found["facing"]["mean_angle"] < 25 and found["facing"]["angle_within_30"] > 0.6
    run.save(tmp_path / "run")
    again = mtl.load_run(tmp_path / "run", model)
    assert again.tasks == run.tasks
    assert mtl.evaluate(again, data.test) == found


def split_of(data, task):
    return np.asarray(data.train.targets[task]), np.asarray(data.train.masks[task])


def test_scalers():
    """Source: NumPy; of depth over all labelled pixels, of boxes over both x and both y, which keeps overlaps."""
    data = image_data()
    target, mask = split_of(data, "far")
    scaler = data.tasks[1].scaler
    np.testing.assert_allclose((scaler.mean[0], scaler.std[0]), (target[mask].mean(), target[mask].std()), rtol=1e-5)
    data = sequence_data()
    target, mask = split_of(data, "box")
    assert mask.shape == (48,) and not mask.all()  # a box is missing as a whole
    scaler = data.tasks[2].scaler
    x = target[mask][:, [0, 2]]
    np.testing.assert_allclose((scaler.mean[0], scaler.std[2]), (x.mean(), x.std()), rtol=1e-5)
    assert scaler.mean[:2] == scaler.mean[2:] and scaler.std[:2] == scaler.std[2:]
    assert data.tasks[0].scaler is None and len(data.tasks[3].scaler.mean) == 1


def test_baseline_is_the_loss_of_the_best_constant():
    """Source: closed forms in float64, and for quantiles and normals that no other constant is better."""
    data = image_data()
    by_name = dict(zip(("ground", "far", "facing"), baseline_losses(data.tasks, data.train), strict=True))
    target, mask = split_of(data, "ground")
    share = np.bincount(target[mask]) / mask.sum()
    np.testing.assert_allclose(by_name["ground"], -(share * np.log(share)).sum(), rtol=1e-5)
    target, mask = split_of(data, "far")
    expected = np.abs(target[mask] - np.median(target[mask])).mean() / data.tasks[1].scaler.std[0]
    np.testing.assert_allclose(by_name["far"], expected, rtol=1e-5)
    target, mask = split_of(data, "facing")
    unit = target[mask] / np.linalg.norm(target[mask], axis=-1, keepdims=True)
    np.testing.assert_allclose(by_name["facing"], 1 - np.linalg.norm(unit.mean(0)), rtol=1e-2)
    data = sequence_data()
    _, items, _, spread = baseline_losses(data.tasks, data.train)
    grades, mask = split_of(data, "items")
    counted = ((grades > 0) & mask).any(-1)
    np.testing.assert_allclose(items, np.log(mask[counted].sum(-1)).mean(), rtol=1e-5)
    target, mask = split_of(data, "spread")
    target = target[mask]

    def pinball(levels):
        errors = target[:, None] - levels
        return (
            np.maximum(np.array(LEVELS) * errors, (np.array(LEVELS) - 1) * errors).mean() / data.tasks[3].scaler.std[0]
        )

    np.testing.assert_allclose(spread, pinball(np.quantile(target, LEVELS)), rtol=1e-5)
    assert all(spread < pinball(np.quantile(target, LEVELS) + step) for step in (-3, 3))


@pytest.mark.parametrize("made", [sequence_data, image_data])
def test_what_a_missing_label_holds_has_no_effect(made):
    """Source: equality to the bit of loss, count and gradient, with nan or wild classes in place of the zeros."""
    data = made()
    draw = np.random.default_rng(3)
    for task in data.tasks:
        target, mask = split_of(data, task.name)
        levels = (3,) if task.kind in ("tagging", "segmentation", "quantile") else ()
        outputs = jnp.asarray(draw.normal(size=(*target.shape, *levels)), jnp.float32)
        wild = target.copy()
        wild[~mask] = 10**6 if target.dtype == np.int32 else np.nan

        def value(outputs, target, task=task, mask=mask):
            return tasks.loss_sum(task, outputs, target, jnp.asarray(mask))

        both = jax.jit(jax.vmap(jax.value_and_grad(value, has_aux=True), (None, 0)))(outputs, np.stack([target, wild]))
        for leaf in jax.tree.leaves(both):
            assert np.isfinite(leaf).all()
            np.testing.assert_array_equal(leaf[0], leaf[1])
        gradient = np.asarray(both[1][0])
        missing = ~mask.reshape(mask.shape + (1,) * (gradient.ndim - mask.ndim)) & np.ones(gradient.shape, bool)
        assert not gradient[missing].any() and gradient.any()


def test_kinds_are_read_off_labels_only_where_they_say_so():
    x = np.zeros((4, 2))
    words = np.array([["a", "b"], ["b", ""]] * 2)
    tags = mtl.data.from_arrays(x, {"t": words}, val=0, test=0)
    assert (tags.tasks[0].kind, tags.tasks[0].classes) == ("tagging", ("a", "b"))
    assert tags.train.targets["t"].tolist() == [[0, 1], [1, 0]] * 2
    assert tags.train.masks["t"].tolist() == [[True, True], [True, False]] * 2
    with pytest.raises(ValueError, match=r"labels of shape \(4, 2, 2\) do not say .*'t': one of segmentation, depth}"):
        mtl.data.from_arrays(x, {"t": np.zeros((4, 2, 2))}, val=0, test=0)
    flags = mtl.data.from_arrays({"values": x, "mask": x > 0, "flag": x > 0}, {"t": np.arange(4)}, val=0, test=0)
    assert {k: str(v.dtype) for k, v in flags.train.inputs.items()} == {
        "values": "float32", "mask": "bool", "flag": "float32",
    }  # fmt: skip


def test_labels_that_are_none_of_their_kind():
    x = np.zeros((2, 1))
    box, normal = [[0, 0, 1, 1], [3, 0, 2, 1]], np.ones((2, 1, 2, 3)) * [[[1], [0]]]
    for kind, labels, message in [
        ("box", box, r"label \[3.0, 0.0, 2.0, 1.0\] in row 1 of train is no box x0, y0, x1, y1"),
        ("normals", normal, r"label \[0.0, 0.0, 0.0\] in row 0, position \(0, 1\) of train is no direction"),
        ("ranking", [[0, 1], [-1, 0]], "label -1 in row 1, column 0 of train is below 0"),
        ("depth", np.array([[[1, np.inf]]] * 2), r"label inf in row 0, position \(0, 1\) of train is not finite"),
        ("tagging", [0, 1], r"targets of train have shape \(2,\); tagging of size 2 takes \(rows, tokens\)"),
        ("depth", [[0, 1]] * 2, r"have shape \(2, 2\); depth takes \(rows, high, wide\)"),
        ("box", np.zeros((2, 3)), r"have shape \(2, 3\); box of size 4 takes \(rows, 4\)"),
        ("segmentation", [[[0.5]]] * 2, "label 0.5 in row 0 of train is float64; segmentation takes integers"),
    ]:
        with pytest.raises(ValueError, match=message):
            mtl.data.from_arrays(x, {"t": np.array(labels)}, kinds={"t": kind}, val=0, test=0)
    data = mtl.data.from_arrays(x, {"t": np.array(box[:1] * 2)}, kinds={"t": "box"}, val=0, test=0)
    loose = data.train._replace(masks={"t": np.ones((2, 4), bool)})
    with pytest.raises(ValueError, match="a box label is there as a whole or not at all"):
        mtl.data.dataset.check_dataset(dataclasses.replace(data, train=loose))


def test_what_a_task_may_not_be():
    for arguments, message in [
        ({"kind": "tagging"}, "kind 'tagging' needs size"),
        ({"kind": "depth", "size": 2}, "kind 'depth' has no size, not 2; leave it out"),
        ({"kind": "normals", "size": 2}, "kind 'normals' has the size 3, not 2"),
        ({"kind": "quantile"}, r"quantiles=\(\) must be ascending levels in \(0, 1\)"),
        ({"kind": "quantile", "quantiles": (0.9, 0.1)}, "must be ascending levels"),
        ({"kind": "regression", "quantiles": (0.5,)}, "kind 'regression' has no quantiles; use kind 'quantile'"),
        ({"kind": "tokens"}, "unknown kind of task 't': 'tokens'"),
    ]:
        with pytest.raises(ValueError, match=message):
            mtl.Task("t", **arguments)
    assert mtl.Task("t", "quantile", quantiles=(0.5,)).size == 1 and mtl.Task("t", "box").size == 4
    assert mtl.Task("t", "tagging", classes=("O", "B-x")).size == 2
    with pytest.raises(ValueError, match="span_f1 needs class names"):
        tasks.metric_functions(mtl.Task("t", "tagging", 3, metrics=("span_f1",)))
    with pytest.raises(ValueError, match="unknown loss of task 't': 'pinbal'; did you mean 'pinball'"):
        tasks.loss_function(mtl.Task("t", "quantile", quantiles=(0.5,), loss="pinbal"))
    with pytest.raises(ValueError, match="unknown argument of loss of task 't': 'pinball' 'quantiles'"):
        tasks.loss_function(mtl.Task("t", "quantile", quantiles=(0.5,), loss="pinball(quantiles=(0.1,))"))

"""A kind of task is one entry of a table: from labels to predictions, nothing else asks which kind it is."""

import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mtl_jax as mtl
from mtl_jax import tasks
from mtl_jax.kinds import KINDS, Kind
from mtl_jax.predictions import prediction
from mtl_jax.training.constants import baseline_losses
from tests import tiny
from tests.test_tasks import ENCODER

ROOT = pathlib.Path(mtl.__file__).parent


def counts_in_tens(target):
    return target % 10 != 0, "no whole number of tens"


def mean_error(target):
    return np.abs(target - np.median(target)).mean() / target.std()


@pytest.fixture
def tens(monkeypatch):
    entry = Kind("mae", ("mae",), "token", "numbers", "optional", ("steps",), constant="quantile", scaled="all",
                 ordered=lambda y: jnp.maximum(y, 0), shown=lambda y: y.round(-1), wrong=counts_in_tens)  # fmt: skip
    monkeypatch.setitem(KINDS, "tens", entry)


def test_a_kind_is_one_entry(tens):
    draw = np.random.default_rng(0)
    x = draw.normal(size=(40, 5, 3)).astype(np.float32)
    labels = 10.0 * np.round(3 + x[..., 0])
    data = mtl.data.from_arrays(x, {"a": labels}, kinds={"a": "tens"}, val=0.25)
    (task,) = data.tasks
    np.testing.assert_allclose(task.scaler.mean, data.train.targets["a"].mean(), rtol=1e-5)
    model = mtl.sharing.hard(ENCODER, data.tasks)
    batch = jax.tree.map(jnp.asarray, data.val)
    variables = tiny.init(model, batch)
    features, *_ = model.encode(variables, batch, train=False)
    outputs = model.decode(variables, {"a": features}, train=False)[0]["a"]
    loss, count = tasks.loss_sum(task, outputs, batch.targets["a"], batch.masks["a"])
    assert int(count) == outputs.size and np.isfinite(loss)
    np.testing.assert_allclose(baseline_losses(data.tasks, data.train), mean_error(data.train.targets["a"]), rtol=1e-5)
    found = np.asarray(prediction(task, outputs * 30))
    assert found.shape == (10, 5) and (found >= 0).all() and (found % 10 == 0).all() and found.max() > 0
    below = prediction(task, jnp.full((1, 5), -100.0))  # ordered before it is shown
    assert float(below.max()) == 0.0
    with pytest.raises(ValueError, match=r"label 7 in row 0, column 0 of train is no whole number of tens"):
        mtl.data.from_arrays(x, {"a": np.where(labels == labels[0, 0], 7.0, labels)}, kinds={"a": "tens"})
    with pytest.raises(ValueError, match="unknown kind of task 'a'"):
        mtl.Task("a", "hundreds")


def test_no_name_of_a_kind_is_asked_for_elsewhere():
    """But where kinds are guessed from labels, and where an architecture is of binary tasks only."""
    allowed = {"kinds.py", "data/kinds.py", "sharing/funnel.py"}
    asked = re.compile(r"\b(task|t|old)\.kind (==|!=|in|not in) [\"'(]")
    texts = {str(p.relative_to(ROOT)): p.read_text().replace("dtype.kind", "") for p in ROOT.rglob("*.py")}
    found = {name for name, text in texts.items() if asked.search(text)}
    assert found <= allowed

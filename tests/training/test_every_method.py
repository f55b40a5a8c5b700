"""Every balancing method, by its name, trains for a few steps, sees its losses fall, and resumes to the same bits."""

import pytest

from mtl_jax import balancing
from tests import tiny

NAMES = {n: n for n in balancing.NAMES}
NAMES |= {
    "krum": "krum(outliers=0, selected=2)",
    "fixed": "fixed((1.0, 1.0, 0.5))",
    "gradvac by leaf": "gradvac(groups='leaf')",
}


@pytest.mark.parametrize("name", NAMES)
def test_losses_fall_and_resuming_is_exact(name, tmp_path):
    model = tiny.model(tiny.data().tasks)
    options = {"balancer": NAMES[name], "optimizer": "adam(0.03)", "eval_every": 20, "log_every": 10}
    whole = tiny.fit(model, num_steps=60, **options)
    records = [r for r in whole.history if r["split"] == "train"]
    assert sum(records[-1]["losses"].values()) < 0.9 * sum(records[0]["losses"].values())
    tiny.fit(model, num_steps=20, workdir=tmp_path, **options)
    resumed = tiny.fit(model, num_steps=60, workdir=tmp_path, **options)
    assert resumed.resumed_from == 20
    tiny.assert_same(resumed.state, whole.state)

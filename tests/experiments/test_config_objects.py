"""A config may hold objects where it may name parts."""

import optax
import pytest

import mtl_jax as mtl
from experiments import assemble, reports
from experiments.configs import base
from mtl_jax.reporting import summary
from tests import tiny


def config(**changes):
    c = base.get_config()
    c.data, c.encoder, c.sharing = tiny.data(), mtl.encoders.mlp(features=(8,)), mtl.sharing.mmoe
    c.balancer, c.optimizer = mtl.balancing.upgrad(), optax.adam(1e-2)
    for field, value in changes.items():
        setattr(c, field, value)
    return assemble.resolve(c)


def test_parts_are_objects():
    found = config()
    data = assemble.data_of(found)
    assert data is tiny.data() and assemble.model_of(found, data).spec == "mmoe()"
    given = assemble.arguments_of_fit(found, None)
    assert given["optimizer"] is found["optimizer"] and given["balancer"].spec == "upgrad()"
    assert given["config"] == assemble.written(found)
    assert assemble.written(config(optimizer=optax.adam(1e-3))) != assemble.written(found)


def test_an_optimizer_that_is_an_object_fine_tunes():
    """Its rate is its own, and none is filled in; a closed form has no use for it."""
    full, ridge = mtl.transfer.methods.build("full"), mtl.transfer.methods.build("probe(solver='ridge')")
    c = config(optimizer=optax.sgd(0.1))
    c["learning_rate"] = None  # as `resolve` leaves it beside a method
    assert assemble.arguments_of_fine_tune(c, None, full)["optimizer"] is c["optimizer"]
    with pytest.raises(ValueError, match="config field 'learning_rate': the optimizer is an object"):
        assemble.arguments_of_fine_tune({**c, "learning_rate": 0.1}, None, full)
    with pytest.raises(ValueError, match="config field 'optimizer': probe.solver='ridge'. solves for the heads"):
        assemble.arguments_of_fine_tune(c, None, ridge)
    named = {**c, "optimizer": "adam"}
    assert assemble.arguments_of_fine_tune({**named, "seed": [3]}, "w", ridge) == {"seed": (3,), "workdir": "w"}
    assert assemble.arguments_of_fine_tune(named, None, full)["optimizer"] is None


@pytest.mark.parametrize("run_folder", [None, "run"])
def test_a_calibration_lies_beside_its_run(run_folder, tmp_path, monkeypatch):
    """Of a fine-tuned run, whose results lie a folder above it."""
    data, folders = tiny.data(), []
    run = mtl.Run(mtl.sharing.hard(mtl.encoders.mlp(features=(8,)), data.tasks), data.tasks, {}, [], data.train)
    monkeypatch.setattr(reports, "calibrate", lambda run, data, folder: folders.append(folder) or {})
    monkeypatch.setattr(summary, "summarize", lambda run, data: {"steps": 0, "seconds": 0.0})
    folder = None if run_folder is None else tmp_path / run_folder
    assert reports.report(run, data, tmp_path, config(num_steps=2), run_folder=folder) == 0
    assert folders == [folder or tmp_path] and (tmp_path / "summary.json").exists()


def test_what_an_object_has_is_not_named_besides():
    with pytest.raises(ValueError, match="config field 'learning_rate': the optimizer is an object"):
        assemble.arguments_of_fit(config(learning_rate=0.1), None)
    with pytest.raises(ValueError, match="config field 'dtype': the encoder is an object"):
        assemble.model_of(config(dtype="bfloat16"), tiny.data())
    with pytest.raises(TypeError, match="num_steps"):
        config(num_steps="many")

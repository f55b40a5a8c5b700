"""Options have one source: what `fit`, the trainer, configs and the command line know of them."""

import dataclasses
import inspect
import warnings

import pytest

import mtl_jax as mtl
from experiments import assemble
from experiments.configs import base
from mtl_jax.training import changes, options, records
from mtl_jax.training.plan import make
from tests import tiny


def test_fit_and_the_trainer_say_all_of_them():
    names = ["model", "data", "groups", *options.FIELDS]
    for of in (mtl.fit, mtl.training.Trainer):
        signature = inspect.signature(of)
        assert list(signature.parameters) == names
        assert signature.parameters["batch_size"].default == 128
        assert all(f"\n  {name}: " in inspect.getdoc(of) for name in options.FIELDS)
    assert "patience: stop after this many" in mtl.training.Selection.__doc__


def test_every_field_is_in_one_group_and_has_words():
    grouped = [f.name for group in options.GROUPS for f in dataclasses.fields(group)]
    assert sorted(grouped) == sorted(options.FIELDS) and len(grouped) == len(set(grouped))
    assert all(f.metadata["doc"].endswith(".") for f in options.FIELDS.values())


def test_groups_are_keywords():
    given = [mtl.training.Optimization(num_steps=7, l2=0.1), mtl.training.Balancing(balancer="upgrad")]
    found = options.read(given, {"l2": 0.5, "eval_every": 5})
    assert found == options.FitOptions(num_steps=7, l2=0.5, balancer="upgrad", eval_every=5)
    assert options.read([found], {}) == found
    with pytest.raises(ValueError, match="Optimization is given twice"):
        options.read([given[0], given[0]], {})
    with pytest.raises(ValueError, match="what comes after model and data is 3; it must be options, Optimization, Bal"):
        options.read([3], {})
    with pytest.raises(TypeError, match="num_step"):
        mtl.training.Optimization(num_step=3)
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.l2 = 0.0


def test_configs_have_every_option_that_can_be_written():
    config = base.get_config().to_dict()
    assert set(config) == {*options.IN_CONFIGS, *base.OWN}
    assert config["optimizer"] == "adam" and config["clip_norm"] is None and config["eval_every"] == 100
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        arguments = assemble.arguments_of_fit(assemble.resolve(base.get_config()), None)
    assert set(arguments) == {*options.IN_CONFIGS, "config", "workdir"}
    plan = make(tiny.model(tiny.data().tasks), tiny.data(), options.read([], {**arguments, "batch_size": 16}))
    assert plan.spans["steps_per_dispatch"] == 50


def test_what_may_differ_when_a_run_goes_on():
    assert {"num_steps", "log_every", "workdir", "writers"} <= set(records.FREE_TO_CHANGE)
    assert not set(options.CHANGEABLE) & {"seed", "mesh", "parallel", "num_steps", "workdir", "fallback"}
    one = options.FitOptions(freeze=["a", ["b", True]], balancer=mtl.balancing.upgrad())
    assert changes.differ(one, changes.replaced(one, {"freeze": ("a", ("b", True))})) == []
    assert changes.differ(one, options.FitOptions(l1=0.1)) == ["freeze", "l1", "balancer"]

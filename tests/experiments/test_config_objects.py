"""A config may hold objects where it may name parts."""

import optax
import pytest

import mtl_jax as mtl
from experiments import assemble
from experiments.configs import base
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


def test_what_an_object_has_is_not_named_besides():
    with pytest.raises(ValueError, match="config field 'learning_rate': the optimizer is an object"):
        assemble.arguments_of_fit(config(learning_rate=0.1), None)
    with pytest.raises(ValueError, match="config field 'dtype': the encoder is an object"):
        assemble.model_of(config(dtype="bfloat16"), tiny.data())
    with pytest.raises(TypeError, match="num_steps"):
        config(num_steps="many")

"""A method that a caller or a wrapper was given, by its text or as an object."""

from typing import Any

from mtl_jax import parts
from mtl_jax.balancing.base import Balancer


def given_method(what: str, given: Any) -> Balancer:
    """The method, built where it is given as text.

    Raises:
      ValueError: for anything else, naming `what` was given.
    """
    from mtl_jax import balancing

    if isinstance(given, str):
        return balancing.build(given)
    if not isinstance(given, Balancer):
        raise parts.no_such(what, given, 'a method such as mtl.balancing.upgrad(), or its text, "upgrad"')
    return given

"""How losses and gradients are combined. `NAMES` lists the methods; each is a function that returns a `Balancer`."""

from mtl_jax import parts
from mtl_jax.balancing.aggregate import aggregate
from mtl_jax.balancing.base import Balancer, Needs, Result, Signal
from mtl_jax.balancing.equal import equal
from mtl_jax.balancing.fixed import fixed
from mtl_jax.balancing.graddrop import graddrop
from mtl_jax.balancing.mgda import mgda
from mtl_jax.balancing.pcgrad import pcgrad
from mtl_jax.balancing.uncertainty import uncertainty
from mtl_jax.balancing.upgrad import upgrad

# A method is one file and one line here.
NAMES = {
    "equal": equal,
    "fixed": fixed,
    "uncertainty": uncertainty,
    "upgrad": upgrad,
    "mgda": mgda,
    "pcgrad": pcgrad,
    "graddrop": graddrop,
}


def build(text: str) -> Balancer:
    """The balancer that `text` names, such as ``"upgrad(regularization=0.001)"``."""
    return parts.build(text, NAMES, "balancer")


__all__ = ["NAMES", "Balancer", "Needs", "Result", "Signal", "aggregate", "build", *NAMES]

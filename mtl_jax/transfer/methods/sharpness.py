"""What goes around an optimizer: SAM, which looks for flat minima, and averages of parameters."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from mtl_jax import parts
from mtl_jax.transfer.methods import base
from mtl_jax.transfer.methods.base import Method

EVERYTHING = ((".*", True),)


class EmaState(NamedTuple):
    """Of `average`: the optimizer's own state, the average like the parameters, and how many steps were taken."""

    inner: Any
    average: Any
    count: Any


def average(optimizer: optax.GradientTransformation, decay: float) -> optax.GradientTransformation:
    """The optimizer, beside which an exponential moving average of the parameters is kept, to be evaluated at.

    Early steps average over fewer: the decay of step t is at most (1 + t) / (10 + t).
    """

    def init(params: Any) -> EmaState:
        return EmaState(optimizer.init(params), jax.tree.map(jnp.copy, params), jnp.zeros((), jnp.int32))

    def update(updates: Any, state: EmaState, params: Any = None) -> tuple[Any, EmaState]:
        updates, inner = optimizer.update(updates, state.inner, params)
        t = state.count.astype(jnp.float32)
        keep = jnp.minimum(decay, (1 + t) / (10 + t))
        moved = optax.apply_updates(params, updates)
        mean = jax.tree.map(lambda a, p: (keep * a + (1 - keep) * p).astype(a.dtype), state.average, moved)
        return updates, EmaState(inner, mean, state.count + 1)

    return optax.GradientTransformation(init, update)


@parts.recorded()
def ema(decay: float = 0.999) -> Method:
    """Full fine-tuning that is evaluated, chosen and kept at the moving average of the parameters.

    Source: Polyak and Juditsky, SIAM J. Control Optim. 1992; the warm-up is TensorFlow's.

    Args:
      decay: of the average, in [0, 1).
    """
    base.check_between("ema: decay", decay, 0, 0.999999)
    return Method(3e-4, EVERYTHING, wraps=lambda optimizer: average(optimizer, decay))


@parts.recorded()
def sam(rho: float = 0.05) -> Method:
    """Full fine-tuning that goes down where the loss nearby is highest: every second step is the look around.

    The look around is taken at a batch of its own, and for the trunk and every task's part apart, each `rho` far; what
    is evaluated and kept are the parameters between looks.

    Source: Foret et al., "Sharpness-aware minimization", ICLR 2021, arXiv:2010.01412; `optax.contrib.sam`.

    Args:
      rho: how far the look goes.
    """
    base.check_between("sam: rho", rho, 0, float("inf"), open_low=True)

    def wraps(optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
        look = optax.chain(optax.contrib.normalize(), optax.sgd(rho))
        return optax.contrib.sam(optimizer, look, sync_period=2)

    return Method(3e-4, EVERYTHING, wraps=wraps)

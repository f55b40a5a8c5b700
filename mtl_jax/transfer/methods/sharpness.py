"""What goes around an optimizer: SAM, which looks for flat minima, and averages of parameters."""

import optax

from mtl_jax import parts
from mtl_jax.training.averages import averaged
from mtl_jax.transfer.methods import base
from mtl_jax.transfer.methods.base import EVERYTHING, Method


@parts.recorded()
def ema(decay: float = 0.999) -> Method:
    """Full fine-tuning that is evaluated, chosen and kept at the moving average of the parameters.

    Source: Polyak and Juditsky, SIAM J. Control Optim. 1992; the warm-up is TensorFlow's.

    Args:
      decay: of the average, in [0, 1).
    """
    base.check_between("ema: decay", decay, 0, 0.999999)
    return Method(3e-4, EVERYTHING, wraps=lambda optimizer: averaged(optimizer, decay))


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

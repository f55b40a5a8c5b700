"""CAGrad on log losses, a usual baseline beside FAMO (Liu et al., NeurIPS 2023, arXiv:2306.03792)."""

from mtl_jax import parts
from mtl_jax.balancing.arguments import check
from mtl_jax.balancing.base import Balancer
from mtl_jax.balancing.cagrad import cagrad
from mtl_jax.balancing.log_losses import of_log_losses


@parts.recorded(
    paper="CAGrad, Liu et al., NeurIPS 2021, arXiv:2110.14048; on log losses as in the code of FAMO, arXiv:2306.03792",
    when="as cagrad, where losses have different units",
)
def log_cagrad(c: float = 0.5, rescale: str = "none") -> Balancer:
    """CAGrad's direction of the log losses' gradients, grad L_t / L_t; heads follow log losses too.

    A loss under 1e-8 counts as that much; below 0 weights are nan.

    Args:
      c: radius, in units of the mean gradient's length.
      rescale: what the direction is divided by: "none", "squared" (1 + c^2, as the authors' code) or "linear" (1 + c).
    """
    check("log_cagrad", "at least 0", c=c)
    return of_log_losses(cagrad(c, rescale))

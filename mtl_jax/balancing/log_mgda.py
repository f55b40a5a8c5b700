"""MGDA on log losses, a usual baseline beside FAMO (Liu et al., NeurIPS 2023, arXiv:2306.03792)."""

from mtl_jax import parts
from mtl_jax.balancing.base import Balancer
from mtl_jax.balancing.log_losses import of_log_losses
from mtl_jax.balancing.mgda import mgda


@parts.recorded(
    paper="MGDA, Sener and Koltun 2018, arXiv:1810.04650; on log losses as in the code of FAMO, arXiv:2306.03792",
    when="as mgda, where losses have different units",
)
def log_mgda() -> Balancer:
    """The shortest vector in the convex hull of the log losses' gradients, grad L_t / L_t; heads follow log losses too.

    A loss under 1e-8 counts as that much; below 0 weights are nan. The code of FAMO divides the direction by
    sum_t w_t / L_t besides, w the weights on the simplex; here it is the hull's point itself.
    """
    return of_log_losses(mgda())

"""IMTL-G on log losses, a usual baseline beside FAMO (Liu et al., NeurIPS 2023, arXiv:2306.03792)."""

from mtl_jax import parts
from mtl_jax.balancing.base import Balancer
from mtl_jax.balancing.imtl import imtl_g
from mtl_jax.balancing.log_losses import of_log_losses


@parts.recorded(
    paper="IMTL-G, Liu et al., ICLR 2021; on log losses as in the code of FAMO, arXiv:2306.03792",
    when="as imtl_g, where losses have different units",
)
def log_imtl_g() -> Balancer:
    """IMTL-G on the log losses' gradients, grad L_t / L_t: equal projections on all; heads follow log losses too.

    A projection on a gradient does not depend on its length, so the trunk's direction has that of `imtl_g`, and another
    length: the weights of the divided gradients sum to 1. A loss under 1e-8 counts as that much; below 0 weights are
    nan.
    """
    return of_log_losses(imtl_g())

"""The sum of log losses, the scale-invariant baseline (SI) of Navon et al., ICML 2022, arXiv:2202.01017."""

from mtl_jax import parts
from mtl_jax.balancing.base import Balancer, Needs, Result, stateless
from mtl_jax.balancing.log_losses import slopes


@parts.recorded(
    paper="SI of Navon et al., ICML 2022, arXiv:2202.01017",
    when="losses of different units, at no cost; the baseline of methods on log losses",
)
def scale_invariant() -> Balancer:
    """Minimises sum_t log L_t, trunk and heads: its gradient by L_t is 1 / L_t.

    A loss under 1e-8 counts as that much; below 0 weights are nan.
    """

    def update(signal, state, *, mask, key):
        weights = slopes(signal.losses, mask)
        return Result(weights, head_weights=weights), state

    return Balancer(stateless, update, Needs.LOSSES, positive=True)

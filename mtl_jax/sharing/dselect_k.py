"""DSelect-k: a sparse gate that is smooth in its parameters (Hazimeh et al., NeurIPS 2021, arXiv:2106.03760)."""

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mtl_jax.encoders.base import Encoder
from mtl_jax.keys import named_key
from mtl_jax.model import MultiTaskModel
from mtl_jax.sharing.architecture import architecture
from mtl_jax.sharing.expert_layers import extraction
from mtl_jax.sharing.gates import Gate
from mtl_jax.tasks import Task

TINY = 1e-6  # keeps log(0) and 1 / 0 away; selectors reach exact zeros


def smooth_step(x: Float[Array, "..."], gamma: float) -> Float[Array, "..."]:
    """0 up to -gamma / 2, 1 from gamma / 2 on, and a cubic with a continuous slope between."""
    inside = jnp.clip(x, -gamma / 2, gamma / 2)
    return -2 / gamma**3 * inside**3 + 3 / (2 * gamma) * inside + 0.5


def selection(bits: Float[Array, "... bit"], experts: int) -> Float[Array, "... expert"]:
    """Weights of the experts by relaxed binary numbers: prod_j b_j or 1 - b_j, by the bits of e, lowest
    first. They sum to 1 over all numbers of so many bits, of which only the first `experts` are experts.
    """
    set_in = (np.arange(experts)[:, None] >> np.arange(bits.shape[-1])) & 1
    factors = jnp.where(set_in.astype(bool), bits[..., None, :], 1 - bits[..., None, :])
    return factors.prod(-1)


def selector_gate(reads: str, selectors: int, gamma: float, entropy: float, unreached: float) -> Gate:
    """sum_k softmax(alpha)_k r(z_k), with alpha and the codes z linear in what the gate reads."""

    def modules(groups: Mapping[str, int]) -> tuple[nn.Dense, nn.Dense, int, int]:
        (experts,) = groups.values()
        bits = (experts - 1).bit_length()
        bias = reads != "static"

        def near_zero(key: Array, shape: Any, dtype: Any = jnp.float32) -> Array:
            return jax.random.uniform(key, shape, dtype, -gamma / 100, gamma / 100)

        codes = nn.Dense(selectors * bits, use_bias=bias, kernel_init=near_zero, bias_init=near_zero)
        return nn.Dense(selectors, use_bias=bias), codes, experts, bits

    def start(key: Array, x: Float[Array, "batch width"], groups: Mapping[str, int]) -> dict[str, Any]:
        mixture, codes, *_ = modules(groups)
        return {
            "mixture": mixture.init(named_key(key, "mixture"), x)["params"],
            "codes": codes.init(named_key(key, "codes"), x)["params"],
        }

    def apply(
        params: Any, x: Float[Array, "batch width"], groups: Mapping[str, int]
    ) -> tuple[Float[Array, "batch expert"], dict[str, Array]]:
        mixture, codes, experts, bits = modules(groups)
        logits: Any = mixture.apply({"params": params["mixture"]}, x)
        alpha = jax.nn.softmax(logits, -1)
        z: Any = codes.apply({"params": params["codes"]}, x)
        chosen = selection(smooth_step(z.reshape(-1, selectors, bits), gamma), experts)
        losses = {}
        if entropy:
            spread = -(chosen * jnp.log(chosen + TINY)).sum((1, 2)).mean()
            losses["selector_entropy"] = entropy * spread
        if unreached and experts != 2**bits:
            losses["selector_reach"] = unreached * (1 / (chosen.sum(-1) + TINY)).sum(-1).mean()
        return jnp.einsum("bk,bke->be", alpha, chosen), losses

    return Gate(start, apply)


@architecture(
    paper="Hazimeh et al., NeurIPS 2021, arXiv:2106.03760",
    when="many experts, of which each task should use few",
)
def dselect_k(
    encoder: Encoder,
    tasks: Sequence[Task],
    experts: int = 4,
    selectors: int = 2,
    gate: str = "input",
    gamma: float = 1.0,
    entropy: float = 1e-2,
    unreached: float = 1e-1,
) -> MultiTaskModel:
    """MMoE whose gates end up with at most `selectors` experts per task, each picked by a relaxed binary code.

    Experts are under ``shared/experts``, gates under ``tasks/<t>/gate``. The auxiliary losses are means over rows, per
    task: `entropy` times the entropy of the selectors, which drives codes to single experts, and, where
    `experts` is no power of 2, `unreached` times sum_k 1 / sum_e r(z_k)_e, which keeps codes off numbers that are no
    expert. Logged as by `mmoe`.

    Where it departs from the paper: experts are whole encoders, as in `mmoe`.

    Source: Hazimeh et al., NeurIPS 2021, arXiv:2106.03760.

    Args:
      encoder: of each expert.
      tasks: on common inputs, or each on its own.
      experts: how many, at least 2.
      selectors: k of the paper.
      gate: "input" or "features" for a choice per row, as in `mmoe`; "static" for one choice per task.
      gamma: width of the smooth step.
      entropy, unreached: factors of the losses; 0 for none.

    Raises:
      ValueError: if numbers of experts or selectors are impossible, or the gates cannot read what they should.
    """
    if experts < 2:
        raise ValueError(f"dselect_k: experts={experts} must be at least 2 for a choice; for one use sharing 'hard'")
    if not 1 <= selectors <= experts:
        raise ValueError(f"dselect_k: selectors={selectors} must lie in 1..{experts}, the number of experts")
    if gamma <= 0 or entropy < 0 or unreached < 0:
        raise ValueError(
            f"dselect_k: gamma={gamma} must be positive, entropy={entropy} and unreached={unreached} not negative"
        )
    made = selector_gate(gate, selectors, gamma, entropy, unreached)
    return extraction(encoder, tasks, "dselect_k", shared=experts, own=0, gate=made, reads=gate)

"""What many architectures have in common: a head per task on that task's features, and nothing else after them."""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
from jaxtyping import Array, Key

from mtl_jax.encoders import base
from mtl_jax.keys import TaskKey
from mtl_jax.members import Outputs
from mtl_jax.model import Train


def init_heads(
    modules: Mapping[str, nn.Module], key: Key[Array, ""] | TaskKey, features: Mapping[str, Any]
) -> dict[str, dict]:
    """{task: {"head": params}}; a head's draws depend on its task's name alone."""
    return {t: base.init_layers([("head", module)], key, features[t], f"tasks/{t}")[0] for t, module in modules.items()}


def decode_heads(modules: Mapping[str, nn.Module]) -> Callable:
    """The `decode` of a model whose heads are all that follows the features."""

    def decode(
        variables: Any, features: dict[str, Any], *, train: Train, rng: Any = None
    ) -> tuple[dict[str, Outputs], dict]:
        outputs = {}
        for t, x in features.items():
            params = variables["params"]["tasks"][t]
            outputs[t], _ = base.apply_layers(
                [("head", modules[t])], params, {}, x, train=train, key=rng, prefix=f"tasks/{t}"
            )
        return outputs, {}

    return decode

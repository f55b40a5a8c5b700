"""How a model is adapted to new tasks. `NAMES` lists the methods; each is a function that returns a `Method`."""

from collections.abc import Sequence
from typing import Any

from mtl_jax import parts
from mtl_jax.encoders import Encoder
from mtl_jax.model import MultiTaskModel
from mtl_jax.sharing import build as build_model
from mtl_jax.tasks import Task
from mtl_jax.transfer.methods.adapters import adapters
from mtl_jax.transfer.methods.attach import attach
from mtl_jax.transfer.methods.base import Addition, Call, Method, Site, Stage
from mtl_jax.transfer.methods.delta import delta, diff_pruning
from mtl_jax.transfer.methods.dora import dora
from mtl_jax.transfer.methods.features import delta_features, distillation
from mtl_jax.transfer.methods.hira import hira
from mtl_jax.transfer.methods.ia3 import ia3
from mtl_jax.transfer.methods.l2_sp import ewc, fisher, l2_sp
from mtl_jax.transfer.methods.lora import lora, lora_plus, rslora
from mtl_jax.transfer.methods.miss import miss
from mtl_jax.transfer.methods.mixing import cutmix, mixup
from mtl_jax.transfer.methods.oft import oft
from mtl_jax.transfer.methods.probe import probe
from mtl_jax.transfer.methods.prompts import prefix, prompt
from mtl_jax.transfer.methods.selective import (
    bitfit,
    freeze,
    freeze_then_unfreeze,
    full,
    gradual_unfreezing,
    layerwise,
    lp_ft,
)
from mtl_jax.transfer.methods.several_tasks import mtl_lora, mtlora, polytropon
from mtl_jax.transfer.methods.sharpness import ema, sam

# Of the model's own parameters; with penalties, averages or mixed inputs; what is added; for several tasks at once.
NAMES = {
    "probe": probe, "full": full, "freeze": freeze, "bitfit": bitfit, "layerwise": layerwise,
    "freeze_then_unfreeze": freeze_then_unfreeze, "gradual_unfreezing": gradual_unfreezing, "lp_ft": lp_ft,
    "l2_sp": l2_sp, "delta_features": delta_features, "ewc": ewc, "distillation": distillation,
    "sam": sam, "ema": ema, "mixup": mixup, "cutmix": cutmix,
    "lora": lora, "rslora": rslora, "lora_plus": lora_plus, "dora": dora, "hira": hira, "miss": miss, "oft": oft,
    "ia3": ia3, "adapters": adapters, "prompt": prompt, "prefix": prefix,
    "delta": delta, "diff_pruning": diff_pruning,
    "mtlora": mtlora, "mtl_lora": mtl_lora, "polytropon": polytropon,
}  # fmt: skip


def build(text: str) -> Method:
    """The method that `text` names, such as ``"lora(rank=4)"``."""
    return parts.build(text, NAMES, "fine-tuning method")


def adapted(encoder: Encoder, tasks: Sequence[Task], sharing: str, method: str) -> MultiTaskModel:
    """A model by the text that `attach` gives it, for saved runs."""
    return attach(build_model(sharing, encoder, tasks), build(method))


def read(method: Any) -> Method:
    """A method, by object or by text; anything else is an error that says so."""
    if isinstance(method, str):
        return build(method)
    if not isinstance(method, Method):
        raise parts.no_such(
            "method", method, 'a fine-tuning method such as mtl.transfer.methods.lora(), or its text, "lora(rank=8)"'
        )
    return method


__all__ = ["NAMES", "Addition", "Call", "Method", "Site", "Stage", "attach", "build", "fisher", "read", *NAMES]

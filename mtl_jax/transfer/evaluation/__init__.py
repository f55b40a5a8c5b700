"""Whether a transfer paid: few-shot curves beside training from scratch, with what they cost and what was forgotten."""

from mtl_jax.transfer.evaluation.evaluate import evaluate
from mtl_jax.transfer.evaluation.few_shot import few_shot
from mtl_jax.transfer.evaluation.result import Evaluation

__all__ = ["Evaluation", "evaluate", "few_shot"]

"""Which of a model's own parameters train: all, heads alone, some by rules, biases; and how fast by depth."""

from collections.abc import Sequence

from mtl_jax import parts
from mtl_jax.encoders import Encoder
from mtl_jax.partition import Rules
from mtl_jax.transfer.methods import base
from mtl_jax.transfer.methods.base import EVERYTHING, HEADS, Method, Stage


@parts.recorded()
def full() -> Method:
    """Every parameter trains, from where the run left it.

    Source: the usual practice, no paper.
    """
    return Method(3e-4, EVERYTHING)


@parts.recorded()
def bitfit(norms: bool = True) -> Method:
    """Biases alone train, and the scales of normalisation; statistics stand still.

    Source: Ben-Zaken, Ravfogel and Goldberg, "BitFit", ACL 2022, arXiv:2106.10199.

    Args:
      norms: whether scales of normalisation train too.
    """
    scales = (("shared/.*/scale", True),) if norms else ()
    return Method(1e-3, (*HEADS, ("shared/.*bias", True), *scales), still="shared/.*")


@parts.recorded()
def freeze(paths: str | Sequence[str] = "shared/.*", statistics: str | Sequence[str] | None = None) -> Method:
    """Parameters that regexes name stay as they are, and so do the statistics of stages that are frozen as a whole.

    Source: Yosinski et al., "How transferable are features in deep neural networks?", NeurIPS 2014, arXiv:1411.1792.

    Args:
      paths: regexes of what is frozen.
      statistics: regexes of modules, such as "shared/encoder/stage_0", that run as in inference though parameters in
        them train; their statistics stand still.
    """
    paths = base.regexes("freeze: paths", paths)
    still = None if statistics is None else "|".join(f"(?:{r})" for r in base.regexes("freeze: statistics", statistics))
    return Method(1e-3, (*((p, False) for p in paths), *EVERYTHING), named=paths, still=still)


@parts.recorded()
def layerwise(decay: float = 0.75) -> Method:
    """All train, at a rate that falls with the distance from the heads: decay^(L - l) at stage l of L.

    Source: Clark et al., "ELECTRA", ICLR 2020, arXiv:2003.10555; Bao et al., "BEiT", ICLR 2022, arXiv:2106.08254.

    Args:
      decay: factor from one stage to the one before, in (0, 1].
    """
    base.check_between("layerwise: decay", decay, 0, 1, open_low=True)

    def factors(paths: Sequence[str], encoder: Encoder | None) -> Rules:
        del encoder
        total = base.depth(paths)
        return tuple((f"(?:.*/)?stage_{i}/.*", decay ** (total - i)) for i in range(total))

    return Method(1e-3, EVERYTHING, factors=factors)


@parts.recorded()
def freeze_then_unfreeze(head_share: float = 0.2, rate: float = 0.5, decay: float = 0.75) -> Method:
    """Heads alone first, then everything at a lower rate that falls with depth: two stages.

    Source: Howard and Gugger, "fastai: a layered API for deep learning", 2020, arXiv:2002.04688 (`fine_tune`).

    Args:
      head_share: of the steps, for the heads alone.
      rate: factor on the learning rate afterwards.
      decay: of the rate from one stage of the encoder to the one before.
    """
    base.check_between("freeze_then_unfreeze: head_share", head_share, 0, 0.99, open_low=True)
    base.check_between("freeze_then_unfreeze: rate", rate, 0, float("inf"), open_low=True)
    stages = (Stage(head_share, HEADS), Stage(1 - head_share, EVERYTHING, rate))
    return layerwise(decay)._replace(learning_rate=2e-3, stages=lambda paths, encoder: stages)


@parts.recorded()
def gradual_unfreezing(decay: float = 1 / 2.6) -> Method:
    """From the heads down, one stage of the encoder more is trained at a time: as many stages, each compiled once.

    Source: Howard and Ruder, "Universal language model fine-tuning for text classification", ACL 2018,
    arXiv:1801.06146.

    Args:
      decay: of the rate from one stage of the encoder to the one before.
    """

    def stages(paths: Sequence[str], encoder: Encoder | None) -> tuple[Stage, ...]:
        del encoder
        total = base.depth([p for p in paths if p.startswith("shared/")])
        found: list[Rules] = [HEADS]
        for i in reversed(range(total)):
            found.append((*found[-1], (f"shared/(?:.*/)?stage_{i}/.*", True)))
        found[-1] = EVERYTHING
        return tuple(Stage(1 / len(found), rules) for rules in found)

    return layerwise(decay)._replace(stages=stages)


@parts.recorded()
def lp_ft(probe_share: float = 0.3, rate: float = 0.1) -> Method:
    """A linear probe, then all parameters from there, so that features are not distorted by a random head.

    Source: Kumar et al., "Fine-tuning can distort pretrained features and underperform out-of-distribution", ICLR 2022,
    arXiv:2202.10054.

    Args:
      probe_share: of the steps, for the heads alone.
      rate: factor on the learning rate afterwards.
    """
    base.check_between("lp_ft: probe_share", probe_share, 0, 0.99, open_low=True)
    base.check_between("lp_ft: rate", rate, 0, float("inf"), open_low=True)
    stages = (Stage(probe_share, HEADS), Stage(1 - probe_share, EVERYTHING, rate))
    return Method(3e-3, EVERYTHING, stages=lambda paths, encoder: stages)

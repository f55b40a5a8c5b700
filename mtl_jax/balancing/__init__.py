"""How losses and gradients are combined. `NAMES` lists the methods; each is a function that returns a `Balancer`."""

from mtl_jax import parts
from mtl_jax.balancing.aggregate import aggregate
from mtl_jax.balancing.aggregator import aggregator
from mtl_jax.balancing.aligned_mtl import aligned_mtl
from mtl_jax.balancing.base import Balancer, Keeps, Needs, Result, Signal
from mtl_jax.balancing.bilevel import auto_lambda, moml
from mtl_jax.balancing.cagrad import cagrad
from mtl_jax.balancing.conflict_free import conflict_free
from mtl_jax.balancing.conicgrad import conicgrad
from mtl_jax.balancing.cr_mogm import cr_mogm
from mtl_jax.balancing.db_mtl import db_mtl
from mtl_jax.balancing.dual_proj import dual_proj
from mtl_jax.balancing.dwa import dwa
from mtl_jax.balancing.epo import epo
from mtl_jax.balancing.equal import equal
from mtl_jax.balancing.excess_mtl import excess_mtl
from mtl_jax.balancing.famo import famo
from mtl_jax.balancing.fixed import fixed
from mtl_jax.balancing.forum import forum
from mtl_jax.balancing.geometric import geometric
from mtl_jax.balancing.graddrop import graddrop
from mtl_jax.balancing.gradnorm import gradnorm
from mtl_jax.balancing.gradvac import gradvac
from mtl_jax.balancing.grouped import grouped
from mtl_jax.balancing.imtl import imtl, imtl_g, imtl_l
from mtl_jax.balancing.ldc_mtl import ldc_mtl
from mtl_jax.balancing.log_cagrad import log_cagrad
from mtl_jax.balancing.log_imtl_g import log_imtl_g
from mtl_jax.balancing.log_mgda import log_mgda
from mtl_jax.balancing.mgda import mgda
from mtl_jax.balancing.moco import moco
from mtl_jax.balancing.nash import fairgrad, nash_mtl
from mtl_jax.balancing.pcgrad import pcgrad
from mtl_jax.balancing.pivrg import pivrg
from mtl_jax.balancing.preference import cosmos, pbi
from mtl_jax.balancing.random_weights import random_gradient, random_loss
from mtl_jax.balancing.robust import krum, trimmed_mean
from mtl_jax.balancing.samo import samo
from mtl_jax.balancing.scale_invariant import scale_invariant
from mtl_jax.balancing.stch import stch
from mtl_jax.balancing.transformation import balanced
from mtl_jax.balancing.two_samples import modo, sdmgrad
from mtl_jax.balancing.uncertainty import uncertainty
from mtl_jax.balancing.upgrad import upgrad

# A method is one file and one line here: first those that read losses, then Gramian, Jacobian,
# two samples, validation batches, losses at other parameters.
NAMES = {
    "equal": equal,
    "fixed": fixed,
    "uncertainty": uncertainty,
    "dwa": dwa,
    "geometric": geometric,
    "scale_invariant": scale_invariant,
    "random_loss": random_loss,
    "random_gradient": random_gradient,
    "imtl_l": imtl_l,
    "stch": stch,
    "famo": famo,
    "ldc_mtl": ldc_mtl,
    "cosmos": cosmos,
    "pbi": pbi,
    "upgrad": upgrad,
    "dual_proj": dual_proj,
    "mgda": mgda,
    "log_mgda": log_mgda,
    "cagrad": cagrad,
    "log_cagrad": log_cagrad,
    "conicgrad": conicgrad,
    "nash_mtl": nash_mtl,
    "fairgrad": fairgrad,
    "pivrg": pivrg,
    "pcgrad": pcgrad,
    "gradvac": gradvac,
    "imtl_g": imtl_g,
    "imtl": imtl,
    "log_imtl_g": log_imtl_g,
    "aligned_mtl": aligned_mtl,
    "conflict_free": conflict_free,
    "epo": epo,
    "gradnorm": gradnorm,
    "krum": krum,
    "cr_mogm": cr_mogm,
    "graddrop": graddrop,
    "moco": moco,
    "db_mtl": db_mtl,
    "excess_mtl": excess_mtl,
    "trimmed_mean": trimmed_mean,
    "grouped": grouped,
    "modo": modo,
    "sdmgrad": sdmgrad,
    "auto_lambda": auto_lambda,
    "moml": moml,
    "forum": forum,
    "samo": samo,
}


def build(text: str) -> Balancer:
    """The balancer that `text` names, such as ``"upgrad(regularization=0.001)"``."""
    return parts.build(text, NAMES, "balancer")


__all__ = [
    "NAMES",
    "Balancer",
    "Keeps",
    "Needs",
    "Result",
    "Signal",
    "aggregate",
    "aggregator",
    "balanced",
    "build",
    *NAMES,
]

"""From a config to what it names: data, model, and the arguments of `fit`."""

import ast
from typing import Any

import ml_collections

import mtl_jax as mtl
from experiments.configs import base
from mtl_jax import parallel, parts
from mtl_jax.model import MultiTaskModel
from mtl_jax.training import objects, options
from mtl_jax.training.optimizers import build_optimizer, build_schedule

# Options that a config has in another form than `fit` takes; the others it takes as they are.
MADE = ("optimizer", "seed", "freeze", "learning_rate_factors", "mesh", "writers")
RATE = 1e-3  # where neither the config nor a fine-tuning method has one


def resolve(config: ml_collections.ConfigDict, extra: tuple[str, ...] = ()) -> dict[str, Any]:
    """The config as a plain dict with every field of `base`.

    Args:
      config: from a config file and flags.
      extra: further fields that the program knows.

    Raises:
      ValueError: for a field that no one reads; the message lists those that are.
    """
    given, known = config.to_dict(), base.get_config().to_dict()
    for field in given:
        if field not in known and field not in extra:
            raise parts.unknown("config field", field, [*known, *extra])
    full = {k: literal(k, v) for k, v in {**known, **given}.items()}
    if full["learning_rate"] is None and not full.get("method"):
        full["learning_rate"] = RATE
    return full


def literal(field: str, value: Any) -> Any:
    """A tuple that a flag passed as text, as a tuple: ``--config.freeze="()"`` gives ``("()",)``."""
    if isinstance(value, tuple) and len(value) == 1 and isinstance(value[0], str) and value[0][:1] in ("(", "["):
        try:
            return tuple(ast.literal_eval(value[0]))
        except (SyntaxError, ValueError, TypeError) as error:
            raise ValueError(f"config field {field!r}: {value[0]!r} is not a tuple of literals") from error
    return value


def data_of(config: dict[str, Any]) -> mtl.data.Dataset:
    """The data set that the config names, or holds."""
    if isinstance(config["data"], mtl.data.Dataset):
        return config["data"]
    if not config["data"]:
        raise ValueError(f"config field 'data' is empty; it names a data set ({', '.join(mtl.data.NAMES)})")
    return mtl.data.load(config["data"], data_dir=config["data_dir"])


def encoder_of(config: dict[str, Any], data: mtl.data.Dataset) -> mtl.encoders.Encoder:
    """The encoder that the config names, in its dtype, or holds; "for_table" is the one that suits the data set."""
    if isinstance(config["encoder"], mtl.encoders.Encoder):
        if config["dtype"] not in ("", "float32"):
            raise ValueError(f"config field 'dtype': the encoder is an object with a dtype of its own; leave out "
                             f"{config['dtype']!r}, and make the encoder with it")  # fmt: skip
        return config["encoder"]
    dtype = {} if config["dtype"] in ("", "float32") or "dtype=" in config["encoder"] else {"dtype": config["dtype"]}
    name, positional, given = parts.parse(config["encoder"], "encoder")
    if name == "for_table":
        if positional:
            raise ValueError(f"encoder {config['encoder']!r}: name its arguments, which are those of 'tabm'")
        chosen = mtl.encoders.for_table(data)
        return mtl.encoders.build(parts.call("tabm", {**parts.parse(chosen.spec)[2], **given}), **dtype)
    return mtl.encoders.build(config["encoder"], **dtype)


def model_of(config: dict[str, Any], data: mtl.data.Dataset) -> Any:
    """The model that the config names, on the data set's tasks; or that it holds, or a function of it makes."""
    if isinstance(config["sharing"], MultiTaskModel):
        return config["sharing"]
    encoder = encoder_of(config, data)
    if callable(config["sharing"]):
        return config["sharing"](encoder, data.tasks)
    return mtl.sharing.build(config["sharing"], encoder, data.tasks)


def optimizer_of(config: dict[str, Any]) -> Any:
    """The optimizer that the config names, at its learning rate and schedule, or holds.

    Raises:
      ValueError: if it holds one, whose rate is its own, and names a rate, a schedule or decay rules besides.
    """
    if isinstance(config["optimizer"], str):
        schedule = build_schedule(config["schedule"], config["learning_rate"], config["num_steps"])
        return build_optimizer(config["optimizer"], schedule, config["weight_decay_rules"])
    usual = {**base.get_config(), "learning_rate": RATE}
    for field in ("learning_rate", "schedule", "weight_decay_rules"):
        if config[field] is not None and config[field] != usual[field]:  # None is the method's own rate
            raise ValueError(f"config field {field!r}: the optimizer is an object, which has its own; leave the field "
                             "out, or name the optimizer")  # fmt: skip
    return config["optimizer"]


def arguments_of_fine_tune(config: dict[str, Any], workdir: Any, method: Any) -> dict[str, Any]:
    """The keyword arguments of `fine_tune`, of a config whose optimizer, if it is the usual one, is the method's own.

    Args:
      config: resolved; ``learning_rate=None`` is the method's own.
      workdir: where stages and the run go.
      method: of `mtl.transfer.methods`.

    Raises:
      ValueError: for a schedule or decay rules of a method in stages, each of which would begin them anew.
    """
    usual, named = base.get_config(), isinstance(config["optimizer"], str)
    own = [k for k in ("schedule", "weight_decay_rules") if config[k] != usual[k]]
    if method.solve is not None:
        own += [k for k in ("optimizer", "learning_rate") if config[k] not in (None, usual[k])]
        if own:
            raise ValueError(f"config field {own[0]!r}: {method.spec} solves for the heads in closed form, without an "
                             "optimizer")  # fmt: skip
        return {"seed": seed_of(config), "workdir": workdir}
    rate = (config["learning_rate"] or method.learning_rate) if named else config["learning_rate"]
    of_fit = arguments_of_fit({**config, "learning_rate": rate}, workdir)
    of_fit.pop("freeze")  # `adapt` has it
    if own and method.stages is not None:
        raise ValueError(f"config field {own[0]!r}: {method.spec} trains in stages, and each would begin it anew")
    if named and not own:
        asked = None if config["optimizer"] == usual["optimizer"] else config["optimizer"]
        return {**of_fit, "optimizer": asked, "learning_rate": config["learning_rate"]}
    if named and config["optimizer"] == usual["optimizer"]:
        made = optimizer_of({**config, "optimizer": method.optimizer,
                             "learning_rate": config["learning_rate"] or method.learning_rate})  # fmt: skip
        return {**of_fit, "optimizer": made}
    return of_fit


def written(config: dict[str, Any]) -> dict[str, Any]:
    """The config as a file has it: objects by a digest of what they hold."""
    return objects.written(config)


def seed_of(config: dict[str, Any]) -> Any:
    """The seed, or several."""
    return tuple(config["seed"]) if isinstance(config["seed"], list | tuple) else config["seed"]


def arguments_of_fit(config: dict[str, Any], workdir: str | None) -> dict[str, Any]:
    """The keyword arguments of `fit`."""
    optimizer = optimizer_of(config)
    return {
        **{k: config[k] for k in options.IN_CONFIGS if k not in MADE},
        "optimizer": optimizer,
        "seed": seed_of(config),
        "freeze": tuple(config["freeze"]) or None,
        "learning_rate_factors": tuple(config["learning_rate_factors"]),
        "mesh": parallel.make_mesh(config["mesh"]),
        "writers": tuple(config["writers"]),
        "config": written(config),
        "workdir": workdir,
    }

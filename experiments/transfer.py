"""Carries what was learned to the tasks of a config: a run's shared parameters, or somebody else's weights.

    python -m experiments.transfer --config=experiments/configs/transfer_digits.py --source=runs/a --workdir=runs/b
    python -m experiments.transfer --config=... --source=weights.safetensors --method="lora(rank=8)" --workdir=runs/c

SOURCE is the folder of a run, or a folder or file that `mtl.transfer.from_pretrained` reads. Without a method, the
config's `freeze` says what trains.
"""

import pathlib
from typing import Any

from absl import flags

from experiments import launch, train

flags.adopt_module_key_flags(launch)
flags.adopt_module_key_flags(train)
SOURCE = flags.DEFINE_string("source", None, "The run, saved run or pretrained model that parameters come from.")
METHOD = flags.DEFINE_string("method", None, "A fine-tuning method, in place of config.method; 'lora(rank=8)'.")
EXTRA = ("load", "num_labels", "method", "heads", "augment")  # config fields beyond those of training


def resolved() -> dict[str, Any]:
    """The config, with what flags say."""
    from experiments import assemble

    config = train.CONFIG.value
    if METHOD.value is not None:
        with config.unlocked():
            config.method = METHOD.value
    return {**assemble.resolve(config, EXTRA), "source": SOURCE.value}


def adapted(config: dict[str, Any], data: Any, source: Any) -> Any:
    """The source on the data's tasks, as the config says."""
    import mtl_jax as mtl
    from experiments import assemble
    from mtl_jax.transfer import trunks

    own = {"freeze": tuple(config["freeze"]) or None, "method": config.get("method") or None,
           **{k: config[k] for k in ("heads", "augment") if config.get(k)}}  # fmt: skip
    if isinstance(source, mtl.Run):
        model = assemble.model_of(config, data) if config["encoder"] and config["sharing"] else None
        load = tuple(config.get("load") or (("shared/.*", True),))
        return trunks.adapted(source, data, load=load, model=model, **own)
    if config["encoder"]:
        raise ValueError(f"config field 'encoder': {SOURCE.value} has its own; leave the field empty, ''")
    own |= {"sharing": config["sharing"]} if config["sharing"] else {}
    return trunks.adapted(source, data, load=config.get("load") or None, **own)


def main() -> int:
    import mtl_jax as mtl
    from experiments import assemble
    from mtl_jax import paths
    from mtl_jax.transfer import trunks

    config, workdir = resolved(), paths.local_folder(train.WORKDIR.value, "--workdir")
    data = assemble.data_of(config)
    if config.get("num_labels"):
        data = data.take(config["num_labels"])
    staged = [f for f in (workdir / "run", workdir / "stage_1") if (f / "data.json").exists()]
    where = staged[0] if config.get("method") and staged else workdir
    if train.finished(workdir, assemble.written(config), data, where):
        return 0
    new = adapted(config, data, trunks.open_trunk(SOURCE.value))
    print("; ".join(f"{len(paths)} parameter arrays {what}" for what, paths in new.report.items() if paths))
    if new.method is None:
        run = mtl.fit(new, data, **assemble.arguments_of_fit(config, str(workdir)))
    else:
        how = assemble.arguments_of_fine_tune(config, str(workdir), new.method)
        write_config(workdir, assemble.written(config))
        print(in_words(new.method, config))
        run = mtl.transfer.fine_tune(new, data, **how)
    return train.report(run, data, workdir, config)


def in_words(method: Any, config: dict[str, Any]) -> str:
    """The method, and the optimizer and rate that it trains with."""
    from experiments.configs import base

    if method.solve is not None:
        return f"{method.spec}, in closed form"
    if not isinstance(config["optimizer"], str):
        return f"{method.spec}, by an optimizer of the config's"
    own = config["optimizer"] == base.get_config().optimizer
    rate = config["learning_rate"] or method.learning_rate
    return f"{method.spec}, by {method.optimizer if own else config['optimizer']} at a rate of {rate:g}"


def write_config(workdir: pathlib.Path, config: dict[str, Any]) -> None:
    """The config that identifies what is in a working directory, whose stages have configs of their own."""
    from mtl_jax import files
    from mtl_jax.training import records

    workdir.mkdir(parents=True, exist_ok=True)
    files.write_json(workdir / "config.json", records.as_json(config))


if __name__ == "__main__":
    launch.run(main, required=("config", "workdir", "source"), fields=EXTRA)

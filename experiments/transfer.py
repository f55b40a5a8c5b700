"""Carries what was learned to the tasks of a config: a run's shared parameters, or somebody else's weights.

    python -m experiments.transfer --config=experiments/configs/transfer_digits.py --source=runs/a --workdir=runs/b
    python -m experiments.transfer --config=... --source=weights.safetensors --method="lora(rank=8)" --workdir=runs/c
    python -m experiments.transfer --config=... --source=runs/a --method=probe --method=lora --method=full \
        --shots=1,5,25,all [--seeds=3] [--rates=0.3,1,3] [--plot] --workdir=runs/d

SOURCE is the folder of a run, or a folder or file that `mtl.transfer.from_pretrained` reads. Without a method, the
config's `freeze` says what trains.

With --shots, did it pay? Every method (or --method=all) and the same model from scratch are trained for the config's
steps on so many labels of each class, with every seed; the tables and the verdict are printed, and with every number
behind them they go to WORKDIR/evaluation.json. The same command again goes on where it was interrupted.
"""

import pathlib
from typing import Any

from absl import flags

from experiments import launch, reports, train

flags.adopt_module_key_flags(launch)
flags.adopt_module_key_flags(train)
SOURCE = flags.DEFINE_string("source", None, "The run, saved run or pretrained model that parameters come from.")
METHOD = flags.DEFINE_multi_string(
    "method", [], "A fine-tuning method, in place of config.method; several with --shots."
)
SHOTS = flags.DEFINE_list("shots", [], "Labels of each class to evaluate with, and 'all'; without it, one training.")
SEEDS = flags.DEFINE_integer("seeds", 3, "With --shots: trainings of each method.", lower_bound=1)
RATES = flags.DEFINE_list("rates", ["1"], "With --shots: factors on learning rates, of which validation chooses one.")
PLOT = flags.DEFINE_bool("plot", False, "With --shots: also write evaluation.png.")
EXTRA = ("load", "num_labels", "method", "heads", "augment")  # config fields beyond those of training


def resolved() -> dict[str, Any]:
    """The config, with what flags say."""
    from experiments import assemble

    config = train.CONFIG.value
    if ignored := [f for f in ("seeds", "rates", "plot") if flags.FLAGS[f].present and not SHOTS.value]:
        raise ValueError(f"--{ignored[0]} goes with --shots, such as --shots=1,5,all")
    if METHOD.value and not SHOTS.value:
        if len(METHOD.value) > 1:
            raise ValueError("--method is given several times; --shots=1,5,all compares methods")
        with config.unlocked():
            config.method = METHOD.value[0]
    return {**assemble.resolve(config, EXTRA), "source": SOURCE.value}


def adapted(config: dict[str, Any], data: Any, source: Any) -> Any:
    """The source on the data's tasks, as the config says."""
    from mtl_jax.transfer import trunks

    own = {"freeze": tuple(config["freeze"]) or None, "method": config.get("method") or None}
    return trunks.adapted(source, data, **own, **arguments_of_adapt(config, data, source))


def arguments_of_adapt(config: dict[str, Any], data: Any, source: Any) -> dict[str, Any]:
    """What the config says of adapting, whatever the method: arguments of `adapt`, or `Pretrained.adapt`."""
    import mtl_jax as mtl
    from experiments import assemble

    own = {k: config[k] for k in ("heads", "augment") if config.get(k)}
    if isinstance(source, mtl.Run):
        model = assemble.model_of(config, data) if config["encoder"] and config["sharing"] else None
        own |= {"load": tuple(config.get("load") or (("shared/.*", True),))}
        return own if model is None else {**own, "model": model}
    if config["encoder"]:
        raise ValueError(f"config field 'encoder': {SOURCE.value} has its own; leave the field empty, ''")
    own |= {k: config[k] for k in ("sharing", "load") if config.get(k)}
    return own


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
    if SHOTS.value:
        return judge(config, data, workdir)
    if reports.finished(workdir, assemble.written(config), data, where):
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
    own = workdir / "run"
    return reports.report(run, data, workdir, config, own if new.method is not None and own.is_dir() else None)


def judge(config: dict[str, Any], data: Any, workdir: pathlib.Path) -> int:
    """Evaluates methods beside training from scratch; see `mtl.transfer.evaluate`."""
    import mtl_jax as mtl
    from experiments import assemble
    from experiments.configs import base
    from mtl_jax import files
    from mtl_jax.training.description import environment
    from mtl_jax.transfer import trunks
    from mtl_jax.transfer.evaluation.notes import why_not_lost

    usual = {**base.get_config(), "freeze": (), "method": ""}
    for field in ("freeze", "method", "optimizer", "schedule", "weight_decay_rules", "learning_rate_factors", "seed"):
        if (config.get(field) or None) != (usual[field] or None):
            raise ValueError(f"config field {field!r} is {config[field]!r}: with --shots it is each method's own "
                             "(--method, --rates, --seeds); leave the field as it usually is")  # fmt: skip
    source = trunks.open_trunk(SOURCE.value)
    methods: Any = METHOD.value or ("probe", "lora", "full")
    own, old = arguments_of_adapt(config, data, source), None
    if isinstance(source, mtl.Run) and source.data is None:
        print("what old tasks lose is not measured: the source was trained on data that no name loads again")
    elif isinstance(source, mtl.Run):
        old = mtl.data.load(source.data, data_dir=config["data_dir"])
        if no := why_not_lost(source, data, old, own):
            print(f"what old tasks lose is not measured: {no}")
            old = None
    given = assemble.arguments_of_fit(config, None)
    set_here = ("optimizer", "seed", "freeze", "learning_rate_factors", "workdir", "num_steps")
    found = mtl.transfer.evaluate(
        source, data, "all" if "all" in methods else methods,
        shots=[s if s == "all" else whole(s) for s in SHOTS.value], seeds=tuple(range(SEEDS.value)),
        num_steps=config["num_steps"], old=old, rates=tuple(number(r) for r in RATES.value), adapt=own, workdir=workdir,
        scratch_rate=config["learning_rate"] or assemble.RATE, report_progress=said,
        **{k: v for k, v in given.items() if k not in set_here},
    )  # fmt: skip
    print(found.table())
    content = {**found.content(), "config": assemble.written(config), "environment": environment()}
    files.write_json(workdir / "evaluation.json", content)
    if PLOT.value:
        found.plot(workdir / "evaluation.png")
    print(workdir / "evaluation.json")
    return 0


def said(found: Any) -> None:
    """Says what has been trained."""
    done = sum(len(runs) for by in found.trainings.values() for runs in by.values())
    print(f"{done}: {found.latest}", flush=True)


def whole(text: str) -> int:
    """A number of --shots."""
    if not text.isdigit():
        raise ValueError(f"--shots={','.join(SHOTS.value)} must be whole numbers with commas between, or 'all'")
    return int(text)


def number(text: str) -> float:
    """A number of --rates."""
    try:
        return float(text)
    except ValueError as error:
        raise ValueError(f"--rates={','.join(RATES.value)} must be numbers with commas between") from error


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

"""Carries the shared parameters of a run to the tasks of a config: frozen, or fine-tuned.

python -m experiments.transfer --config=experiments/configs/transfer_digits.py --source=runs/a --workdir=runs/b
"""

from absl import flags

from experiments import launch, train

flags.adopt_module_key_flags(launch)
flags.adopt_module_key_flags(train)
SOURCE = flags.DEFINE_string("source", None, "The run, or saved run, that parameters come from.")
EXTRA = ("load", "num_labels")  # config fields beyond those of training


def main() -> int:
    import mtl_jax as mtl
    from experiments import assemble
    from mtl_jax import paths

    config, workdir = assemble.resolve(train.CONFIG.value, EXTRA), paths.local_folder(train.WORKDIR.value, "--workdir")
    config["source"] = SOURCE.value
    data = assemble.data_of(config)
    if config.get("num_labels"):
        data = data.take(config["num_labels"])
    if train.finished(workdir, assemble.written(config), data):
        return 0
    source = mtl.load_run(SOURCE.value)
    model = assemble.model_of(config, data) if config["encoder"] and config["sharing"] else None
    load = tuple(config.get("load") or (("shared/.*", True),))
    adapted = mtl.transfer.adapt(source, data.tasks, freeze=tuple(config["freeze"]) or None, load=load, model=model)
    print("; ".join(f"{len(paths)} parameter arrays {what}" for what, paths in adapted.report.items()))
    run = mtl.fit(adapted, data, **assemble.arguments_of_fit(config, workdir))
    return train.report(run, data, workdir, config)


if __name__ == "__main__":
    launch.run(main, required=("config", "workdir", "source"), fields=EXTRA)

"""A loop goes on from the newest checkpoint of its workdir, in the form that the run had there."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mtl_jax.training import changes, identity, program, records, selection
from mtl_jax.training.finiteness import check_restored
from mtl_jax.training.state import restacked, unstacked, variables_of


def look_again(loop: Any) -> None:
    """Restores anew if another fit has gone on in the workdir since, which has ended; an error if both have."""
    if loop._checkpoints.steps() == loop._seen:
        return
    if not loop._untouched:
        raise ValueError(f"{loop.workdir}: another fit has gone on in it since this job was made, which has gone on as "
                         "well; use another workdir")  # fmt: skip
    restore(loop)


def restore(loop: Any) -> None:
    """Takes a loop to the newest checkpoint of its workdir, if there is one."""
    workdir, run = loop.workdir, loop._run
    made = changes.read(workdir)
    with loop._folder_of_checkpoints() as checkpoints:
        loop._seen = checkpoints.steps()
        if loop._seen and not (workdir / "config.json").exists():
            raise ValueError(f"{workdir} holds checkpoints but no config.json, so whose they are cannot be told; "
                             "bring it back from a copy, or use another workdir")  # fmt: skip

        def load(step: int) -> dict[str, Any]:
            become(loop, changes.options_at(made, step))
            return checkpoints.restore(step, loop._by_name(), loop.plan.names, loop._axis)

        found = checkpoints.newest(load)
    last = -1
    if found is not None:
        last, loaded = found
        check_restored(loaded["train"], last, workdir)
        layout, axis = loop.program.layout, loop._axis
        loop._state = placed(restacked(loaded["train"], layout, axis), loop._state)
        loop.best = placed(variables_of(loaded["best"], layout, axis, stack=True), loop.best)
        loop.best = on_todays_scale(loop, last)
        run.resumed_from = loop._saved = last
        run.changes = changes.until(made, last)
        become(loop, changes.options_at(made, last, saved=True))
        changes.warn_of_unsaved(run.changes, last, workdir)
    run.history = records.history_until(workdir / "metrics.jsonl", last)
    loop._look_at_state()


def become(loop: Any, changed: dict[str, Any]) -> bool:
    """Gives a loop the program and the form of state of its first options with these changed; whether any did.

    All that the state has in common with the one before is carried over (`changes.carried`).
    """
    options = changes.replaced(loop._first_plan.options, changed)
    differs = changes.differ(options, loop.plan.options)
    if not differs:
        return False
    plan = loop.plan.changed(options)
    made = program.make(plan, before=loop.program)
    first, best = made.first()
    axis, now = loop._axis, loop._by_name()
    of_both = (plan, loop.plan)
    train = changes.carried(
        unstacked(first, made.layout, axis), now["train"], [p.methods.optimizer for p in of_both],
        [p.methods.described if p.methods.described else p.methods.balancers for p in of_both],
    )  # fmt: skip
    loop.best = placed(variables_of(now["best"], made.layout, axis, stack=True), best)
    loop._state = placed(restacked(train, made.layout, axis), first)
    loop.plan, loop.program, loop._compiled, loop._changed = plan, made, None, changed
    loop._look_at_state()
    return True


def placed(tree: Any, like: Any) -> Any:
    """A tree on the devices where `like` is."""
    return jax.tree.map(lambda x, old: jax.device_put(x, old.sharding), tree, like)


def on_todays_scale(loop: Any, step: int) -> selection.Best:
    """`best` of a checkpoint; that of a version that kept no identity had scores on another scale: measured anew.

    The identity says until which step checkpoints are of that version, as a later one may be damaged or removed.
    """
    stored, run, best, made = identity.read(loop.workdir), loop._run, loop.best, loop.program
    until = step if stored is None else stored.get(identity.EARLIER, -1)
    if until >= 0:
        run.identity[identity.EARLIER] = until
    if step > until or made.validation is None:
        return best
    losses, _ = made.evaluate({"params": best.params, "state": best.state}, made.validation)
    now = selection.scores(losses, made.yardstick)
    return best._replace(scores=jnp.where(jnp.isneginf(best.scores), best.scores, now))


def judged(best: selection.Best) -> bool:
    """Whether a validation has found anything better than nothing."""
    return bool(np.isfinite(np.asarray(best.scores)).any())

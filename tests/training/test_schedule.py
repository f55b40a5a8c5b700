"""Which tasks train: frequencies against the stated probabilities, exact turns and boundaries, and determinism."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl_jax.training import schedule
from tests import tiny

NAMES, SIZES, STEPS = ("a", "b", "c"), (8, 2, 0), 4000


@functools.cache
def compiled(text, names, sizes):
    active = schedule.bind(schedule.build(text), names, sizes)
    return jax.jit(jax.vmap(lambda key, i: active(i, jax.random.fold_in(key, i)), (None, 0)))


def run(text, names=NAMES, sizes=SIZES, seed=0):
    """bool [steps, K], drawn as in a run: a key of each step's own."""
    return np.asarray(compiled(text, names, sizes)(jax.random.key(seed), jnp.arange(STEPS)))


def assert_frequencies(found, chances):
    """Within five binomial standard deviations."""
    chances = np.asarray(chances)
    assert (np.abs(found.mean(0) - chances) <= 5 * np.sqrt(chances * (1 - chances) / len(found))).all(), found.mean(0)


@pytest.mark.parametrize(
    "text, chances",
    [("joint", [1, 1, 1]), ("alternating", [1 / 3] * 3), ("alternating(by='size')", [0.8, 0.2, 0]),
     ("alternating(by='size', temperature=2.0)", [2 / 3, 1 / 3, 0]),
     ("alternating(by='priority', weights={'a': 1.0, 'b': 0.0, 'c': 3.0})", [0.25, 0, 0.75]),
     ("task_dropout(rate=0.5)", [0.5 + 0.125 / 3] * 3), ("task_dropout(rate=0.9)", [0.1 + 0.729 / 3] * 3)],
)  # fmt: skip
def test_frequencies(text, chances):
    found = run(text)
    assert_frequencies(found, chances)
    assert found.any(1).all()
    if text.startswith("alternating"):
        assert (found.sum(1) == 1).all()


def test_dropout_is_independent_where_it_is_not_all():
    """P(a and b both dropped) = rate^2, less what the last one standing takes: rate^K 2 / K."""
    found = run("task_dropout(rate=0.5)")
    assert_frequencies((~found[:, :1]) & (~found[:, 1:2]), [0.25 - 0.125 * 2 / 3])


def test_round_robin_is_exact():
    found = run("alternating(by='round_robin')")[:7]
    np.testing.assert_array_equal(found, np.eye(3, dtype=bool)[[0, 1, 2, 0, 1, 2, 0]])


def test_curriculum_boundaries_and_rehearsal():
    starts = "starts={'b': 100, 'c': 2000}"
    never = run(f"curriculum({starts}, rehearsal=0.0)")
    expected = np.eye(3, dtype=bool)[np.repeat([0, 1, 2], [100, 1900, 2000])]
    np.testing.assert_array_equal(never, expected)
    always = run(f"curriculum({starts})")
    np.testing.assert_array_equal(always, np.cumsum(expected[:, ::-1], 1)[:, ::-1].astype(bool))
    some = run(f"curriculum({starts}, rehearsal=0.3)")
    np.testing.assert_array_equal(some & expected, expected)
    assert not (some & ~always).any()
    assert_frequencies(some[2000:], [0.3, 0.3, 1])
    assert_frequencies(some[2000:, :1] & some[2000:, 1:2], [0.09])
    together = run("curriculum(starts={'b': 5, 'c': 5}, rehearsal=0.0)")[:6]
    np.testing.assert_array_equal(together[4:], [[True, False, False], [False, True, True]])


@pytest.mark.parametrize(
    "text", ["alternating", "task_dropout(rate=0.5)", "curriculum(starts={'b': 1, 'c': 1}, rehearsal=0.5)"]
)
def test_draws_are_a_function_of_key_and_name(text):
    found = run(text)
    np.testing.assert_array_equal(run(text), found)
    assert (run(text, seed=1) != found).any()
    np.testing.assert_array_equal(run(text, NAMES[::-1], SIZES[::-1])[:, ::-1], found)
    more = run(text, ("new", *NAMES), (1, *SIZES))
    if text == "alternating":  # the others only give way to the new task
        rest = ~more[:, 0]
        assert 0.6 < rest.mean() < 0.9
        np.testing.assert_array_equal(more[rest, 1:], found[rest])
    elif text.startswith("task_dropout"):  # unless all the others would be left out
        kept = found.sum(1) > 1
        np.testing.assert_array_equal(more[kept, 1:], found[kept])
    else:
        np.testing.assert_array_equal(more[:, 1:], found)


def test_specs_are_rebuilt_from_text():
    for text in (
        "joint()",
        "alternating(by='size', temperature=2.0)",
        "task_dropout(rate=0.25)",
        "curriculum(starts={'b': 100}, rehearsal=0.1)",
        "alternating(by='priority', weights={'a': 1})",
        "alternating(optimizer='per_task')",
    ):
        assert schedule.build(text).spec == text
    assert set(schedule.NAMES) == {"joint", "alternating", "curriculum", "task_dropout"}


def test_it_masks_labels_inside_a_compiled_step():
    """A step whose labels the schedule masks leaves the idle tasks' parameters as they are."""
    step, first = tiny.training("equal", model=tiny.model(tiny.data().tasks))
    batch, names = tiny.batch(), tuple(t.name for t in tiny.data().tasks)
    active = schedule.bind(schedule.build("alternating(by='round_robin')"), names, (1, 1, 1))

    @jax.jit
    def scheduled(state, batch):
        on = active(state.step, jax.random.fold_in(state.key, state.step))
        masks = {n: batch.masks[n] & on[i] for i, n in enumerate(names)}
        return step(state, batch._replace(masks=masks))

    second, record = scheduled(first, batch)
    np.testing.assert_array_equal(record["labelled"], [True, False, False])
    for name in names[1:]:
        tiny.assert_same(second.params["tasks"][name], first.params["tasks"][name])
    before, after = (s.params["tasks"][names[0]]["head"]["out"]["kernel"] for s in (first, second))
    assert (before != after).any()


def test_errors():
    for text, message in {
        "alternating(by='sise')": "unknown by of alternating 'sise'; did you mean 'size'",
        "alternating(optimizer='each')": "unknown optimizer of alternating 'each'",
        "alternating(by='priority')": "weights go with by='priority'",
        "alternating(weights={'a': 1})": "weights go with by='priority'",
        "alternating(by='size', temperature=0)": "temperature=0 must be above 0",
        "alternating(temperature=2.0)": "temperature goes with by='size', not by='uniform'",
        "alternating(by='priority', weights={'a': -1})": "weight -1 of task 'a' must be at least 0",
        "curriculum(starts={}, rehearsal=1.5)": r"rehearsal=1.5 must lie in \[0, 1\]",
        "curriculum(starts={'a': -1})": "start -1 of task 'a' must be a step",
        "task_dropout(rate=1.0)": r"rate=1.0 must lie in \[0, 1\)",
        "task_dropot": "unknown schedule 'task_dropot'; did you mean 'task_dropout'",
    }.items():
        with pytest.raises(ValueError, match=message):
            schedule.build(text)
    for text, message in {
        "alternating(by='priority', weights={'a': 1, 'b': 1, 'd': 1})": "unknown task in weights of alternating 'd'",
        "alternating(by='priority', weights={'a': 1, 'b': 1})": "weights has no entry for task 'c'",
        "alternating(by='priority', weights={'a': 0, 'b': 0, 'c': 0})": "leaves no task with a chance to train",
        "curriculum(starts={'a': 1, 'b': 1, 'c': 2})": "no task is there at step 0",
        "curriculum(starts={'d': 1})": "unknown task in starts of curriculum 'd'",
    }.items():
        with pytest.raises(ValueError, match=message):
            schedule.bind(schedule.build(text), NAMES, SIZES)
    with pytest.raises(ValueError, match="2 sizes were given for 3 tasks"):
        schedule.bind(schedule.build("joint"), NAMES, (1, 2))

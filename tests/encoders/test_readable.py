"""What an encoder declares of its inputs: whatever would give nan is found on the host, and nothing else is."""

import numpy as np
import pytest

import mtl_jax as mtl
from mtl_jax.encoders.base import check_inputs
from mtl_jax.inputs import place
from tests import tiny

NAN, INF = np.nan, np.inf
TOKENS = np.array([[1, 4, 0], [2, 9, 0]])
FIRST_TWO = np.array([[1, 1, 0], [1, 0, 0]], bool)
SERIES = np.array([[[1.0], [2.0], [NAN]], [[1.0], [INF], [NAN]]])


def check(encoder, inputs):
    check_inputs(mtl.encoders.build(encoder), inputs, place("val"))


TABLE = "tabular(features=(2,), cardinalities=(3, 5))"
BOTH = "multimodal(encoders={'text': 'rnn(features=(2,), vocabulary=5)', 'table': 'mlp(features=(2,))'})"


@pytest.mark.parametrize("encoder, inputs", [
    (TABLE, {"categories": np.array([[-1, 4], [2, 0]]), "numbers": np.array([[NAN], [1.0]])}),
    ("transformer(vocabulary=10, types=2)", {"tokens": TOKENS, "types": TOKENS * 0 + 1}),
    ("conv1d(vocabulary=5)", {"tokens": TOKENS, "mask": FIRST_TWO}),  # 9 is padding
    ("rnn(vocabulary=10, affixes=3)", {"tokens": TOKENS, "affixes": np.full((2, 3, 2), 2)}),
    ("rnn()", {"values": SERIES, "mask": FIRST_TWO}),  # padding may hold anything
    (BOTH, {"text": TOKENS, "text_present": np.array([1, 0]), "table": SERIES[..., 0], "table_present": np.zeros(2)}),
    ("mlp()", mtl.PerTask({"a": np.ones((2, 3)), "b": np.ones((1, 3))})),
    ("cnn()", np.zeros((2, 4, 4, 1), np.uint8)),
])  # fmt: skip
def test_what_can_be_read(encoder, inputs):
    check(encoder, inputs)


@pytest.mark.parametrize("encoder, inputs, words", [
    (TABLE, {"categories": np.array([[-1, 4], [3, 0]])},
     r"'categories' of val hold 3 in row 1, column 0, outside -1..2: .* 3 categories"),
    (TABLE, {"categories": np.array([[-2, 4]])}, "hold -2 in row 0, column 0, outside -1..2"),
    (TABLE, {"categories": np.array([[0, 0]]), "numbers": np.array([[INF]])}, "'numbers' of val hold inf in row 0"),
    ("transformer(vocabulary=9)", TOKENS, "inputs of val hold 9 in row 1, column 1, outside 0..8: .*vocabulary=9"),
    ("transformer(vocabulary=10, types=1)", {"tokens": TOKENS, "types": TOKENS}, "'types' .* outside 0..0"),
    ("rnn(vocabulary=10, affixes=2)", {"tokens": TOKENS, "affixes": np.full((2, 3, 2), 2)}, "'affixes' .* affixes=2"),
    ("conv1d(vocabulary=10)", -TOKENS, "hold -1 in row 0"),
    ("conv1d()", {"values": SERIES, "mask": np.ones((2, 3), bool)}, r"hold nan in row 0, position \(2, 0\)"),
    (BOTH, {"text": TOKENS, "table": np.ones((2, 3))}, "'text' of val hold 9 in row 1"),
    (BOTH, {"text": TOKENS % 5, "table": np.full((2, 3), NAN)}, "'table' of val hold nan in row 0"),
    ("mlp()", mtl.PerTask({"a": np.ones((2, 3)), "b": np.full((1, 3), NAN)}), "'b' of val hold nan in row 0, column 0"),
    ("cnn()", np.zeros((2, 4, 4)), r"have shape \(2, 4, 4\); cnn takes images .* make inputs\[..., None\]"),
    ("unet()", np.full((2, 4, 4, 1), NAN), "hold nan"),
])  # fmt: skip
def test_what_would_give_nan(encoder, inputs, words):
    with pytest.raises(ValueError, match=words):
        check(encoder, inputs)


def test_before_training_in_every_split_and_before_predicting():
    """A code that only validation has, and one that only comes in with new rows."""
    draw = np.random.default_rng(0)
    codes, y = draw.integers(0, 4, (40, 1)), draw.normal(size=40)
    data = mtl.data.from_arrays({"categories": codes}, {"y": y}, val=({"categories": codes + 1}, {"y": y}), test=0)
    model = tiny.model(data.tasks, encoder="tabular(features=(3,), cardinalities=(4,))")
    with pytest.raises(ValueError, match="'categories' of val hold 4 in row"):
        tiny.fit(model, data)
    run = tiny.fit(tiny.model(data.tasks, encoder="tabular(features=(3,), cardinalities=(5,))"), data)
    with pytest.raises(ValueError, match="'categories' hold 5 in row 1, column 0"):
        run.predict({"categories": np.array([[0], [5]])})
    assert np.isfinite(run.predict({"categories": np.array([[-1], [4]])})["y"]).all()

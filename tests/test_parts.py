"""The grammar of names with literal arguments."""

import pytest

import mtl_jax as mtl
from mtl_jax import encoders, parts


def test_parse():
    assert parts.parse("mlp") == ("mlp", (), {})
    assert parts.parse("mlp((8, 8), norm='batch')") == ("mlp", ((8, 8),), {"norm": "batch"})


@pytest.mark.parametrize("text", ["a.b()", "f(x)", "f(g())", "1 + 1", "f(**{})", "", "f(", "lambda: 0"])
def test_nothing_but_a_call_with_literals(text):
    with pytest.raises(ValueError, match="is not of the form name or name"):
        parts.parse(text)


def test_a_constructor_writes_the_text_that_rebuilds_it():
    for text in ("mlp(features=(4, 4), norm='batch')", "cnn(features=(2,), window=1)", "linear()"):
        assert encoders.build(text).spec == text
        assert encoders.build(encoders.build(text).spec).spec == text


def test_errors_list_what_there_is():
    with pytest.raises(
        ValueError,
        match=r"unknown encoder 'mpl'; did you mean 'mlp'\? \(augmented, cnn, conv1d, efficientnet_lite, linear, mlp, ",
    ):
        encoders.build("mpl")
    with pytest.raises(ValueError, match="unknown argument of encoder 'mlp' 'width'; .*features, norm, dropout"):
        encoders.build("mlp(width=3)")
    with pytest.raises(ValueError, match="encoder .*too many positional arguments"):
        encoders.build("mlp(1, 'none', 0.0, 'relu', None, False, 3)")


def test_text_that_is_too_deep_is_no_call():
    for text in ("(" * 5000, "mlp(" + "-" * 100_000 + "1)", "mlp(a=" + "[" * 3000 + "]" * 3000 + ")"):
        with pytest.raises(ValueError, match="is not of the form name or name") as caught:
            parts.parse(text, "encoder")
        assert len(str(caught.value)) < 400


def test_a_registry_is_what_says_it_returns_the_kind():
    """So that another loss, metric or encoder is one file, and the line that imports it."""

    def second(a: int = 0) -> mtl.metrics.Metric: ...
    def first() -> mtl.metrics.Metric: ...
    def helper(metric: mtl.metrics.Metric) -> str: ...

    namespace = {"second": second, "first": first, "helper": helper, "Metric": mtl.metrics.Metric, "parts": parts}
    assert list(parts.returning(mtl.metrics.Metric, namespace)) == ["first", "second"]
    assert mtl.losses.NAMES["huber"] is mtl.losses.huber and "for_table" not in mtl.encoders.NAMES

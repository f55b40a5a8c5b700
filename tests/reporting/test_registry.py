"""The tables of what there is, from the registries."""

from mtl_jax import balancing
from mtl_jax.reporting.registry import methods_markdown


def test_every_method_is_in_the_table_with_its_paper():
    rows = {line.split("`")[1]: line for line in methods_markdown().splitlines()[2:]}
    assert list(rows) == list(balancing.NAMES)
    for name, row in rows.items():
        assert len(row.split(" | ")) == 7
        assert name in ("equal", "fixed", "grouped") or "20" in row.split(" | ")[-1], row
        assert balancing.NAMES[name].when in row and balancing.NAMES[name].paper in row
    state = {name: row.split(" | ")[4] for name, row in rows.items()}
    assert (state["upgrad"], state["moco"], state["uncertainty"]) == ("none", "a Jacobian", "a few numbers per task")
    assert "forward pass" in rows["famo"]

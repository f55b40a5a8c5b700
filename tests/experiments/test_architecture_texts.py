"""The texts that the programs make of architectures' names."""

import mtl_jax as mtl
from experiments import architectures


def test_every_architecture_is_built_from_its_text():
    """On three tasks, whose halves differ, and two stages."""
    tasks = [mtl.Task(n, "binary") for n in ("a", "b", "c")]
    texts = architectures.every([t.name for t in tasks], 2)
    assert tuple(texts) == tuple(mtl.sharing.NAMES)
    for name, text in texts.items():
        model = mtl.sharing.build(text, mtl.encoders.mlp(features=(4, 3)), tasks)
        assert [t.name for t in model.tasks] == ["a", "b", "c"], name
    assert texts["cascade"] == "cascade(order=('a', 'b', 'c'))"
    assert texts["aitm"] == "aitm(funnel=('a', 'b', 'c'))"
    assert texts["esmm"] == "esmm(click='a', conversion='b')"
    assert texts["branched"] == "branched(tree=((('a', 'b'), ('c',)), (('a', 'b'), ('c',))))"

"""Encoders made of somebody else's network: a Flax Linen or NNX module, an Equinox module, or pure functions.

A `stage.ForeignStage` is the Linen module that the rest of the framework sees. What it wraps is a *network*, one class
a kind, with ``start(key, x) -> (params, state)`` and ``run(params, state, x, *, train, key) -> (features, new state)``
over nested dicts of arrays.
"""

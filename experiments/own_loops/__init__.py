"""Balancing in a loop of one's own: the same three tasks in plain JAX, Flax NNX and Equinox.

python -m experiments.own_loops.with_plain_jax
"""

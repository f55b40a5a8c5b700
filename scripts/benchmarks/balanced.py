"""A step of `mtl.balanced` in a loop of one's own, beside TorchJD's `backward` and `mtl_backward` on the same losses.

    python -m scripts.benchmarks.balanced [--tasks 3,10] [--rounds 11] [--methods NAME;...]

An MLP 64-512-512-512 (large) or 64-64-64 (small) with K linear heads and mean squared errors, batch 256, Adam, float32,
all cores: forward, gradients, the method, and the update of trunk and heads. "one function" is losses(params, batch) of
all tasks, whose every row goes through all of it, beside TorchJD's `backward` over all parameters of the trunk; "heads"
is features= and heads=, beside `mtl_backward`. Plain is `jax.grad` of the sum. Times are medians over interleaved
rounds, in milliseconds, after compilation. Without torchjd (pip install "torchjd[full]" in an environment of its own,
never a dependency here) the columns of this library are printed alone.
"""

import argparse
import platform
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import mtl_jax as mtl
from mtl_jax.reporting.describe import table
from scripts.benchmarks.measuring import Compiled, compiled, medians

try:
    import torch
    from torchjd import aggregation as theirs
    from torchjd.autojac import backward, jac_to_grad, mtl_backward

    THEIRS = {"equal": theirs.Sum, "upgrad": theirs.UPGrad, "mgda": theirs.MGDA, "imtl_g": theirs.IMTLG}
except ImportError:
    torch, THEIRS = None, {}

WIDTHS = {"large": (64, 512, 512, 512), "small": (64, 64, 64)}
BATCH = 256


def init(name: str, count: int) -> dict[str, Any]:
    """Parameters: a trunk and K heads."""
    draw, widths = np.random.default_rng(0), WIDTHS[name]
    layers = [
        {"w": jnp.asarray(draw.normal(size=(a, b)) / a**0.5, jnp.float32), "b": jnp.zeros(b)}
        for a, b in zip(widths[:-1], widths[1:], strict=True)
    ]
    return {"trunk": layers, "heads": {str(i): {"w": jnp.zeros(widths[-1])} for i in range(count)}}


def features(params: Any, batch: Any) -> Any:
    x = batch[0]
    for layer in params["trunk"]:
        x = jax.nn.relu(x @ layer["w"] + layer["b"])
    return x


def head(name: str) -> Callable:
    """The loss of a task by the features."""
    return lambda params, x, batch: jnp.square(x @ params["heads"][name]["w"] - batch[1][int(name)]).mean()


def ours(name: str, count: int, method: str | None, form: str) -> Compiled:
    """Our step; None for the plain one."""
    draw, adam = np.random.default_rng(1), optax.adam(1e-3)
    batch = tuple(jnp.asarray(draw.normal(size=s), jnp.float32) for s in ((BATCH, 64), (count, BATCH)))
    heads = {str(i): head(str(i)) for i in range(count)}

    def losses(params: Any, batch: Any) -> Any:
        found = features(params, batch)
        return {n: h(params, found, batch) for n, h in heads.items()}

    how = {"features": features, "heads": heads} if form == "heads" else {"losses": losses, "tasks": tuple(heads)}
    balanced = mtl.balanced(balancer=method or "equal", shared="trunk/.*", **how)

    def step(carry: Any, batch: Any) -> Any:
        params, state, opt_state = carry
        if method is None:
            grads = jax.grad(lambda p: sum(losses(p, batch).values()))(params)
        else:
            grads, state, _ = balanced(params, state, batch)
        updates, opt_state = adam.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), state, opt_state

    params = init(name, count)
    return compiled(step, (params, balanced.init(params), adam.init(params)), batch)


def of_torchjd(name: str, count: int, method: str, form: str) -> Callable:
    """A call of TorchJD's step."""
    torch.manual_seed(0)
    widths, layers = WIDTHS[name], []
    for a, b in zip(widths[:-1], widths[1:], strict=True):
        layers += [torch.nn.Linear(a, b), torch.nn.ReLU()]
    trunk = torch.nn.Sequential(*layers)
    heads = [torch.nn.Linear(widths[-1], 1, bias=False) for _ in range(count)]
    own = [p for h in heads for p in h.parameters()]
    optimizer, aggregator = torch.optim.Adam([*trunk.parameters(), *own], lr=1e-3), THEIRS[method]()
    x, y = torch.randn(BATCH, 64), torch.randn(count, BATCH)

    def call() -> None:
        found = trunk(x)
        losses = [((h(found)[:, 0] - y[i]) ** 2).mean() for i, h in enumerate(heads)]
        if form == "heads":
            mtl_backward(losses, features=found)
        else:
            torch.autograd.backward(losses, inputs=own, retain_graph=True)
            backward(losses, inputs=list(trunk.parameters()))
        jac_to_grad(trunk.parameters(), aggregator)
        optimizer.step()
        optimizer.zero_grad()

    return call


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", default="3,10")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--methods", default="equal;upgrad;mgda;imtl_g")
    given = parser.parse_args()
    device, beside = jax.devices()[0], f"torch {torch.__version__}" if torch else "without torchjd"
    print(
        f"jax {jax.__version__}, {device.platform} {device.device_kind}, Python {platform.python_version()}, {beside}"
    )
    rows = []
    for name in WIDTHS:
        for count in map(int, given.tasks.split(",")):
            for method in given.methods.split(";"):
                calls = {"plain": ours(name, count, None, "heads").call}
                for form in ("one function", "heads"):
                    calls[form] = ours(name, count, method, form).call
                    if method in THEIRS:
                        calls[f"theirs, {form}"] = of_torchjd(name, count, method, form)
                found = medians(calls, given.rounds)
                cells = [f"{found[c]:.2f}" if c in found else "" for c in
                         ("plain", "one function", "theirs, one function", "heads", "theirs, heads")]  # fmt: skip
                rows.append((name, str(count), method, *cells))
                print(*rows[-1], flush=True)
    print("\n" + table(rows, ("MLP", "K", "method", "plain", "one function", "backward", "heads", "mtl_backward"),
                       right=(1, 3, 4, 5, 6, 7)))  # fmt: skip


if __name__ == "__main__":
    main()

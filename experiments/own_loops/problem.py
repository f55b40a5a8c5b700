"""Three regressions of one hidden score, whose losses differ by a factor of a hundred: what the loops here learn."""

import numpy as np

TASKS = {"mean": 1.0, "spread": 10.0, "trend": 0.1}  # name: how far its targets reach


def rows(seed: int, count: int = 256) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """(inputs float32 [count, 6], {task: targets float32 [count]})."""
    draw, fixed = np.random.default_rng(seed), np.random.default_rng(0)
    x = draw.normal(size=(count, 6)).astype(np.float32)
    hidden = np.tanh(x @ fixed.normal(size=(6, 4)))
    return x, {t: (reach * hidden @ fixed.normal(size=4)).astype(np.float32) for t, reach in TASKS.items()}


def unexplained(outputs: dict[str, np.ndarray], targets: dict[str, np.ndarray]) -> dict[str, float]:
    """{task: squared error over variance}; 1 is the best constant."""
    return {t: float(np.mean((np.asarray(outputs[t]) - y) ** 2) / np.var(y)) for t, y in targets.items()}

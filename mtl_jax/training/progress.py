"""A progress line with per-task losses, of many tasks in short; nothing at all where the output is no terminal."""

from typing import Any

from mtl_jax.reporting import many


class Progress:
    """A rich progress bar on stderr while entered, if `show` (None: if stderr is a terminal)."""

    def __init__(self, total: int, show: bool | None = None):
        self.total, self.show = total, show
        self._bar: Any = None

    def __enter__(self) -> "Progress":
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        console = Console(stderr=True)
        if console.is_terminal if self.show is None else self.show:
            columns = (BarColumn(20), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
            self._bar = Bar(*columns, console=console, transient=True)
            self._bar.start()
            self._task = self._bar.add_task("compiling", total=self.total)
        return self

    def __exit__(self, *error) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, step: int, losses: dict[str, Any] | None = None) -> None:
        """Moves the bar; `losses` is {task: value, or one value per run}."""
        if self._bar is None:
            return
        text = {} if losses is None else {"description": shown(losses)}
        self._bar.update(self._task, completed=step, **text)


def shown(losses: dict[str, Any]) -> str:
    """Losses of all tasks in one line."""
    if many.is_many(losses):
        return f"losses of {len(losses)} tasks: {many.in_a_line(losses)}"
    return "  ".join(f"{t} {_short(v)}" for t, v in losses.items())


def _short(value: Any) -> str:
    values = [v for v in (value if isinstance(value, list) else [value]) if v is not None]
    return f"{sum(values) / len(values):.4g}" if values else "-"

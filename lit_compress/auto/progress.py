"""What the search is doing: a bar for the moment, a line for everything that is finished."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar


class Progress:
    """One bar over all steps; a step is a route to judge or a session to measure.

    Args:
        bar: Where it is drawn.
    """

    def __init__(self, bar: Bar) -> None:
        self._bar = bar
        self._task = bar.add_task("starting", total=None)

    def expect(self, steps: int) -> None:
        """Begin anew with so many steps."""
        self._bar.reset(self._task, total=max(steps, 1))

    def tell(self, text: str, done: float) -> None:
        """Show what is being done, and how many steps are."""
        self._bar.update(self._task, description=text, completed=done)

    def say(self, text: str) -> None:
        """Print a line that stays, also where the output is no terminal."""
        self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def progress() -> Iterator[Progress]:
    """Show progress while the body runs."""
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Bar(*columns, transient=True, console=Console()) as bar:
        yield Progress(bar)

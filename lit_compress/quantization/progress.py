"""A bar for work on a finished model that takes a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn


@contextmanager
def progress(text: str = "starting") -> Iterator[Any]:
    """Yield what is to be told, while the body runs, what is being done and which share of it, if that is known.

    Args:
        text: What is being done at first.
    """
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, transient=True) as bar:
        task = bar.add_task(text, total=1.0)

        def tell(text: str, share: float | None) -> None:
            bar.update(task, description=text, completed=share or 0.0)

        yield tell

"""Keeps the winner: exports it, or says how to use it where it is the model folder itself."""

from __future__ import annotations

from pathlib import Path

from lit_compress.auto.routes import loads_the_folder

# How to run the model folder in the runtimes that load it as it is.
_USE = {
    "torch-fp32": 'lit_compress.load("{folder}")',
    "torch-bf16": 'lit_compress.load("{folder}").to(torch.bfloat16)',
    "torch-compile": 'torch.compile(lit_compress.load("{folder}"), dynamic=True)',
}


def keep(folder: str, route: str, out: Path, data: str | None, split: str) -> None:
    """Export a model to the route that was chosen, and say where it is.

    Args:
        folder: Model folder.
        route: Name of the runtime.
        out: Folder that the export is put into, under the name of the route.
        data: YAML file with a ``data`` section.
        split: Split of the data.

    Raises:
        ValueError: The export found a difference that the judgement did not.
    """
    if loads_the_folder(route):
        print(f"{route} runs the model folder as it is: {_USE[route].format(folder=folder)}")
        return
    format, precision = route.split("-", 1)
    _export(folder, format, precision, str(out / route), data, split)


def _export(folder: str, format: str, precision: str, out: str, data: str | None, split: str) -> None:
    from lit_compress.export.command import export_folder

    # The quality that the user asked for is judged already, on every row of the split, and so is the time.
    export_folder(folder, format, precision, out, data, split, least_same=0.0, benchmark=False)

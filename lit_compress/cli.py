"""LightningCLI with bare class names, linked labels, a run folder, and errors that say what to do."""

from __future__ import annotations

import inspect
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import lightning.pytorch as pl
from jsonargparse import Namespace
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.exceptions import SIGTERMException

# Every public class is imported so that recipes can name it without its path.
from lit_compress import callbacks, data, models, modules, objectives, pruning
from lit_compress.callbacks import Benchmark, ModelFolder
from lit_compress.callbacks.checkpoint import BestAndLast
from lit_compress.dashboard.login import has_key, offline_by_choice
from lit_compress.errors import check_yaml, suggestion, tidy
from lit_compress.files import write_whole
from lit_compress.quantization.recipe import refuse_quantize_recipes

_CHECKPOINT_NAMES = ("best", "last")
_SECTIONS = (
    "model",
    "data",
    "trainer",
    "checkpoint",
    "benchmark",
    "model_folder",
    "run_dir",
    "seed_everything",
)


class Parser(LightningArgumentParser):
    """Argument parser whose errors are one paragraph that ends with the nearest valid name."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # An abbreviated option is a typo that happens to be a prefix.
        super().__init__(*args, allow_abbrev=False, **kwargs)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print the paragraph and exit with status 2."""
        hint = suggestion(message, _SECTIONS, _option_names(), _class_names())
        sys.stderr.write(f"lit-compress: {tidy(message)} {hint}".rstrip() + "\n")
        sys.exit(2)


class RunConfig(SaveConfigCallback):
    """Write the resolved configuration to ``<run folder>/config.yaml`` at the start of fit."""

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Write the file once, on the first process."""
        if stage != "fit" or not trainer.is_global_zero or self.already_saved:
            return
        self.already_saved = True
        folder = Path(trainer.default_root_dir)
        # Whoever takes this configuration begins a fit of their own, also where this one was resumed.
        config = self.config.clone()
        config.pop("ckpt_path", None)
        write_whole(folder / "config.yaml", self.parser.dump(config, skip_none=False, skip_check=True))


class CompressCLI(LightningCLI):
    """The command line of lit_compress: ``fit``, ``validate``, ``test`` and ``predict``."""

    def __init__(self, args: Sequence[str]) -> None:
        super().__init__(
            modules.CompressionModule,
            pl.LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_callback=RunConfig,
            seed_everything_default=0,
            auto_configure_optimizers=False,
            parser_class=Parser,
            args=list(args),
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the run folder, the callbacks that are always on, and the links from data to model."""
        parser.add_argument(
            "--run_dir",
            type=str,
            default=None,
            help="Folder of everything the run leaves behind; runs/<recipe> where not given.",
        )
        parser.add_lightning_class_args(BestAndLast, "checkpoint")
        parser.set_defaults(
            {
                "checkpoint.filename": "best",
                "checkpoint.mode": "max",
                "checkpoint.save_last": True,
                "checkpoint.save_on_exception": True,
                "checkpoint.enable_version_counter": False,
                "checkpoint.auto_insert_metric_name": False,
            }
        )
        parser.add_lightning_class_args(Benchmark, "benchmark")
        parser.add_lightning_class_args(ModelFolder, "model_folder")
        for name in ("num_labels", "label_names"):
            parser.link_arguments(f"data.{name}", f"model.init_args.{name}", apply_on="instantiate")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse the arguments given; Lightning would warn that they are not those of the process."""
        self.config = parser.parse_args(args)
        _restore_nulls(self.config, args)

    def _parse_ckpt_path(self) -> None:
        """Leave the configuration alone: Lightning would let the checkpoint override the command line."""

    def before_instantiate_classes(self) -> None:
        """Point trainer, checkpoints and loggers at the run folder."""
        config = self.config[self.subcommand]
        recipe = _recipe_name(config)
        run_dir = Path(config.run_dir or f"runs/{recipe}")
        config.run_dir = str(run_dir)
        config.trainer.default_root_dir = str(run_dir)
        if config.checkpoint.dirpath is None:
            config.checkpoint.dirpath = str(run_dir / "checkpoints")
        if "recipe" in config.model.init_args and config.model.init_args.recipe is None:
            config.model.init_args.recipe = recipe
        config.ckpt_path = _checkpoint_path(config.get("ckpt_path"), run_dir, self.subcommand)
        config.trainer.logger = _loggers(config.trainer.logger, run_dir, config)

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        """Build the trainer; checkpoints are selected by the task's main metric unless told otherwise."""
        checkpoint = self._get(self.config_init, "checkpoint")
        if checkpoint.monitor is None:
            checkpoint.monitor = f"val/{self.model.task.monitor}"
        return super().instantiate_trainer(**kwargs)

    def after_fit(self) -> None:
        """Say where things are."""
        if self.trainer.is_global_zero:
            print(f"Run folder: {self.trainer.default_root_dir}")

    def after_validate(self) -> None:
        """Keep the metrics in the run folder."""
        self._write_metrics("validate")

    def after_test(self) -> None:
        """Keep the metrics in the run folder."""
        self._write_metrics("test")

    def _write_metrics(self, verb: str) -> None:
        if not self.trainer.is_global_zero:
            return
        metrics = {k: float(v) for k, v in self.trainer.callback_metrics.items()}
        path = Path(self.trainer.default_root_dir) / f"{verb}_metrics.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(metrics, indent=1) + "\n")


def run(arguments: Sequence[str]) -> int:
    """Run one trainer verb and turn expected failures into one paragraph.

    Returns:
        Exit status: 0 done, 1 refused, 130 interrupted, 143 terminated.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        check_yaml(_config_files(arguments))
        refuse_quantize_recipes(_config_files(arguments), arguments[0])
        CompressCLI(arguments)
    except (ValueError, FileNotFoundError, ImportError, OSError) as error:
        if os.environ.get("LIT_COMPRESS_TRACEBACK"):
            raise
        text = " ".join(str(error).split())
        print(f"lit-compress: {text} (LIT_COMPRESS_TRACEBACK=1 shows where.)", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        # What Lightning did not catch: nothing has run yet.
        print("lit-compress: interrupted before the first step; there is nothing to resume.", file=sys.stderr)
        return 130
    except SIGTERMException:
        # Lightning's exit has no status of its own, and what called would take the fit for finished.
        print("lit-compress: terminated.", file=sys.stderr)
        return 143
    except SystemExit as stop:
        # Lightning has saved last.ckpt and exits with status 1, and what called would take that for a refusal.
        if isinstance(stop.__context__, KeyboardInterrupt):
            return 130
        raise
    return 0


def _config_files(arguments: Sequence[str]) -> list[str]:
    files = []
    for i, word in enumerate(arguments):
        if word in ("-c", "--config") and i + 1 < len(arguments):
            files.append(arguments[i + 1])
        elif word.startswith("--config="):
            files.append(word.removeprefix("--config="))
    return files


def _recipe_name(config: Namespace) -> str:
    """Return ``distil/pkd_skip`` for ``…/recipes/distil/pkd_skip.yaml``; ``unnamed`` without a config."""
    files = [str(path) for path in config.get("config") or []]
    if not files:
        return "unnamed"
    path = Path(files[0])
    parts = path.with_suffix("").parts
    if "recipes" in parts:
        return "/".join(parts[len(parts) - parts[::-1].index("recipes") :])
    return path.stem if path.stem != "config" else path.resolve().parent.name


def _restore_nulls(config: Namespace, args: Sequence[str]) -> None:
    """Put ``None`` where the command line says null for a text inside a part: the parser makes it the text None."""
    for word, after in zip(args, [*args[1:], ""], strict=True):
        key, equals, value = word.partition("=")
        if not key.startswith("--") or (value if equals else after) not in ("null", "~"):
            continue
        place: Any = config[config.subcommand]
        *path, last = key.removeprefix("--").split(".")
        for name in path:
            place = _inside(place, name)
        place = place[-1] if isinstance(place, list) else place
        place = place.get("init_args") or place if isinstance(place, Namespace) else {}
        if place.get(last) == "None":
            place[last] = None


def _inside(place: Any, name: str) -> Any:
    """Return an entry of a part, or of the last part of a list."""
    place = place[-1] if isinstance(place, list) and place else place
    if not isinstance(place, Namespace):
        return place.get(name) if isinstance(place, dict) else None
    return place[name] if name in place else (place.get("init_args") or {}).get(name)


def _checkpoint_path(given: str | None, run_dir: Path, verb: str | None) -> str | None:
    """Resolve ``best``, ``last`` and ``auto`` (last if there, else a fresh start) inside the run folder."""
    if given == "auto" and verb == "fit":
        last = run_dir / "checkpoints" / "last.ckpt"
        return str(last) if last.is_file() else None
    if given is None:
        return None
    if given == "auto":
        raise ValueError(
            f"Expected ckpt_path best, last or a file for {verb} but got auto, which is for fit."
        )
    path = run_dir / "checkpoints" / f"{given}.ckpt" if given in _CHECKPOINT_NAMES else Path(given)
    if not path.is_file():
        raise ValueError(
            f"Expected a checkpoint at {path} (ckpt_path={given}) but there is none; run fit first, or give the path "
            "of a .ckpt file."
        )
    return str(path)


def _loggers(given: Any, run_dir: Path, config: Namespace) -> Any:
    """Return the logger configs with their folders, groups and job types filled in."""
    if given is False:
        return given
    if given in (None, True):
        given = [
            Namespace(class_path="lightning.pytorch.loggers.CSVLogger", init_args=Namespace(save_dir=None))
        ]
    loggers = given if isinstance(given, list) else [given]
    for logger in loggers:
        init = logger.init_args
        if logger.class_path.endswith("CSVLogger"):
            init.save_dir = init.get("save_dir") or str(run_dir)
            init.name = "logs"
        if logger.class_path.endswith("WandbLogger"):
            init.save_dir = str(run_dir)
            run_dir.mkdir(parents=True, exist_ok=True)
            _go_offline_without_a_key(init)
            extra = logger.get("dict_kwargs") or {}
            extra = extra.as_dict() if isinstance(extra, Namespace) else extra
            model = config.model.init_args
            logger.dict_kwargs = {"group": model.get("recipe"), "job_type": model.get("method"), **extra}
            if init.offline:
                # The logger says it by WANDB_MODE, which wandb no longer reads once it was asked for a key.
                logger.dict_kwargs["mode"] = "offline"
    return loggers


def _go_offline_without_a_key(init: Namespace) -> None:
    """Log offline where W&B would ask for a key, or die where nobody can be asked."""
    if not init.offline and not offline_by_choice() and not has_key():
        init.offline = True
        rank_zero_info(
            "W&B: no key is set, so the run is logged offline; wandb sync sends it once there is one."
        )
    if init.log_model and init.offline:
        raise ValueError(
            "Expected log_model=false where W&B logs offline but trainer.logger.init_args.log_model is "
            f"{str(init.log_model).lower()}; leave it out, as the model folder becomes an artifact anyway, or run "
            "wandb login."
        )


def _class_names() -> list[str]:
    packages = (callbacks, data, models, modules, objectives, pruning)
    return sorted({name for package in packages for name in package.__all__})


def _option_names() -> list[str]:
    """Return every name that may stand on the left of a colon in a recipe."""
    names = {*_SECTIONS, "class_path", "init_args", "dict_kwargs", "ckpt_path"}
    classes = [pl.Trainer, ModelCheckpoint, CSVLogger, WandbLogger]
    for package in (callbacks, data, models, modules, objectives, pruning):
        classes += [item for name in package.__all__ if inspect.isclass(item := getattr(package, name))]
    for item in classes:
        names |= inspect.signature(item).parameters.keys()
    return sorted(names - {"self", "args", "kwargs"})


class _ParseOnly(CompressCLI):
    """Parses a configuration and stops before anything is built."""

    def before_instantiate_classes(self) -> None:
        """Leave the configuration as parsed."""

    def instantiate_classes(self) -> None:
        """Build nothing."""

    def _run_subcommand(self, subcommand: str) -> None:
        """Run nothing."""


def validate_recipes(files: Sequence[str]) -> None:
    """Check that the merge of some recipe files parses: keys, types and class names.

    Raises:
        ValueError: A file is missing or not YAML.
        SystemExit: The configuration does not parse; the message has been printed.
    """
    check_yaml(files)
    _ParseOnly(["fit", *(f"--config={file}" for file in files)])

"""What fine-tuning and distillation share: student, task, metrics, optimizer, exact resume."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.core.mixins import hparams_mixin
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torchmetrics import MetricCollection
from transformers import PreTrainedModel

from lit_compress.capture import model_inputs
from lit_compress.models.rebuild import STUDENT, describe_student
from lit_compress.models.student import StudentFactory
from lit_compress.models.transforms import restore, transforms_of
from lit_compress.modules.optim import AdamW, LRSchedule, OptimizerFactory, WarmupLinear, parameter_groups
from lit_compress.modules.random_state import capture_random_state, restore_random_state
from lit_compress.modules.tasks import Classification, Task
from lit_compress.modules.vocabulary import check_embedding
from lit_compress.quantization.stored import refuse_stored

_STAGES = ("val", "test")


def unsaveable_arguments(arguments: Mapping[str, Any]) -> list[str]:
    """Return the constructor arguments that must stay out of a checkpoint.

    Under the command line Lightning stores the configuration, which is plain data. In plain Python
    it would pickle the objects, and such a checkpoint no longer loads with ``weights_only=True``.
    """
    if hparams_mixin._given_hyperparameters.get() is not None:
        return []
    plain = (bool, int, float, str, type(None))
    return [
        name
        for name, value in arguments.items()
        if not isinstance(value, plain)
        and not (isinstance(value, list) and all(isinstance(item, plain) for item in value))
    ]


class CompressionModule(pl.LightningModule):
    """Base of the modules that train a student.

    Args:
        student: Factory of the model, or the model itself.
        task: What to predict and how to judge it.
        optimizer: Optimizer factory.
        schedule: Learning-rate schedule factory.
        num_labels: Outputs of the model; taken from the data where ``None``.
        label_names: Names written into the model's configuration; taken from the data where ``None``.
        freeze: Parts of the student's parameter names that are not trained, such as ``word_embeddings``.
        method: Name of the method in the results table.
        recipe: Name of the recipe in the results table.
    """

    #: Folder or hub name of the teacher, the baseline of the benchmark.
    teacher_source: str | None = None

    def __init__(
        self,
        student: StudentFactory | nn.Module,
        task: Task | None,
        optimizer: OptimizerFactory | None,
        schedule: LRSchedule | None,
        num_labels: int | None,
        label_names: list[str] | None,
        freeze: list[str] | None,
        method: str,
        recipe: str | None,
    ) -> None:
        super().__init__()
        self.task = task or Classification()
        self.optimizer_factory = optimizer or AdamW()
        self.schedule = schedule or WarmupLinear()
        self.num_labels = num_labels
        self.label_names = label_names
        self.freeze_names = list(freeze or [])
        self.method = method
        self.recipe = recipe
        self.student: PreTrainedModel | None = None
        self.metrics = nn.ModuleDict()
        self._student_source = student
        self._random_state: dict[str, Any] | None = None
        self._total_steps: int | None = None

    # -- structure ---------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Build the models before weights are loaded and before the optimizer is made."""
        self._total_steps = None  # another fit may have another length
        self.configure_model()
        if stage == "fit" and self.student is not None:
            refuse_stored(self.student)

    def configure_model(self) -> None:
        """Build the student and the metrics once."""
        if self.student is not None:
            return
        self._take_labels_from_data()
        self.student = self.build_student()
        data = self._data_module()
        if data is not None and hasattr(data, "tokenizer_object"):
            check_embedding(self.student, data.tokenizer_object, "the student", "data.tokenizer")
        self._freeze()
        for stage in _STAGES:
            self.metrics[stage] = self.task.metrics(self._num_labels()).clone(prefix=f"{stage}/")

    def build_student(self) -> PreTrainedModel:
        """Return the model to train, in train mode."""
        if isinstance(self._student_source, nn.Module):
            return self._student_source.train()  # type: ignore[return-value]
        return self._student_source.build(
            self.student_teacher, self._num_labels(), self.label_names, self.task.is_regression
        )

    def _freeze(self) -> None:
        """Take parameters out of training; a word embedding is half of a small encoder's optimizer step."""
        assert self.student is not None
        named = dict(self.student.named_parameters())
        for part in self.freeze_names:
            found = [parameter for name, parameter in named.items() if part in name]
            if not found:
                raise ValueError(
                    f"Expected model.init_args.freeze to match parameters of the student but {part!r} is in no name; "
                    f"the first names are {', '.join(list(named)[:3])}."
                )
            for parameter in found:
                parameter.requires_grad_(False)

    def student_teacher(self) -> PreTrainedModel:
        """Return the model that a student may copy layers from."""
        raise ValueError(
            f"Expected the student factory to name its own source but {type(self).__name__} has no teacher; "
            "set model.init_args.student.init_args.source to a model folder or hub name."
        )

    def _take_labels_from_data(self) -> None:
        data = self._data_module()
        if data is None:
            return
        if data.is_regression != self.task.is_regression:
            kind = "Regression" if data.is_regression else "Classification"
            raise ValueError(
                f"Expected task: {kind} for the labels of the data but got task: {type(self.task).__name__}; "
                f"set model.init_args.task to {kind}."
            )
        if self.num_labels is None:
            self.num_labels = data.num_labels
            self.label_names = self.label_names or data.label_names
            # load_from_checkpoint has no data module to ask.
            self.hparams.update(num_labels=self.num_labels, label_names=self.label_names)
        if self.num_labels != data.num_labels:
            raise ValueError(
                f"Expected num_labels={data.num_labels}, as the data has, but got num_labels={self.num_labels}; "
                "leave model.init_args.num_labels out to take it from the data."
            )

    def _data_module(self) -> Any | None:
        trainer = self._trainer
        data = getattr(trainer, "datamodule", None) if trainer is not None else None
        return data if data is not None and hasattr(data, "num_labels") else None

    def _num_labels(self) -> int:
        if self.num_labels is None:
            raise ValueError(
                "Expected num_labels but got None and no data module to take it from; pass num_labels=… "
                f"to {type(self).__name__}."
            )
        return self.num_labels

    # -- steps -------------------------------------------------------------------------------------

    def forward(self, batch: Mapping[str, Any]) -> Tensor:
        """Return the student's logits ``(batch, num_labels)`` for a batch of the data module."""
        assert self.student is not None
        return self.student(**model_inputs(self.student, batch)).logits

    def validation_step(self, batch: Mapping[str, Any], batch_idx: int) -> None:
        """Update the validation metrics."""
        self._evaluate(batch, "val")

    def test_step(self, batch: Mapping[str, Any], batch_idx: int) -> None:
        """Update the test metrics."""
        self._evaluate(batch, "test")

    def predict_step(self, batch: Mapping[str, Any], batch_idx: int) -> dict[str, Tensor]:
        """Return ``example_id``, ``logits`` and, for classes, ``prediction``."""
        logits = self(batch).float()
        result = {"example_id": batch["example_id"], "logits": logits}
        if not self.task.is_regression:
            result["prediction"] = logits.argmax(-1)
        return result

    def _evaluate(self, batch: Mapping[str, Any], stage: str) -> None:
        self._metrics(stage).update(self(batch), batch["labels"])

    def _metrics(self, stage: str) -> MetricCollection:
        return self.metrics[stage]  # type: ignore[return-value]

    def on_validation_epoch_end(self) -> None:
        """Log the validation metrics."""
        self._log_metrics("val")

    def on_test_epoch_end(self) -> None:
        """Log the test metrics."""
        self._log_metrics("test")

    def _log_metrics(self, stage: str) -> None:
        metrics = self._metrics(stage)
        self.log_dict({name: value.float() for name, value in metrics.compute().items()}, prog_bar=True)
        metrics.reset()

    # -- training ----------------------------------------------------------------------------------

    def on_train_start(self) -> None:
        """Refuse a student that would train without dropout; hand a resumed loader its place."""
        if self.student is None or not self.student.training:
            raise ValueError(
                "Expected the student in train mode at the start of fit but it is in eval mode, as from_pretrained "
                "returns it; call .train() on it before you pass it in."
            )
        # Asking for estimated_stepping_batches builds the loaders before Lightning has read their state from
        # the checkpoint, and it then never hands the state over: a resumed fit would start its epoch again.
        self.trainer.fit_loop._load_combined_loader_states()

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Continue the random numbers of the run that is resumed."""
        if self._random_state is not None:
            restore_random_state(self._random_state)
            self._random_state = None

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the random-number states, what the student is, and what was done to its structure."""
        checkpoint["random_state"] = capture_random_state()
        if self.student is not None:
            checkpoint["transforms"] = transforms_of(self.student)
            checkpoint[STUDENT] = describe_student(self.student)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Give the student the structure of the weights; keep the random-number states for the first step."""
        self._random_state = checkpoint.get("random_state")
        if self.student is not None:
            restore(self.student, checkpoint.get("transforms", []))

    def total_steps(self) -> int:
        """Return the optimizer steps of the whole fit; refuse an endless one."""
        if self._total_steps is not None:
            return self._total_steps
        steps = self.trainer.estimated_stepping_batches
        if steps == float("inf"):
            raise ValueError(
                "Expected a fit with an end but trainer.max_epochs and trainer.max_steps are both -1; schedules "
                "need a length: set one of them."
            )
        self._total_steps = int(steps)
        return self._total_steps

    def trainable_parameters(self) -> list[dict[str, Any]]:
        """Return the parameter groups of the optimizer."""
        assert self.student is not None
        factory = self.optimizer_factory
        return parameter_groups(self.student.named_parameters(), factory.lr, factory.weight_decay)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Build optimizer and step-wise schedule from their factories."""
        optimizer = self.optimizer_factory.build(self.trainable_parameters())
        schedule = self.schedule.build(optimizer, self.total_steps())
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

"""Distillation: a student learns a weighted sum of named objectives from a frozen teacher."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from lit_compress.capture import model_inputs, prepare_capture, run_model
from lit_compress.models.architecture import describe
from lit_compress.models.student import StudentFactory
from lit_compress.models.teacher import CachedTeacher, LiveTeacher, Teacher
from lit_compress.modules.base import CompressionModule, unsaveable_arguments
from lit_compress.modules.optim import LRSchedule, OptimizerFactory, parameter_groups
from lit_compress.modules.progress import progress_of
from lit_compress.modules.tasks import Task
from lit_compress.modules.vocabulary import check_embedding, check_teacher_vocabulary
from lit_compress.objectives import Objective
from lit_compress.outputs import Capture, Outputs


class Distillation(CompressionModule):
    """Train a student on a teacher's outputs.

    The teacher is frozen, in eval mode, never registered as a submodule: it is in no checkpoint, no
    optimizer and no DDP bucket. Objectives whose weight is 0 at a step are not computed.

    Args:
        student: Factory of the student (``LayerSubset``, ``FromConfig``, ``Pretrained``), or a module.
        teacher: The fine-tuned teacher, live or cached; or a module.
        objectives: Named terms of the loss; the names are the log keys ``train/<name>``.
        task: What to predict and how to judge it; ``Classification`` where ``None``.
        optimizer: Optimizer factory; ``AdamW`` where ``None``.
        schedule: Learning-rate schedule; ``WarmupLinear`` where ``None``.
        projection_lr: Learning rate of projections that objectives create; that of the student where ``None``.
        num_labels: Outputs of the model; taken from the data where ``None``.
        label_names: Names of the labels; taken from the data where ``None``.
        freeze: Parts of the student's parameter names that are not trained, such as ``word_embeddings``.
        method: Name of the method in the results table.
        recipe: Name of the recipe in the results table.
    """

    def __init__(
        self,
        student: StudentFactory | nn.Module,
        teacher: Teacher | nn.Module,
        objectives: dict[str, Objective],
        task: Task | None = None,
        optimizer: OptimizerFactory | None = None,
        schedule: LRSchedule | None = None,
        projection_lr: float | None = None,
        num_labels: int | None = None,
        label_names: list[str] | None = None,
        freeze: list[str] | None = None,
        method: str = "distillation",
        recipe: str | None = None,
    ) -> None:
        arguments = {k: v for k, v in locals().items() if k not in ("self", "__class__")}
        super().__init__(student, task, optimizer, schedule, num_labels, label_names, freeze, method, recipe)
        self.save_hyperparameters(ignore=unsaveable_arguments(arguments))
        if not objectives:
            raise ValueError(
                "Expected at least one objective but got none; add e.g. soft: {class_path: SoftTargets}."
            )
        if "loss" in objectives:
            raise ValueError("Expected another name than 'loss' for an objective; train/loss is their sum.")
        self.objectives = nn.ModuleDict(objectives)
        self.projection_lr = projection_lr
        # A module would be registered; a holder object is not.
        self._teacher_spec = teacher if isinstance(teacher, Teacher) else _Holder(teacher)
        self.teacher_source = teacher.model if isinstance(teacher, Teacher) else None
        self._teacher_model: _Holder | None = None
        self._teacher: LiveTeacher | CachedTeacher | None = None

    # -- structure ---------------------------------------------------------------------------------

    def configure_model(self) -> None:
        """Load the teacher, build the student, and bind the objectives to both."""
        if self.student is not None:
            return
        super().configure_model()
        assert self.student is not None
        student, teacher = describe(self.student), describe(self.student_teacher())
        if student.num_labels != teacher.num_labels:
            raise ValueError(
                f"Expected a teacher with the student's {student.num_labels} labels but {self._teacher_name()} has "
                f"{teacher.num_labels}; fine-tune the teacher on the same task, or fix num_labels."
            )
        for name, objective in self._objectives():
            try:
                objective.bind(student, teacher)
            except ValueError as error:
                raise ValueError(f"objectives.{name} ({type(objective).__name__}): {error}") from error
        prepare_capture(self.student, self._capture("student"))

    def student_teacher(self) -> PreTrainedModel:
        """Return the frozen teacher model, loading it once."""
        if self._teacher_model is None:
            spec = self._teacher_spec
            self._teacher_model = _Holder(spec.load() if isinstance(spec, Teacher) else spec.module)
        return self._teacher_model.module

    def setup(self, stage: str) -> None:
        """Build the models and, for fit, make the teacher ready to answer."""
        super().setup(stage)
        if stage == "fit" and self._teacher is None:
            self._refuse_misaligned_tokens()
            self._check_teacher_tokens()
            self._teacher = self._ready_teacher()

    def _ready_teacher(self) -> LiveTeacher | CachedTeacher:
        capture = self._capture("teacher")
        spec = self._teacher_spec
        if isinstance(spec, Teacher) and spec.cache is not None:
            data = self._data_module()
            if data is None:
                raise ValueError(
                    "Expected a data module with stable example ids for teacher.cache but the fit has none; pass "
                    "datamodule=… to trainer.fit or leave teacher.cache out."
                )
            cached = spec.cached(self.student_teacher(), data, capture)
            self._teacher_model = None  # its weights are not needed again
            return cached
        if isinstance(spec, Teacher):
            return spec.live(self.student_teacher(), capture)
        return LiveTeacher(self.student_teacher(), capture)

    def _refuse_misaligned_tokens(self) -> None:
        data = self._data_module()
        if data is None or getattr(data, "teacher_tokenizer_object", None) is None:
            return
        names = [name for name, objective in self._objectives() if objective.aligned_tokens]
        if names:
            raise ValueError(
                f"Expected objectives that compare whole sequences, because data.teacher_tokenizer is set and the "
                f"teacher sees other tokens than the student, but objectives.{', objectives.'.join(names)} compare "
                "token by token; keep SoftTargets, LogitMSE, HardLabels or [CLS]-only objectives."
            )

    def _check_teacher_tokens(self) -> None:
        data = self._data_module()
        if data is None or not hasattr(data, "tokenizer_object"):
            return
        tokenizer, key = data.teacher_tokenizer_object, "data.teacher_tokenizer"
        if tokenizer is None:
            tokenizer, key = data.tokenizer_object, "data.tokenizer"
        check_embedding(self.student_teacher(), tokenizer, self._teacher_name(), key)
        check_teacher_vocabulary(self.teacher_source, tokenizer, key)

    def _capture(self, side: str, names: set[str] | None = None) -> Capture:
        request = Capture()
        for name, objective in self._objectives():
            if names is None or name in names:
                request = request | getattr(objective, f"{side}_capture")
        return request

    def _objectives(self) -> list[tuple[str, Objective]]:
        return list(self.objectives.items())  # type: ignore[arg-type]

    def _teacher_name(self) -> str:
        return self.teacher_source or "the teacher"

    # -- steps -------------------------------------------------------------------------------------

    def on_fit_start(self) -> None:
        """Move a live teacher to the student's device."""
        if self._teacher is not None:
            self._teacher.to(self.device)

    def training_step(self, batch: Mapping[str, Any], batch_idx: int) -> Tensor:
        """Return the weighted sum of the objectives."""
        assert self.student is not None and self._teacher is not None
        active = self._advance(batch_idx)
        student = run_model(self.student, model_inputs(self.student, batch), self._capture("student", active))
        needs_teacher = any(o.needs_teacher for n, o in self._objectives() if n in active)
        teacher = (
            self._teacher.outputs(batch, self._capture("teacher", active)) if needs_teacher else Outputs()
        )
        total = self._touch_idle(student, active)
        for name, objective in self._objectives():
            if name in active:
                loss = objective(student, teacher, batch)
                self.log(f"train/{name}", loss.detach())
                total = total + objective.current_weight * loss
        self.log("train/loss", total.detach(), prog_bar=True)
        return total

    def _advance(self, batch_idx: int) -> set[str]:
        """Move every schedule to this step and return the objectives that count in it."""
        progress = progress_of(self.trainer, self, batch_idx)
        for _, objective in self._objectives():
            objective.advance(progress)
        active = {name for name, objective in self._objectives() if objective.current_weight != 0.0}
        if not active:
            raise ValueError(
                f"Expected at least one objective with a weight at epoch {progress.epoch:.2f} but all are 0; check "
                "the weight schedules under model.init_args.objectives."
            )
        return active

    def _touch_idle(self, student: Outputs, active: set[str]) -> Tensor:
        """Return a zero that reaches every parameter.

        TinyBERT's intermediate stage leaves the head without a gradient, which DDP reports as an
        unused parameter; a zero gradient keeps one and two processes equal.
        """
        assert student.logits is not None
        zero = student.logits.float().sum() * 0.0
        for name, objective in self._objectives():
            if name not in active:
                for parameter in objective.parameters():
                    zero = zero + parameter.float().sum() * 0.0
        return zero

    def trainable_parameters(self) -> list[dict[str, Any]]:
        """Return the groups of the student and, with their own rate, of the projections."""
        factory = self.optimizer_factory
        lr = factory.lr if self.projection_lr is None else self.projection_lr
        projections = parameter_groups(self.objectives.named_parameters(), lr, factory.weight_decay)
        return super().trainable_parameters() + projections


class _Holder:
    """Keeps a frozen module out of the owner's parameters, state dict and ``train()``."""

    def __init__(self, module: nn.Module) -> None:
        self.module: Any = module.eval().requires_grad_(False)

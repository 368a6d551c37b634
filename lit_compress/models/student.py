"""Where a student comes from: layers of the teacher, a smaller configuration, another pretrained model."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedConfig, PreTrainedModel

from lit_compress.models.architecture import block_list
from lit_compress.models.factory import from_pretrained, load_config, set_labels
from lit_compress.models.layers import choose_layers, copy_layers
from lit_compress.models.names import resolve_model
from lit_compress.models.transforms import transforms_of

#: Loads the teacher when it is called, in float32.
TeacherLoader = Callable[[], PreTrainedModel]


class StudentFactory(ABC):
    """Builds a student in train mode with float32 weights."""

    @abstractmethod
    def build(
        self,
        teacher: TeacherLoader | None,
        num_labels: int,
        label_names: list[str] | None = None,
        is_regression: bool = False,
    ) -> PreTrainedModel:
        """Return the student.

        Args:
            teacher: Loads the teacher in float32; called only where the student is made from it.
            num_labels: Outputs of the head; 1 for regression.
            label_names: One name per output.
            is_regression: Whether the head predicts one score.

        Returns:
            The model in train mode; what is new in it is drawn from torch's global generator.

        Raises:
            ValueError: The student cannot be built from this teacher.
        """


class LayerSubset(StudentFactory):
    """Keeps some blocks of the teacher and copies them with the embeddings, the pooler and the head.

    The initialisation of DistilBERT (Sanh et al. 2019, arXiv:1910.01108, section 3) and of PKD
    (Sun et al. 2019, arXiv:1908.09355). The head is copied where its shape fits the task. Of a model that was shrunk
    the blocks keep their sizes.

    Args:
        layers: ``every_other``, ``first_k``, ``last_k``, ``distilbert``, ``uniform``, or an ascending list of
            0-based blocks; see ``lit_compress.models.layers.choose_layers``.
        depth: Blocks of the student, for the rules that need it.
        source: Model to copy from instead of the teacher: local folder, hub name or ``package:NAME``.
    """

    def __init__(
        self, layers: str | list[int] = "every_other", depth: int | None = None, source: str | None = None
    ) -> None:
        self.layers = layers
        self.depth = depth
        self.source = source

    def build(
        self,
        teacher: TeacherLoader | None,
        num_labels: int,
        label_names: list[str] | None = None,
        is_regression: bool = False,
    ) -> PreTrainedModel:
        """Return the student; see ``StudentFactory.build``."""
        if self.source is not None:
            source = from_pretrained(self.source)
        elif teacher is not None:
            source = teacher()
        else:
            raise ValueError(
                "Expected a teacher or a source to take layers from but got neither; "
                "set student.init_args.source to a model folder or hub name."
            )
        chosen = choose_layers(self.layers, self.depth, len(block_list(source)))
        if transforms_of(source):
            return _without_blocks(source, chosen, num_labels, label_names, is_regression)
        config = _copy_config(source.config)
        config.num_hidden_layers = len(chosen)
        set_labels(config, num_labels, label_names, is_regression)
        student = type(source)(config)
        copy_layers(source, student, chosen)
        return student.train()


class FromConfig(StudentFactory):
    """A narrower, shallower or altogether different encoder with random weights.

    Starts from the configuration of the teacher, of ``source``, or from the defaults of ``model_type``;
    whatever is not given stays as it is there, except that a new ``hidden_size`` brings
    ``intermediate_size = 4 · hidden_size``.

    Args:
        source: Model whose configuration to start from (its weights are not read): local folder, hub name
            or ``package:NAME``; the teacher where ``None``.
        num_hidden_layers: Number of blocks.
        hidden_size: Width of the hidden states; a multiple of the number of heads.
        intermediate_size: Width inside the feed-forward layers.
        num_attention_heads: Heads per block.
        vocab_size: Rows of the word embedding; that of the student's tokenizer where it has its own.
        model_type: Family to build with its default configuration, such as ``bert``; excludes ``source``.
    """

    def __init__(
        self,
        source: str | None = None,
        num_hidden_layers: int | None = None,
        hidden_size: int | None = None,
        intermediate_size: int | None = None,
        num_attention_heads: int | None = None,
        vocab_size: int | None = None,
        model_type: str | None = None,
    ) -> None:
        if source is not None and model_type is not None:
            raise ValueError(
                f"Expected source or model_type but got both ({source!r}, {model_type!r}); a source brings "
                "its own family, so leave model_type out."
            )
        self.source = source
        self.model_type = model_type
        if hidden_size is not None and intermediate_size is None:
            intermediate_size = 4 * hidden_size
        sizes = {
            "num_hidden_layers": num_hidden_layers,
            "hidden_size": hidden_size,
            "intermediate_size": intermediate_size,
            "num_attention_heads": num_attention_heads,
            "vocab_size": vocab_size,
        }
        self.sizes = {key: value for key, value in sizes.items() if value is not None}
        wrong = [f"{key}={value}" for key, value in self.sizes.items() if value < 1]
        if wrong:
            raise ValueError(
                f"Expected positive sizes but got {', '.join(wrong)}; give whole numbers from 1 on."
            )

    def build(
        self,
        teacher: TeacherLoader | None,
        num_labels: int,
        label_names: list[str] | None = None,
        is_regression: bool = False,
    ) -> PreTrainedModel:
        """Return the student; see ``StudentFactory.build``."""
        config, build = self._start(teacher)
        for key, value in self.sizes.items():
            # The families name their sizes differently; only some have an alias for each.
            setattr(
                config, _DISTILBERT_NAMES.get(key, key) if config.model_type == "distilbert" else key, value
            )
        if config.hidden_size % config.num_attention_heads:
            raise ValueError(
                f"Expected hidden_size to be a multiple of num_attention_heads but got {config.hidden_size} "
                f"and {config.num_attention_heads}; set both in student.init_args."
            )
        set_labels(config, num_labels, label_names, is_regression)
        return build(config).train()

    def _start(self, teacher: TeacherLoader | None) -> tuple[PreTrainedConfig, Callable[..., Any]]:
        if self.source is not None:
            return _copy_config(
                load_config(resolve_model(self.source))
            ), AutoModelForSequenceClassification.from_config
        if self.model_type is not None:
            return _default_config(self.model_type), AutoModelForSequenceClassification.from_config
        if teacher is None:
            raise ValueError(
                "Expected a configuration to start from but got no teacher, source or model_type; "
                "set student.init_args.source or student.init_args.model_type."
            )
        model = teacher()
        return _copy_config(model.config), type(model)


class Pretrained(StudentFactory):
    """Any other pretrained model, such as one that was already distilled.

    Args:
        name: Local folder, hub name, or ``package:NAME``.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def build(
        self,
        teacher: TeacherLoader | None,
        num_labels: int,
        label_names: list[str] | None = None,
        is_regression: bool = False,
    ) -> PreTrainedModel:
        """Return the student; see ``StudentFactory.build``."""
        return from_pretrained(self.name, num_labels, label_names, is_regression)


def _without_blocks(
    source: PreTrainedModel,
    chosen: list[int],
    num_labels: int,
    label_names: list[str] | None,
    is_regression: bool,
) -> PreTrainedModel:
    """Copy a model whose blocks differ in size, which no configuration builds, and drop the other blocks."""
    # Imported late: pruning imports this package.
    from lit_compress.pruning.depth import drop_blocks

    if source.config.num_labels != num_labels:
        raise ValueError(
            f"Expected a source with a head for {num_labels} labels, because its blocks differ in size and no new head "
            f"can be put on it, but got one for {source.config.num_labels}; take a model of this task."
        )
    student = copy.deepcopy(source).requires_grad_(True)
    paths = {id(module): path for path, module in student.named_modules()}
    drop_blocks(
        student,
        [paths[id(block)] for index, block in enumerate(block_list(student)) if index not in chosen],
    )
    set_labels(student.config, num_labels, label_names, is_regression)
    return student.float().train()


_DISTILBERT_NAMES = {"intermediate_size": "hidden_dim"}


def _copy_config(config: PreTrainedConfig) -> PreTrainedConfig:
    """Copy what belongs to the architecture: not how a running teacher computes attention, nor its dtype."""
    copied = type(config).from_dict(config.to_dict())
    copied.dtype = torch.float32
    return copied


def _default_config(model_type: str) -> PreTrainedConfig:
    try:
        return AutoConfig.for_model(model_type)
    except ValueError as error:
        raise ValueError(
            f"Expected a model_type that transformers knows, such as bert or distilbert, but got "
            f"{model_type!r}; correct it, or name a source."
        ) from error

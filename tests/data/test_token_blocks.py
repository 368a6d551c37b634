"""Text files as blocks of tokens."""

import pytest
import torch
from transformers import AutoTokenizer

from lit_compress.data.token_blocks import token_blocks
from tests.language import text_file
from tests.tiny import tiny_tokenizer


@pytest.fixture
def tokenizer(tmp_path):
    return AutoTokenizer.from_pretrained(tiny_tokenizer(tmp_path / "tokenizer"))


def test_blocks_are_the_text_in_its_order_without_special_tokens(tokenizer, tmp_path):
    path = text_file(tmp_path / "text.txt", 100)
    blocks = token_blocks(path, tokenizer, 7)
    words = (tmp_path / "text.txt").read_text().split()
    assert blocks.shape == (14, 7) and blocks.dtype is torch.int64
    assert tokenizer.convert_ids_to_tokens(blocks.flatten().tolist()) == words[:98]


@pytest.mark.parametrize(
    ("content", "length", "message"),
    [
        (None, 8, "Expected a text file in UTF-8 at .*text.txt but there is none"),
        (b"", 8, "Expected at least one block of 8 tokens in .*text.txt but got 0 tokens"),
        (b"good film", 8, "at least one block of 8 tokens in .* but got 2 tokens"),
        (b"\xff\xfe\x00", 8, "Expected a text file in UTF-8 at .* can't decode"),
        (b"good film", 1, "blocks of at least 2 tokens but got length=1"),
    ],
)
def test_refuses_what_gives_no_block(content, length, message, tokenizer, tmp_path):
    if content is not None:
        (tmp_path / "text.txt").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        token_blocks(tmp_path / "text.txt", tokenizer, length)

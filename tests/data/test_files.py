import json

import datasets
import pytest

from lit_compress.data import Files

TEXTS = ['he said "good"', "a, b; c", "null", "NA", "  spaced ", "Ё 🤗", '"unclosed quote']


def read(path, **options):
    return Files(train=str(path), **options).load("train")


def test_every_format_gives_the_same_rows(tmp_path, write):
    rows = [{"text": text, "label": str(number % 2)} for number, text in enumerate(TEXTS)]
    quoted = [text.replace('"', '""') for text in TEXTS]
    write(
        "a.csv",
        "text,label\n"
        + "".join(f'"{text}",{row["label"]}\n' for text, row in zip(quoted, rows, strict=True)),
    )
    write("a.tsv", "text\tlabel\n" + "".join(f"{row['text']}\t{row['label']}\n" for row in rows))
    write("a.jsonl", rows)
    datasets.Dataset.from_list(rows).to_parquet(tmp_path / "a.parquet")
    for suffix in ("csv", "tsv", "jsonl", "parquet"):
        data = read(tmp_path / f"a.{suffix}")
        assert data["text"] == TEXTS, suffix
        assert data["label"] == ["0", "1", "0", "1", "0", "1", "0"], suffix


def test_quotes_in_tsv_are_plain_characters(write):
    # The trap of the GLUE files: a reader that quotes merges these lines into one row.
    path = write("a.tsv", 'text\tlabel\n"good film\t1\nbad\t0\nfine" he said\t1\n')
    assert read(path)["text"] == ['"good film', "bad", 'fine" he said']


def test_tsv_with_quotes_switched_on(write):
    path = write("a.tsv", 'text\tlabel\n"a ""good""\tfilm"\t1\n')
    assert read(path, quotes=True)["text"] == ['a "good"\tfilm']


def test_quotes_switched_off_keep_doubled_quotes(write):
    path = write("a.tsv", 'text\tlabel\n"a ""good"" film"\t1\n')
    assert read(path, quotes=False)["text"] == ['"a ""good"" film"']


def test_blank_lines_byte_order_mark_and_windows_line_ends(write):
    path = write("a.csv", "\ufefftext,label\r\ngood,1\r\n\r\nbad,0\r\n")
    data = read(path)
    assert data.column_names == ["text", "label"]
    assert data["text"] == ["good", "bad"]


def test_json_strings_may_hold_exotic_line_separators(write):
    path = write("a.jsonl", [{"text": "one\u2028two\x85three"}])
    assert read(path)["text"] == ["one\u2028two\x85three"]


def test_a_key_that_a_json_line_lacks_is_null(write):
    assert read(write("a.jsonl", [{"text": "a", "label": 1}, {"text": "b"}]))["label"] == [1, None]


def test_parquet_keeps_class_names(tmp_path):
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])}
    )
    datasets.Dataset.from_dict({"text": ["a"], "label": [1]}, features=features).to_parquet(
        tmp_path / "a.parquet"
    )
    assert read(tmp_path / "a.parquet").features["label"].names == ["no", "yes"]


def test_fingerprint_follows_the_content_not_the_place(tmp_path, write):
    first = Files(train=str(write("a.tsv", "text\tlabel\na\t1\n")))
    moved = Files(train="b.tsv", folder=str(tmp_path))
    write("b.tsv", "text\tlabel\na\t1\n")
    assert first.fingerprint("train") == moved.fingerprint("train")
    write("b.tsv", "text\tlabel\na\t0\n")
    assert first.fingerprint("train") != moved.fingerprint("train")


def test_a_split_without_file_is_none(write):
    source = Files(train=str(write("a.tsv", "text\tlabel\na\t1\n")))
    assert source.load("validation") is None
    assert source.fingerprint("validation") != source.fingerprint("train")


def refusal(path, **options):
    with pytest.raises(ValueError) as error:
        read(path, **options)
    return str(error.value)


def test_refuses_no_file_at_all():
    with pytest.raises(ValueError, match=r"at least one file but got none; set source.train"):
        Files()


def test_refuses_a_missing_file_and_names_a_close_one(tmp_path, write):
    write("training.tsv", "text\tlabel\n")
    message = refusal(tmp_path / "trainin.tsv")
    assert "trainin.tsv but it does not exist (did you mean training.tsv?)" in message
    assert "source.train or source.folder" in message


def test_refuses_a_missing_folder(tmp_path):
    assert f"nor does the folder {tmp_path / 'gone'}" in refusal(tmp_path / "gone" / "a.tsv")


def test_refuses_an_unknown_suffix(write):
    assert "ends in .csv, .tsv, .jsonl, .parquet but got" in refusal(write("a.txt", "x"))


@pytest.mark.parametrize(
    ("name", "content", "fix"),
    [
        ("a.csv", "text\tlabel\ngood\t1\n", "holds tabs; rename the file to .tsv"),
        ("a.tsv", "text,label\ngood,1\n", "holds commas; rename the file to .csv"),
        ("a.csv", "text;label\ngood;1\n", "holds semicolons; save the file with commas or tabs"),
    ],
)
def test_refuses_the_wrong_delimiter(write, name, content, fix):
    message = refusal(write(name, content))
    assert "but got the single column" in message
    assert fix in message


def test_refuses_an_uneven_line(write):
    message = refusal(write("a.tsv", "text\tlabel\na\t1\nb\tc\t0\n"))
    assert "Expected 2 cells (text, label) in every line" in message
    assert "got 3 in line 3: ['b', 'c', '0']" in message


def test_refuses_a_stray_quote_in_csv(write):
    message = refusal(write("a.csv", 'text,label\n"good film,1\nbad,0\nfine "quoted",1\n'))
    assert "Expected well-formed cells" in message
    assert "set source.quotes to false" in message


def test_refuses_an_unclosed_quote_in_csv(write):
    assert "unexpected end of data" in refusal(write("a.csv", 'text,label\n"good film,1\nbad,0\n'))


@pytest.mark.parametrize("content", ['text\tlabel\n"a ""good"" film"\t1\n', '"text"\t"label"\n"a"\t"1"\n'])
def test_refuses_csv_quoting_in_tsv(write, content):
    message = refusal(write("a.tsv", content))
    assert "csv quoting in" in message
    assert "set source.quotes to true" in message


def test_refuses_a_repeated_column(write):
    assert "different column names" in refusal(write("a.csv", "text,text\na,b\n"))


def test_refuses_an_empty_csv(write):
    assert "Expected a header line and rows" in refusal(write("a.csv", ""))


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_refuses_other_encodings(tmp_path, name):
    content = "text,label\nna\u00efve,1\n" if name == "a.csv" else '{"text": "na\u00efve"}\n'
    (tmp_path / name).write_bytes(content.encode("latin-1"))
    message = refusal(tmp_path / name)
    assert "Expected UTF-8 text" in message
    assert "0xef" in message
    assert "iconv" in message


def test_refuses_a_broken_json_line(write):
    message = refusal(write("a.jsonl", '{"text": "a"}\n\n{"text": \n'))
    assert "line 3 is not JSON" in message


def test_refuses_a_json_list(write):
    assert "Expected a JSON object with column names in line 1" in refusal(
        write("a.jsonl", '[{"text": "a"}]\n')
    )


def test_refuses_an_empty_json_file(write):
    assert "the file is empty; fill it in, or name another file" in refusal(write("a.jsonl", "\n"))


def test_refuses_an_empty_table(write):
    assert "the file is empty; fill it in, or name another file" in refusal(write("a.csv", ""))


def test_refuses_mixed_types_in_a_json_column(write):
    message = refusal(write("a.jsonl", [{"label": 1}, {"label": "one"}]))
    assert "column 'label'" in message
    assert "str 'one' in row 1 after int" in message


def test_refuses_half_a_character_in_json(write):
    message = refusal(write("a.jsonl", json.dumps({"text": "é"}) + "\n" + '{"text": "\\ud83d"}\n'))
    assert "lone surrogate) in row 1" in message


def test_refuses_a_damaged_parquet_file(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"PAR1 is not enough")
    assert "Expected a parquet file" in refusal(tmp_path / "a.parquet")

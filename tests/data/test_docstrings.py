import sys

import pytest

from lit_compress.data import Docstrings, TextClassificationDataModule
from lit_compress.data.docstring_text import comparable, first_paragraphs, name_pattern

ADJECTIVES = ["small", "large", "round", "flat", "heavy", "light", "warm", "cold"]
NOUNS = ["box", "ring", "leaf", "stone", "cloud", "river", "lamp", "door", "chair", "wheel"]


@pytest.fixture
def library(tmp_path, monkeypatch):
    """Install a made-up package below a folder on the path; importing it fails."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def install(name, docstrings, version="1.0"):
        folder = tmp_path / name
        (folder / "sub").mkdir(parents=True, exist_ok=True)
        body = "".join(
            f'def f{i}():\n    """{text}\n\n    More.\n    """\n' for i, text in enumerate(docstrings)
        )
        (folder / "__init__.py").write_text(f"raise RuntimeError('{name} was imported')\n")
        (folder / "sub" / "code.py").write_text(body)
        info = tmp_path / f"{name}-{version}.dist-info"
        info.mkdir(exist_ok=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        return folder

    return install


def sentences(word):
    return [f"Return the {a} {word} of one {noun}." for a in ADJECTIVES for noun in NOUNS]


@pytest.fixture
def two(library, tmp_path):
    library("alphalib", [*sentences("edge"), "This text is in both libraries."])
    library(
        "betalib",
        [*sentences("face"), "This  text is in BOTH libraries!", "Return the small face of one box"],
    )

    def source(**options):
        return Docstrings(["betalib", "alphalib"], cache_dir=str(tmp_path / "cache"), **options)

    return source


def test_first_paragraphs_of_5_to_60_words(tmp_path):
    path = tmp_path / "code.py"
    path.write_text(
        '"""The module docstring has\nfive words.\n\nAnd a second paragraph that is left out."""\n'
        "class A:\n"
        '    """Too few words here."""\n'
        "    if True:\n"
        "        async def f(self):\n"
        '            """A method inside a condition counts too."""\n'
        "            def inner():\n"
        '                """So does a function inside of a function."""\n'
        "try:\n    pass\nexcept Exception:\n"
        "    def g():\n"
        f'        """{"word " * 60}"""\n'
        "    def h():\n"
        f'        """{"word " * 61}"""\n'
        "def signature():\n"
        '    """signature(one, two, three, four, five) -> None"""\n'
        "text = 'not a docstring but a plain string'\n"
    )
    assert sorted(first_paragraphs(path)) == sorted(
        [
            "The module docstring has five words.",
            "A method inside a condition counts too.",
            "So does a function inside of a function.",
            " ".join(["word"] * 60),
        ]
    )


def test_a_file_that_is_not_python_yields_nothing(tmp_path):
    (tmp_path / "template.py").write_text('"""Five words are in here."""\ndef {{ name }}(): pass\n')
    assert list(first_paragraphs(tmp_path / "template.py")) == []


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("A PyTorch module of torch.nn", "A LIB module of LIB.nn"),
        ("An `np.ndarray` or numpy_array", "An `LIB.ndarray` or LIB_array"),
        ("NumPyArray and TorchModel", "LIBArray and LIBModel"),
        ("inputs to a torchestra", "inputs to a torchestra"),
        ("the Hugging Face hub", "the LIB hub"),
    ],
)
def test_names_are_masked(text, masked):
    assert name_pattern(["torch", "numpy", "huggingface_hub"]).sub("LIB", text) == masked


def test_texts_are_compared_by_their_letters():
    assert (
        comparable("Adds 2 rows_and-Columns!")
        == comparable("adds rows and columns")
        == "adds rows and columns"
    )


def test_corpus_is_balanced_deduplicated_and_split(two):
    source = two()
    splits = {split: source.load(split) for split in ("train", "validation", "test")}
    assert {split: len(data) for split, data in splits.items()} == {
        "train": 128,
        "validation": 16,
        "test": 16,
    }
    for data in splits.values():
        assert data["label"].count("alphalib") == data["label"].count("betalib")
    texts = [comparable(text) for data in splits.values() for text in data["text"]]
    assert len(set(texts)) == len(texts) == 160
    assert not any("both libraries" in text for text in texts)
    assert "alphalib" not in sys.modules


def test_labels_belong_to_the_texts(two):
    data = two().load("train")
    assert all(
        ("edge" in text) == (label == "alphalib")
        for text, label in zip(data["text"], data["label"], strict=True)
    )


def test_the_seed_decides_the_splits(two):
    assert two(seed=0).load("test")["text"] == two(seed=0).load("test")["text"]
    assert two(seed=0).load("test")["text"] != two(seed=1).load("test")["text"]


def test_texts_without_labels(two):
    assert two().texts("validation") == two().load("validation")["text"]


def test_the_corpus_is_built_once_per_version(two, library, tmp_path):
    before = two().fingerprint("train")
    two().load("train")
    library("alphalib", sentences("shadow"))
    assert two().load("train")["text"] and two().fingerprint("train") == before
    assert not any("shadow" in text for text in two().texts())
    (tmp_path / "alphalib-1.0.dist-info").rename(tmp_path / "alphalib-2.0.dist-info")
    (tmp_path / "alphalib-2.0.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: alphalib\nVersion: 2.0\n"
    )
    assert two().fingerprint("train") != before
    assert any("shadow" in text for text in two().texts())
    assert sorted(path.name[:11] for path in (tmp_path / "cache").iterdir()) == ["docstrings-"] * 2


def test_a_build_that_dies_leaves_nothing_that_is_used(two, monkeypatch, tmp_path):
    monkeypatch.setattr("lit_compress.data.docstrings.json.dumps", fail := Failing(after=40))
    with pytest.raises(KeyboardInterrupt):
        two().load("train")
    fail.after = None
    assert len(two().load("train")) == 128


class Failing:
    def __init__(self, after):
        self.after, self.calls = after, 0
        self.real = __import__("json").dumps

    def __call__(self, *args, **kwargs):
        self.calls += 1
        if self.after is not None and self.calls > self.after:
            raise KeyboardInterrupt
        return self.real(*args, **kwargs)


def test_real_packages_in_a_data_module(tmp_path, tokenizer_folder):
    source = Docstrings(["rich", "click"], max_per_package=200, cache_dir=str(tmp_path))
    data = TextClassificationDataModule(source, tokenizer_folder, cache_dir=str(tmp_path))
    assert data.label_names == ["click", "rich"]
    assert 200 < len(data.rows("train")) + len(data.rows("validation")) + len(data.rows("test")) <= 400
    assert not any("rich" in text.lower().split() for text in source.texts())


def test_default_packages_are_installed():
    assert len(Docstrings().fingerprint("train")) == 64


@pytest.mark.parametrize("name", ["nosuchpackage", "this", "rich.text"])
def test_refuses_what_is_not_an_installed_package(tmp_path, name):
    source = Docstrings(["rich", name], cache_dir=str(tmp_path))
    with pytest.raises(
        ValueError, match=f"an installed package in source.packages but got '{name}'; install it"
    ):
        source.load("train")


def test_refuses_a_package_without_version(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "loose").mkdir()
    (tmp_path / "loose" / "__init__.py").touch()
    with pytest.raises(
        ValueError, match=r"an installed distribution for the package 'loose'.* has no version"
    ):
        Docstrings(["rich", "loose"], cache_dir=str(tmp_path)).load("train")


@pytest.mark.parametrize("packages", [["rich"], ["rich", "rich"], []])
def test_refuses_fewer_than_two_packages(packages):
    with pytest.raises(ValueError, match=r"at least two different packages in source.packages"):
        Docstrings(packages)


def test_refuses_a_package_with_few_docstrings(library, two, tmp_path):
    library("gammalib", ["Only one text is in here."])
    with pytest.raises(
        ValueError, match="at least 30 docstrings of its own in the package 'gammalib' but got 1"
    ):
        Docstrings(["alphalib", "gammalib"], cache_dir=str(tmp_path)).load("train")


def test_refuses_a_tiny_limit():
    with pytest.raises(ValueError, match=r"source.max_per_package >= 30 but got 5"):
        Docstrings(max_per_package=5)

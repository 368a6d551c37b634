"""Every objective can be written in a recipe, with every kind of value its arguments take."""

import pytest
from jsonargparse import ArgumentParser

from lit_compress import objectives
from lit_compress.objectives import Objective

RECIPES = {
    "HardLabels": "{weight: {class_path: Linear, init_args: {start: 1, end: 0.5}}}",
    "SoftTargets": "{temperature: {class_path: Cosine, init_args: {start: 4, end: 1}}}",
    "LayerMatch": "{teacher_layers: [1, 3]}",
    "LogitMSE": "{weight: 1, preset: paper}",
    "CosineEmbedding": "{reduction: token}",
    "PKD": "{layer_map: [[0, 1], [1, 3]], normalize: false, tokens: all}",
    "TinyBERTEmbedding": "{projection: none}",
    "TinyBERTHidden": "{layer_map: last, preset: reference}",
    "TinyBERTAttention": "{layer_map: [[0, 1]]}",
    "MiniLM": "{teacher_layer: 2}",
    "MiniLMRelations": "{relation_heads: 4, relations: [queries, values]}",
}


def test_the_table_is_complete():
    parts = [getattr(objectives, name) for name in objectives.__all__ if name[0].isupper()]
    names = {part.__name__ for part in parts if issubclass(part, Objective) and part is not Objective}
    assert names == set(RECIPES)


@pytest.mark.parametrize("name", RECIPES)
def test_from_yaml_to_an_object_and_back(name):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--term", type=Objective)
    text = f"term: {{class_path: lit_compress.objectives.{name}, init_args: {RECIPES[name]}}}"
    config = parser.parse_string(text)
    term = parser.instantiate_classes(config).term
    assert type(term) is getattr(objectives, name)
    dumped = parser.dump(config)
    assert parser.dump(parser.parse_string(dumped)) == dumped
    assert all(f"{key}:" in dumped for key in ("weight", "class_path"))


def test_refuses_an_unknown_argument():
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--term", type=Objective)
    text = "term: {class_path: lit_compress.objectives.PKD, init_args: {layermap: skip}}"
    with pytest.raises(Exception, match="layermap"):
        parser.parse_string(text)

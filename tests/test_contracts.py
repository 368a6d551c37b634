"""Contracts of design over the whole catalogue: parts in YAML, their defaults and help, safe checkpoints."""

import inspect
import json

import pytest
import torch
import yaml
from jsonargparse import ArgumentParser

import lit_compress
from lit_compress import callbacks, capture, cli, data, models, modules, objectives, pruning
from lit_compress.modules import Distillation, FineTuning
from tests.catalogue import NOT_IN_RECIPES, PARTS
from tests.runs import arguments

PACKAGES = (callbacks, data, models, modules, objectives, pruning)
PUBLIC = {name: getattr(package, name) for package in PACKAGES for name in package.__all__}
CLASSES = {name: item for name, item in PUBLIC.items() if inspect.isclass(item)}
FUNCTIONS = {
    **{name: item for name, item in PUBLIC.items() if inspect.isfunction(item)},
    "load": lit_compress.load,
    **{
        name: item
        for name, item in vars(capture).items()
        if inspect.isfunction(item) and item.__module__ == capture.__name__ and not name.startswith("_")
    },
}


def test_the_catalogue_is_complete():
    assert CLASSES.keys() == PARTS.keys() | NOT_IN_RECIPES
    assert not PARTS.keys() & NOT_IN_RECIPES
    assert len(FUNCTIONS) >= 10


def test_bare_names_are_unique():
    names = [name for package in PACKAGES for name in package.__all__]
    assert len(names) == len(set(names))


# -- 11: YAML there and back -----------------------------------------------------------------------


def parser_of(name):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--part", type=PARTS[name][0])
    return parser


def without_paths(node):
    """Class paths as bare names, as a recipe writes them."""
    if isinstance(node, dict):
        return {k: v.split(".")[-1] if k == "class_path" else without_paths(v) for k, v in node.items()}
    return node


def contains(whole, part):
    """Whether everything written is in the dump, whatever defaults stand beside it."""
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(k in whole and contains(whole[k], v) for k, v in part.items())
    return whole == part


@pytest.mark.parametrize("name", PARTS)
def test_from_yaml_by_bare_name_and_back(name):
    parser = parser_of(name)
    settings = PARTS[name][1]
    written = {"class_path": name, **({"init_args": settings} if settings else {})}
    config = parser.parse_string(json.dumps({"part": written}))
    built = parser.instantiate_classes(config).part
    assert type(built) is CLASSES[name]
    dumped = parser.dump(config)
    assert contains(without_paths(yaml.safe_load(dumped)["part"]), written)
    again = parser.parse_string(dumped)
    assert again == config
    assert parser.dump(again) == dumped
    assert type(parser.instantiate_classes(again).part) is CLASSES[name]


@pytest.mark.parametrize("name", PARTS)
def test_settings_differ_from_the_defaults(name):
    """A table of defaults would pass the round trip without being read."""
    parameters = inspect.signature(CLASSES[name]).parameters
    for key, value in PARTS[name][1].items():
        assert parameters[key].default != value, key


@pytest.mark.parametrize("name", PARTS)
def test_refuses_a_key_that_no_part_has(name):
    arguments = {**PARTS[name][1], "no_such_key": 1}
    with pytest.raises(Exception, match="no_such_key"):
        parser_of(name).parse_string(json.dumps({"part": {"class_path": name, "init_args": arguments}}))


@pytest.mark.parametrize(
    "base", sorted(NOT_IN_RECIPES & {"Objective", "Schedule", "Score", "StudentFactory", "TextSource"})
)
def test_refuses_a_base_class_as_a_part(base):
    with pytest.raises(TypeError, match="abstract"):
        CLASSES[base]()


def is_primitive(value):
    plain = (type(None), bool, int, float, str)
    return isinstance(value, plain) or (isinstance(value, list) and all(isinstance(v, plain) for v in value))


@pytest.mark.parametrize("name", PARTS)
def test_defaults_are_primitives_and_arguments_have_types_and_help(name):
    for key, parameter in inspect.signature(CLASSES[name]).parameters.items():
        assert parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD), key
        assert parameter.annotation is not parameter.empty, key
        assert parameter.default is parameter.empty or is_primitive(parameter.default), key
    parser = ArgumentParser(exit_on_error=False)
    added = parser.add_class_arguments(CLASSES[name], "part")
    helps = {action.dest: action.help for action in parser._actions if action.dest in added}
    assert helps.keys() == set(added)
    assert len(added) == len(inspect.signature(CLASSES[name]).parameters)
    assert [key for key, text in helps.items() if not text] == []


# -- documentation of what is public ---------------------------------------------------------------


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_have_types_and_docstrings(name):
    function = FUNCTIONS[name]
    signature = inspect.signature(function)
    assert inspect.getdoc(function)
    assert signature.return_annotation is not signature.empty
    assert all(p.annotation is not p.empty for p in signature.parameters.values())
    missing = [p for p in signature.parameters if f"{p}:" not in inspect.getdoc(function)]
    assert not missing or "Args:" not in inspect.getdoc(function), missing


def public_methods():
    for name, item in CLASSES.items():
        for key, member in vars(item).items():
            function = member.fget if isinstance(member, property) else member
            if not key.startswith("_") and inspect.isfunction(function):
                yield pytest.param(getattr(item, key), function, id=f"{name}.{key}")


@pytest.mark.parametrize(("attribute", "function"), public_methods())
def test_methods_have_types_and_docstrings(attribute, function):
    signature = inspect.signature(function)
    assert inspect.getdoc(attribute)  # an overridden method may keep that of its base
    assert signature.return_annotation is not signature.empty
    assert all(p.annotation is not p.empty for p in list(signature.parameters.values())[1:])


def test_methods_of_papers_cite_them():
    papers = {
        "SoftTargets": "1503.02531",
        "CosineEmbedding": "1910.01108",
        "PKD": "1908.09355",
        "TinyBERTEmbedding": "1909.10351",
        "TinyBERTHidden": "1909.10351",
        "TinyBERTAttention": "1909.10351",
        "MiniLM": "2002.10957",
        "MiniLMRelations": "2012.15828",
        "Magnitude": "1506.02626",
        "Taylor": "1905.10650",
        "Fisher": "1801.05787",
        "Movement": "2005.07683",
        "SoftMovement": "2005.07683",
    }
    assert all(number in inspect.getdoc(CLASSES[name]) for name, number in papers.items())


# -- 2: checkpoints are plain data and rebuild what was nested -------------------------------------


@pytest.mark.parametrize(
    ("recipe", "kind"),
    [("distil/tinybert_task", Distillation), ("distil/finetune_baseline", FineTuning)],
)
def test_a_checkpoint_of_the_command_line_rebuilds_its_module(recipe, kind, cli_task, tmp_path):
    wide = ("--model.student=FromConfig", f"--model.student.source={cli_task / 'teacher'}")
    wide += ("--model.student.num_hidden_layers=3", "--model.student.hidden_size=16")
    more = wide if kind is Distillation else ()
    assert cli.run(["fit", *arguments(recipe, cli_task, tmp_path, *more)]) == 0
    path = tmp_path / "checkpoints" / "best.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    module = kind.load_from_checkpoint(path, weights_only=True)
    state = module.state_dict()
    assert state.keys() == checkpoint["state_dict"].keys()
    assert all(torch.equal(state[key], value) for key, value in checkpoint["state_dict"].items())
    assert not [key for key in state if "teacher" in key]
    assert module.num_labels == 2
    assert module.recipe == recipe
    if kind is Distillation:
        assert any("projection" in key for key in state)
        assert type(module.objectives["hidden"].weight).__name__ == "Switch"

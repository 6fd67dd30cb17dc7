"""Constructors stay small, and the command line still reaches what a parent takes."""

import inspect

import pytest
from jsonargparse import ArgumentParser

from llm4sbr import datamodules
from llm4sbr.datamodules import AuthorPickles, ExampleDataModule, SessionDataModule

MODULES = [
    one
    for name in datamodules.__all__
    if isinstance(one := getattr(datamodules, name), type) and issubclass(one, ExampleDataModule)
]


@pytest.mark.parametrize("module", MODULES)
def test_a_class_has_at_most_twelve_arguments_of_its_own(module):
    own = [p for p in inspect.signature(module).parameters.values() if p.kind is not p.VAR_KEYWORD]
    assert len(own) <= 12


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize(
    ("name", "value"), [("batch_size", 7), ("num_workers", 2), ("bucket", 50), ("eval_batch_size", 9)]
)
def test_loading_options_are_flat_in_every_module(module, name, value):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(module, "data")
    needed = ["--data.data_dir", "x"] if module is not ExampleDataModule else []
    made = parser.instantiate_classes(parser.parse_args([*needed, f"--data.{name}", str(value)])).data
    assert getattr(made, name) == value


def test_pickles_take_no_option_that_they_would_ignore():
    """Seen to fail as a child of `SessionDataModule`."""
    with pytest.raises(TypeError, match="sessions"):
        AuthorPickles("x", sessions=None)
    assert not issubclass(AuthorPickles, SessionDataModule)

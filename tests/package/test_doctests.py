"""The examples in the docstrings."""

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import pytest
import torch

import pydl

ROOT = Path(__file__).parents[2]
PACKAGES = (pydl.nn, pydl.functional)
MODULES = [
    "pydl",
    "pydl.array",
    "pydl.swap",
    *(
        f"{package.__name__}.{module.name}"
        for package in PACKAGES
        for module in pkgutil.iter_modules(package.__path__)
    ),
]


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module(name):
    module = importlib.import_module(name)
    names = {"pydl": pydl, "torch": torch}
    assert doctest.testmod(module, extraglobs=names, raise_on_error=False).failed == 0


def test_the_examples_of_a_document():
    text = (ROOT / "docs" / "arrays.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```pycon\n(.*?)```", text, re.DOTALL)
    test = doctest.DocTestParser().get_doctest(example, {}, "arrays.md", None, None)
    assert doctest.DocTestRunner().run(test) == (0, 5)


@pytest.mark.parametrize("name", pydl.nn.__all__)
def test_a_layer_has_an_example(name):
    examples = doctest.DocTestParser().get_examples(getattr(pydl.nn, name).__doc__)
    assert any(f"pydl.nn.{name}" in example.source for example in examples)

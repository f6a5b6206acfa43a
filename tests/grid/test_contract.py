"""The contract is written once: what backends, operators and the extension's structs take is held
to it."""

import importlib
import inspect
import re
from functools import partial
from pathlib import Path

import pytest
import torch

from pydl import backends
from pydl.contract import FAMILIES
from pydl.contract.call import schema_of
from pydl.ops.rnn import Operands

ROOT = Path(__file__).resolve().parents[2]
CALLS = [
    pytest.param(family, name, call, id=name)
    for family, functions in FAMILIES.items()
    for name, call in functions.items()
]
# Two functions of the contract that are one of the extension.
ANOTHER_STRUCT = {
    "BatchNormApply": "BatchNormForward",
    "BatchNormBackward": "BatchNormGradInput",
    "AdaptiveAvgPoolForward": "AdaptivePoolForward",
    "AdaptiveMaxPoolForward": "AdaptivePoolForward",
    "PyramidPoolForward": "AdaptivePoolForward",
    "AdaptiveAvgPoolBackward": "AdaptivePoolBackward",
    "AdaptiveMaxPoolBackward": "AdaptivePoolBackward",
    "PyramidPoolBackward": "AdaptivePoolBackward",
    "NmsKeep": "Nms",
    "DropoutForward": "Dropout",
    "DropoutBackward": "Dropout",
}
# Dropout's struct is of either pass, and its seed a number; an index is one tensor in the struct.
OTHERWISE_NAMED = {"indices": "index", "seed": None}


@pytest.mark.parametrize(("family", "name", "call"), CALLS)
def test_every_backend_takes_the_call_and_nothing_else(family, name, call):
    for backend in backends.serving(family):
        package = backends.BACKENDS[backend].package
        if package == "pydl.kernels":
            pytest.importorskip("triton")
        implementation = getattr(importlib.import_module(f"{package}.{family}"), name)
        *library, argument = inspect.signature(implementation).parameters.values()
        assert (argument.name, argument.annotation) == ("call", call), backend
        assert [one.name for one in library] == ["library"] * (package == "pydl.native"), backend


@pytest.mark.parametrize(("family", "name", "call"), CALLS)
def test_the_operator_has_the_schema_of_the_call(family, name, call):
    assert f"{getattr(torch.ops.pydl, name).default._schema}" == f"pydl::{schema_of(call)}"


def test_a_schema_says_what_a_call_says():
    lrn, pool = FAMILIES["lrn"]["lrn_backward"], FAMILIES["pool"]["max_pool_forward"]
    assert schema_of(lrn) == (
        "lrn_backward(Tensor grad_y, Tensor x, int size, float alpha, float beta, float k, "
        "str backend) -> Tensor"
    )
    assert schema_of(pool) == (
        "max_pool_forward(Tensor x, int[] kernel_size, int[] stride, int[] padding, "
        "int[] dilation, SymInt[] output_size, str index_form, str backend) -> (Tensor, Tensor)"
    )


def _fields(structs: dict[str, str], name: str) -> set[str]:
    """The members of a struct of C++, those of structs in it among them."""
    found: set[str] = set()
    for line in structs[name].split(";"):
        declared = re.fullmatch(r"\s*(?:const )?([\w:]+)\s+(.+)", line.strip(), re.DOTALL)
        if declared is None:
            continue
        kind, members = declared.groups()
        if kind in structs:
            found |= _fields(structs, kind)
        found |= {re.match(r"\s*(\w+)", member)[1] for member in members.split(",")}
    return found


@pytest.mark.parametrize(("family", "name", "call"), CALLS)
def test_the_struct_of_the_extension_has_the_tensors_of_the_call(family, name, call):
    text = re.sub(r"//[^\n]*", "", (ROOT / f"csrc/{family}.h").read_text())
    structs = dict(re.findall(r"struct (\w+) \{(.*?)\n\};", text, re.DOTALL))
    struct = ANOTHER_STRUCT.get(call.__name__, call.__name__)
    tensors = [
        OTHERWISE_NAMED.get(field, field)
        for field, kind in call.__annotations__.items()
        if kind in (torch.Tensor, torch.Tensor | None)
    ]
    if struct == "Dropout":  # x and y of either pass
        tensors = ["x"]
    assert {tensor for tensor in tensors if tensor} <= _fields(structs, struct)


def test_a_result_that_a_backend_shapes_otherwise_is_refused(monkeypatch):
    def wrong(backend: str, name: str):
        return lambda call: call.x.new_empty(call.x.shape[1:])

    monkeypatch.setattr(backends, "implementation", wrong)
    with pytest.raises(AssertionError, match="a backend returned shape"):
        torch.ops.pydl.lrn_forward(torch.zeros(2, 3, 4), 3, 1.0, 0.75, 1.0, "reference")


def test_the_tensors_of_a_recurrent_layer_are_the_first_of_its_call():
    fields = FAMILIES["rnn"]["rnn_forward"]._fields
    assert Operands._fields == fields[: len(Operands._fields)]
    assert fields[len(Operands._fields)] == "cell"


def test_functions_take_the_arguments_one_by_one():
    x = torch.rand(2, 5, 4, 4)
    y = partial(backends.function("cpu", "lrn_forward"), x, 3, 1.0, 0.75)(1.0)
    torch.testing.assert_close(y, torch.nn.functional.local_response_norm(x, 3, 1.0, 0.75, 1.0))

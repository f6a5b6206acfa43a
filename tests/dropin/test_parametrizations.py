"""Layers whose weights something of torch.nn.utils computes, swapped before or after."""

import contextlib
import copy
import pickle

import pytest
import torch
from swaps import MAP, NAMES, inputs, layer, served
from torch.nn import utils
from torch.nn.utils import parametrizations, parametrize, prune

import pydl


def pruned(module, name):
    prune.l1_unstructured(module, name, 0.3)


def identity(module, name):
    """Of the bias as well."""
    for each in (name, name.replace("weight", "bias")):
        prune.identity(module, each)


def pruned_for_good(module, name):
    prune.l1_unstructured(module, name, 0.3)
    module(*(x.double() for x in inputs(type(module).__name__)))
    prune.remove(module, name)


def twice(module, name):
    parametrizations.weight_norm(module, name)
    parametrize.register_parametrization(module, name, torch.nn.Tanh())


def and_removed(apply, remove):
    def both(module, name):
        apply(module, name)
        remove(module, name)

    both.__name__ = f"{apply.__name__}_and_removed"
    return both


OF_ANY = (pruned, identity, pruned_for_good, parametrizations.weight_norm, twice)
OF_MATRICES = (
    utils.weight_norm,
    and_removed(utils.weight_norm, utils.remove_weight_norm),
    utils.spectral_norm,
    and_removed(utils.spectral_norm, utils.remove_spectral_norm),
    parametrizations.spectral_norm,
    parametrizations.orthogonal,
    and_removed(parametrizations.weight_norm, parametrize.remove_parametrizations),
)
WEIGHTS = {name: "weight" for name in NAMES if name.startswith(("Conv", "BatchNorm"))}
WEIGHTS |= dict.fromkeys(("RNN", "LSTM", "GRU"), "weight_hh_l0")
WEIGHTS |= dict.fromkeys(("RNNCell", "LSTMCell", "GRUCell"), "weight_hh")
PARAMETRIZED = [
    pytest.param(name, apply, id=f"{name}-{apply.__name__}")
    for name in WEIGHTS
    for apply in OF_ANY + (() if "Batch" in name else OF_MATRICES)
]


def found(module: torch.nn.Module, *args) -> tuple:
    """What a module gives and its gradients, with each weight computed once per call: torch.nn's
    recurrent layers read one several times, and each time spectral_norm iterates."""
    recurrent = isinstance(module, torch.nn.RNNBase)
    with parametrize.cached() if recurrent else contextlib.nullcontext():
        return served(module, *args)


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("name, apply", PARAMETRIZED)
def test_parametrizations(name, apply):
    """The same layer before and after a swap, and restored; the same keys of state_dict."""
    args, backend = tuple(x.double() for x in inputs(name)), "reference"
    made = {}
    for order in ("stock", "before", "after"):
        torch.manual_seed(7)
        module = made[order] = layer(name).double()
        if order == "after":
            pydl.accelerate(module, backend)
        apply(module, WEIGHTS[name])
        if order == "before":
            pydl.accelerate(module, backend)
    stock = made.pop("stock")
    keys = list(stock.state_dict())
    for _ in range(2):  # the second spectral norm starts at the first's vectors
        expected = found(stock, *args)
        for module in made.values():
            torch.testing.assert_close(found(module, *args), expected)
            assert list(module.state_dict()) == keys and pydl.report(module).swapped
    expected = found(stock, *args)
    for module in made.values():
        pydl.restore(module)
        torch.testing.assert_close(found(module, *args), expected)
        assert list(module.state_dict()) == keys and type(module).__name__ == type(stock).__name__
    if parametrize.is_parametrized(stock):
        parametrize.remove_parametrizations(stock, WEIGHTS[name])
        expected = found(stock, *args)
        for module in made.values():
            pydl.accelerate(module, backend)
            parametrize.remove_parametrizations(module, WEIGHTS[name])
            torch.testing.assert_close(found(module, *args), expected)
            assert type(module) is getattr(torch.nn, name)


def test_a_parametrized_layer_copies_and_refuses_to_be_pickled_as_torch_nns():
    module = pydl.accelerate(parametrizations.weight_norm(torch.nn.Conv2d(4, 6, 3)))
    twin = copy.deepcopy(module)
    torch.testing.assert_close(twin(MAP), module(MAP))
    assert pydl.report(twin).swapped and type(twin) is type(module)
    with pytest.raises(RuntimeError, match="parametrized modules is only supported through state"):
        pickle.dumps(module)
    assert pydl.report(module).swapped

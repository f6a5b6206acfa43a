"""PyTorch's own module inputs, run against the layers of ``pydl.nn``."""

import copy

import pytest
import torch
from contract import hold

pytest.importorskip("expecttest", reason="PyTorch's own test tables need the package expecttest")

from torch.testing._internal.common_modules import module_db

from pydl import nn

# The layers that PyTorch has a table for; a layer here without one has tests of its own.
INFOS = {name: info for info in module_db if (name := info.name.removeprefix("nn.")) in nn.__all__}


def _run(module, arguments, keywords, dtype=None):
    """The output and the gradients of the input and of every parameter."""
    module = copy.deepcopy(module)
    arguments = [
        a.detach().clone().to(dtype or a.dtype).requires_grad_()
        if isinstance(a, torch.Tensor) and a.is_floating_point()
        else a
        for a in arguments
    ]
    module = module.to(dtype) if dtype else module
    results = module(*arguments, **keywords)
    y, *rest = results if isinstance(results, tuple) else (results,)
    wanted = [a for a in arguments if isinstance(a, torch.Tensor) and a.requires_grad]
    wanted += list(module.parameters())
    grad = torch.ones_like(y)
    if "oftmax" in type(module).__name__:  # ones would give it a gradient of rounding errors alone
        grad = torch.arange(y.numel()).cos().bfloat16().to(y).view(y.shape)
    grads = torch.autograd.grad(y, wanted, grad, allow_unused=True)
    return [y.detach(), *rest, *grads]


@pytest.mark.parametrize("training", (True, False), ids=("training", "inference"))
@pytest.mark.parametrize("dtype", (torch.float64, torch.float32, torch.bfloat16), ids=str)
@pytest.mark.parametrize("backend", ("auto", "reference"))
@pytest.mark.parametrize("name", INFOS)
def test_every_input(name, backend, dtype, training):
    info, checked = INFOS[name], 0
    for case in info.module_inputs_func(
        info, device="cpu", dtype=dtype, requires_grad=True, training=training
    ):
        make = case.constructor_input
        theirs = info.module_cls(*make.args, **make.kwargs).to(dtype).train(training)
        ours = getattr(nn, name)(*make.args, **make.kwargs, backend=backend)
        ours = ours.to(dtype).train(training)
        if case.forward_input is None:
            continue
        arguments, keywords = case.forward_input.args, case.forward_input.kwargs
        if isinstance(theirs, torch.nn.modules.lazy.LazyModuleMixin):
            theirs(*arguments, **keywords), ours(*arguments, **keywords)
            assert type(ours) is getattr(nn, name.removeprefix("Lazy"))
        ours.load_state_dict(theirs.state_dict())
        exact = _run(theirs, arguments, keywords, torch.float64)
        try:
            pytorch = _run(theirs, arguments, keywords)
        except NotImplementedError:  # it has no LRN of halves on a CPU
            pytorch = [None] * len(exact)
        results = _run(ours, arguments, keywords), pytorch, exact
        for mine, other, exact in zip(*results, strict=True):
            if exact.is_floating_point():
                hold(mine, other, exact, f"{name}{make.args}{make.kwargs}")
            else:
                assert torch.equal(mine, exact)
        checked += 1
    assert checked

"""PyTorch's own module inputs, run against the layers of ``pydl.nn``."""

import copy

import pytest
import torch
from contract import hold
from torch.utils._pytree import tree_leaves, tree_map_only

pytest.importorskip("expecttest", reason="PyTorch's own test tables need the package expecttest")

from torch.testing._internal.common_modules import module_db

from pydl import nn

# The layers that PyTorch has a table for; a layer here without one has tests of its own.
INFOS = {name: info for info in module_db if (name := info.name.removeprefix("nn.")) in nn.__all__}
# Sequences as short as the table's are PyTorch's own to `auto`, so recurrent layers are also asked
# for by name.
RECURRENT = {
    name: info
    for name, info in INFOS.items()
    if issubclass(info.module_cls, (torch.nn.RNNBase, torch.nn.RNNCellBase))
}
CALLS = [
    *((name, backend) for name in INFOS for backend in ("auto", "reference")),
    *((name, "cpu") for name in RECURRENT),
]


def _run(module, arguments, keywords, dtype=None):
    """The output and the gradients of the input and of every parameter."""
    module = copy.deepcopy(module)

    def leaf(a):
        if not a.is_floating_point():
            return a
        return a.detach().clone().to(dtype or a.dtype).requires_grad_()

    # Packed sequences and pairs of states are trees of tensors, too.
    arguments = tree_map_only(torch.Tensor, leaf, arguments)
    module = module.to(dtype) if dtype else module
    results = module(*arguments, **keywords)
    y, *rest = [r for r in tree_leaves(results) if isinstance(r, torch.Tensor)]
    wanted = [a for a in tree_leaves(arguments) if getattr(a, "requires_grad", False)]
    wanted += list(module.parameters())
    # No ones: a normalisation's gradient of those is nothing but rounding, and softmax's too.
    grad = torch.cos(torch.arange(y.numel(), dtype=torch.float64)).reshape(y.shape).to(y.dtype)
    grads = torch.autograd.grad(y, wanted, grad, allow_unused=True)
    return [y.detach(), *(r.detach() for r in rest), *grads]


def _largest_error(results, exact):
    """Of PyTorch's results, in units of each one's last place: where a number has gone through
    several steps and layers, it is a matter of luck which result of which call meets the
    largest."""
    units = [
        (r.double() - e).abs().max() / e.abs().max() / torch.finfo(r.dtype).eps
        for r, e in zip(results, exact, strict=True)
        if r.dtype not in (torch.float64, torch.int64) and e.numel() and e.any()
    ]
    return max(units).item() if units else 0.0


@pytest.mark.parametrize("training", (True, False), ids=("training", "inference"))
@pytest.mark.parametrize("dtype", (torch.float64, torch.float32, torch.bfloat16), ids=str)
@pytest.mark.parametrize("name, backend", CALLS)
def test_every_input(name, backend, dtype, training):
    info, checked, luck = INFOS[name], [], 0.0
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
        if name in RECURRENT:
            luck = max(luck, _largest_error(pytorch, exact))
        checked += zip(*results, [f"{name}{make.args}{make.kwargs}"] * len(exact), strict=True)
    for mine, other, exact, what in checked:
        if exact.is_floating_point():
            terms = luck * exact.abs().max().item() if exact.numel() else 0.0
            hold(mine, other, exact, what, terms)
        else:
            assert torch.equal(mine, exact)
    assert checked

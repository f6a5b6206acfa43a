"""Gradients of a whole network: where they leave PyTorch's, it is a relu turned by rounding.

A pre-activation within rounding of zero may be positive for one implementation and not for another,
and the whole of its gradient passes or does not: thousands of times what rounding does to a sum.
So whole networks are held to PyTorch's error with smooth activations, each layer inside one with
relu on what it saw there, and what decisions alone do to a gradient is counted.
"""

from collections.abc import Callable

import pytest
import torch
from contract import INSTRUCTION_SETS, hold, instruction_set, laid_out
from torch import nn

import pydl

LAYOUTS = ("contiguous", "channels_last")
# Planes of which a few make up a chunk of the sums, and planes of more than one chunk; neither is a
# whole number of vectors.
SIZES = ((6, 3, 29, 31), (2, 3, 49, 47))
CHANNELS = 24


class Relu(nn.Module):
    """Passes what is positive or, if decisions were given, what they say; keeps what it saw, what
    it took and the gradient that arrived."""

    given: torch.Tensor | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen = x.detach()
        self.taken = x > 0 if self.given is None else self.given
        y = torch.where(self.taken, x, 0)
        y.register_hook(lambda grad_y: setattr(self, "arrived", grad_y))
        return y


def network(layers, activation: Callable[[], nn.Module], **how) -> nn.Sequential:
    """The pattern of the mobile networks, from the layers of ``torch.nn`` or ``pydl.nn``."""
    width = 2 * CHANNELS
    return nn.Sequential(
        nn.Conv2d(3, CHANNELS, 3, stride=2, padding=1, bias=False),
        layers.BatchNorm2d(CHANNELS, **how),
        activation(),
        layers.Conv2d(CHANNELS, CHANNELS, 3, padding=1, groups=CHANNELS, bias=False, **how),
        layers.BatchNorm2d(CHANNELS, **how),
        activation(),
        layers.AvgPool2d(2, **how),
        nn.Conv2d(CHANNELS, width, 1, bias=False),
        layers.BatchNorm2d(width, **how),
        activation(),
    )


def networks(activation: Callable[[], nn.Module]) -> list[nn.Sequential]:
    """Ours, PyTorch's and PyTorch's in float64, with one state."""
    made = [network(pydl.nn, activation, backend="cpu"), network(nn, activation)]
    made.append(network(nn, activation).double())
    state = {
        # Weights and biases other than the ones and zeros that they begin as.
        name: value + torch.randn_like(value) / 8 if value.is_floating_point() else value
        for name, value in made[0].state_dict().items()
    }
    for one in made:
        one.load_state_dict(state)
    return made


def batch(size: tuple[int, ...], layout: str, seed: int = 0) -> torch.Tensor:
    """Random, and the same at each call."""
    return laid_out(torch.randn(size, generator=torch.Generator().manual_seed(seed)), layout)


def gradients(net: nn.Module, x: torch.Tensor, grad_y: torch.Tensor | None = None) -> dict:
    """The result, and the gradients of the input and of every parameter, by name.

    ``grad_y`` is the same random one at each call where none is given.
    """
    x = x.detach().requires_grad_()
    y = net(x)
    if grad_y is None:
        grad_y = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
    named = dict(net.named_parameters())
    grads = torch.autograd.grad(y, [x, *named.values()], grad_y.to(y.dtype))
    return dict(zip(("y", "x", *named), (y.detach(), *grads), strict=True))


def distance(one: dict, other: dict, name: str) -> float:
    return (one[name].double() - other[name].double()).norm().item()


@pytest.mark.native
@pytest.mark.parametrize("isa", INSTRUCTION_SETS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_smooth_network(size, layout, isa):
    """Nothing is decided, and every gradient is as close to float64's as PyTorch's: the errors of
    all layers meet in it, so they are measured by their norms over a few batches."""
    made = networks(nn.Softplus)
    squares = {}
    with instruction_set(isa):
        for seed in range(4):
            x = batch(size, layout, seed)
            seen = x, x, x.double()
            ours, theirs, exact = (gradients(*each) for each in zip(made, seen, strict=True))
            for name in exact:
                of = [distance(one, exact, name) for one in (ours, theirs)]
                of.append(torch.finfo(torch.float32).eps * exact[name].norm().item())
                squares[name] = squares.get(name, 0) + torch.tensor(of) ** 2
    for name, (error, allowed, eps) in ((name, s.sqrt().tolist()) for name, s in squares.items()):
        assert error <= 2 * (allowed + eps), f"{name}: error {error:.3g}, PyTorch's {allowed:.3g}"


@pytest.mark.native
@pytest.mark.parametrize("isa", INSTRUCTION_SETS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_each_layer_on_what_it_saw(size, layout, isa):
    """Inside a network with relu, each layer's own gradients."""
    made = networks(Relu)
    saw = {}

    def keep(layer, inputs, y):
        y.register_hook(lambda grad_y: saw.update({layer: (inputs[0].detach(), grad_y)}))

    hooks = [layer.register_forward_hook(keep) for layer in made[0]]
    with instruction_set(isa):
        gradients(made[0], batch(size, layout))
        for hook in hooks:
            hook.remove()
        for layers in zip(*made, strict=True):
            x, grad_y = saw[layers[0]]
            seen = x, x, x.double()
            # A parameter's gradient is a sum over a map, in which more cancels than remains.
            walk = grad_y.transpose(0, 1).flatten(1).norm(dim=1).max().item()
            ours, theirs, exact = (
                gradients(*each, grad_y) for each in zip(layers, seen, strict=True)
            )
            for name, value in exact.items():
                terms = 0.0 if name in ("y", "x") else walk
                hold(ours[name], theirs[name], value, f"{layers[0]} {name}", terms)


@pytest.mark.native
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_turned_relu_is_the_difference(layout):
    """One element of each channel of the second batch normalisation is brought within rounding of
    zero, where a relu turns about half of them. With our decisions float64 has our gradients; with
    its own, that of the bias differs by the gradients that arrived at what turned and by nothing
    else."""
    x = batch(SIZES[0], layout)
    ours, _, exact = networks(nn.Softplus)
    ours[5], exact[5] = Relu(), Relu()
    gradients(exact, x.double())
    channels = exact[5].seen.transpose(0, 1).flatten(1)
    nearest = channels.gather(1, channels.abs().argmin(1, keepdim=True))[:, 0]
    for net in (ours, exact):
        net[4].bias.data -= nearest

    measured, own = gradients(ours, x), gradients(exact, x.double())
    turned = ours[5].taken != exact[5].taken
    here = turned.any(0).any(1).any(1)
    assert here.any() and not here.all()
    assert exact[5].seen[turned].abs().max() < 1e-5
    error = (measured["4.bias"] - own["4.bias"]).abs()
    assert error[here].max() > 1000 * error[~here].max()

    exact[5].given = ours[5].taken
    forced = gradients(exact, x.double())
    for name in ("x", "0.weight", "1.weight", "1.bias", "3.weight", "4.weight", "4.bias"):
        assert distance(measured, forced, name) < distance(measured, own, name) / 1000, name
    passed = torch.where(ours[5].taken, exact[5].arrived, -exact[5].arrived) * turned
    expected = own["4.bias"] + passed.sum((0, 2, 3))
    torch.testing.assert_close(forced["4.bias"], expected, rtol=0, atol=1e-5)

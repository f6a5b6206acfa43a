"""What torch.func, forward mode and batched derivatives make of a function: the table of transforms
that the tests of functions hold to PyTorch's. Each is called with a function of one tensor, this
tensor, and another one like it."""

import torch
import torch.autograd.forward_ad as forward_ad

func = torch.func


def loss(f):
    return lambda x: f(x).sin().sum()  # of squares normalisations know the sum


def _batch(x, t):
    return torch.stack([x, t, x + t])


def _dual(f, x, t):
    with forward_ad.dual_level():
        return forward_ad.unpack_dual(f(forward_ad.make_dual(x, t))).tangent


def _grads_batched(f, x, t):
    x = x.detach().requires_grad_()
    y = f(x)
    waves = torch.arange(2 * y.numel(), dtype=y.dtype).cos()  # sums to 0 for no normalisation
    directions = waves.reshape(2, *y.shape).to(y.device)
    return torch.autograd.grad(y, x, directions, is_grads_batched=True)[0]


def _double(f, x, t):
    x = x.detach().requires_grad_()
    (first,) = torch.autograd.grad(loss(f)(x), x, create_graph=True)
    return torch.autograd.grad(first.square().sum(), x)[0]


def _pulled_forward(f, x, t):
    y, pull = func.vjp(f, x)
    return func.jvp(lambda u: pull(u)[0], (y,), (torch.ones_like(y),))[1]


def _hvp(f, x, t):
    return func.jvp(func.grad(loss(f)), (x,), (t,))[1]


def _jvp(f, x, t):
    return func.jvp(f, (x,), (t,))[1]


FORWARD = {
    "jvp": _jvp,
    "dual tensors": _dual,
    "linearize": lambda f, x, t: func.linearize(f, x)[1](t),
}
REVERSE = {
    "grad": lambda f, x, t: func.grad(loss(f))(x),
    "grads batched": _grads_batched,
    "double backward": _double,
}
BATCHED = {
    "vmap": lambda f, x, t: func.vmap(f)(_batch(x, t)),
    "vmap of grad": lambda f, x, t: func.vmap(func.grad(loss(f)))(_batch(x, t)),
}
# Nested, along other axes, part by part.
MIXED = {
    "vmap of the last axis": lambda f, x, t: func.vmap(f, in_dims=-1, out_dims=-1)(
        _batch(x, t).movedim(0, -1)
    ),
    "vmap of vmap": lambda f, x, t: func.vmap(func.vmap(f), in_dims=1, out_dims=1)(
        torch.stack([_batch(x, t), _batch(t, x)])
    ),
    "vmap in chunks": lambda f, x, t: func.vmap(f, chunk_size=2)(_batch(x, t)),
    "grad of vmap": lambda f, x, t: func.grad(loss(func.vmap(f)))(_batch(x, t)),
    "jvp of vmap": lambda f, x, t: _jvp(func.vmap(f), _batch(x, t), _batch(t, x)),
    "vmap of jvp": lambda f, x, t: func.vmap(lambda x, t: _jvp(f, x, t))(
        _batch(x, t), _batch(t, x)
    ),
    "grad of jvp": lambda f, x, t: func.grad(loss(lambda x: _jvp(f, x, t)))(x),
    "jvp of grad": _hvp,
    "vmap of jvp of grad": lambda f, x, t: func.vmap(lambda t: _hvp(f, x, t))(_batch(x, t)),
    "jvp of a pull": _pulled_forward,
}
# Too much for a large input.
WHOLE = {
    "jacfwd": lambda f, x, t: func.jacfwd(f)(x),
    "jacrev": lambda f, x, t: func.jacrev(f)(x),
    "jacrev of jacrev": lambda f, x, t: func.jacrev(func.jacrev(loss(f)))(x),
    "hessian": lambda f, x, t: func.hessian(loss(f))(x),
    "functional.hessian": lambda f, x, t: torch.autograd.functional.hessian(
        loss(f), x, vectorize=True
    ),
}
EVERY = FORWARD | REVERSE | BATCHED | MIXED | WHOLE


def normalised(x, weight, bias):
    """Batch normalisation in training by its definition. In second derivatives that go forward
    first PyTorch's operator, as of 2.13, takes the statistics for constants, and is wrong."""
    var, mean = torch.var_mean(x, (0, *range(2, x.ndim)), correction=0, keepdim=True)
    shape = -1, *[1] * (x.ndim - 2)
    return (x - mean) / (var + 1e-5).sqrt() * weight.reshape(shape) + bias.reshape(shape)


def hold(transforms, ours, theirs, x, t, **how):
    """Lets each transform make the same of both functions."""
    for name, transform in transforms.items():
        torch.testing.assert_close(
            transform(ours, x, t),
            transform(theirs, x, t),
            msg=lambda said, name=name: f"{name}: {said}",
            **how,
        )

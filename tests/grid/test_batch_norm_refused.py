"""What batch normalisation refuses, in PyTorch's words, and what its kernels do."""

import pytest
import torch

import pydl
from pydl import backends, functional, native
from pydl.contract.batch_norm import mask as empty_mask

X = torch.randn(2, 3, 4, 4)
STATISTICS = torch.zeros(3), torch.ones(3)


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        (([1.0], None, None), TypeError, "argument 'input' must be Tensor, not list"),
        ((X[0, 0, 0], None, None, None, None, True), RuntimeError, "expected an input"),
        ((X, None, None), RuntimeError, "running_mean must be defined in evaluation mode"),
        ((X, torch.zeros(2), torch.ones(2)), RuntimeError, "should contain 3 elements not 2"),
        ((X, *STATISTICS, torch.ones(4)), RuntimeError, "weight should contain 3 elements not 4"),
        (
            (X, STATISTICS[0].clone().requires_grad_(), STATISTICS[1]),
            RuntimeError,
            "not differentiable with respect to argument 'running_mean'",
        ),
        ((X, *STATISTICS, torch.ones(3, 1)), RuntimeError, "weight should be a vector"),
        ((X, *STATISTICS, None, [0.0]), TypeError, "argument 'bias' must be Tensor"),
        ((X, STATISTICS[0], None, None, None, True), ValueError, "either both be None or neither"),
        ((X, *(s.double() for s in STATISTICS)), RuntimeError, "must share same datatype"),
        ((X.half(), *STATISTICS, torch.ones(3).half()), RuntimeError, "should have one dtype"),
        ((X, *STATISTICS, None, None, False, 0.1, -1.0), ValueError, "must be non-negative"),
        ((X, *STATISTICS, None, None, True, 0.1, 0.0), ValueError, "must be positive"),
        ((X[:1, :, :1, :1], *STATISTICS, None, None, True), ValueError, "more than 1 value"),
        ((X.long(), None, None, None, None, True), RuntimeError, "got torch.int64"),
    ],
)
def test_bad_input(arguments, error, message):
    for backend in ("reference", "cpu"):
        with pytest.raises(error, match=message):
            functional.batch_norm(*arguments, backend=backend)


def test_bad_epilogue():
    for activation in ("silu", "gelu"):
        with pytest.raises(ValueError, match="one of none, relu, leaky_relu"):
            functional.batch_norm_act(X, *STATISTICS, activation=activation)
        with pytest.raises(ValueError, match="one of none, relu, leaky_relu"):
            pydl.nn.BatchNormAct2d(3, activation=activation)
    with pytest.raises(RuntimeError, match="residual should have the input's shape"):
        functional.batch_norm_act(X, *STATISTICS, residual=X[:1])
    with pytest.raises(TypeError, match="'residual' must be Tensor"):
        functional.batch_norm_act(X, *STATISTICS, residual=1.0)


@pytest.mark.native
@pytest.mark.parametrize("name", ("cpu", "cuda"))
def test_what_the_extension_refuses(name):
    row = backends.BACKENDS[name]
    if row.missing is not None:
        pytest.skip(row.missing)
    library, x = native.library(name), X.to(row.devices[0])
    mean, var = (s.to(x.device) for s in STATISTICS)
    y, mask = torch.empty_like(x), empty_mask(x)
    how = 1e-3, "relu", 0.0, False

    def forward(x=x, mean=mean, y=y, mask=mask, how=how):
        library.call("batch_norm_forward", x, mean, var, None, None, None, y, mask, *how, on=x)

    forward()
    for wrong, message in (
        ({"mean": mean[:2]}, "of 3 values"),
        ({"mean": mean.double()}, "of 3 values"),
        ({"y": y[:1]}, "one (dtype|size)"),
        ({"mask": mask[..., :1]}, "mask of"),
        ({"mask": mask.float()}, "mask of"),
        ({"how": (1e-3, "silu", 0.0, False)}, "none, relu and leaky_relu"),
    ):
        with pytest.raises(ValueError, match=message):
            forward(**wrong)
    running = mean.clone(), var.clone(), torch.zeros((), dtype=torch.int64, device=x.device), 0.1
    parts = None if name == "cpu" else torch.empty(2, library.functions.batch_norm_runs(x), 3)

    def train(running):
        maps = x, mean.clone(), var.clone(), None, None, None, y, None
        library.call("batch_norm_train", *maps, *how[:3], *running, parts, on=x)

    train(running)
    for wrong, message in (
        ((mean[:2], *running[1:]), "running statistics of 3"),
        ((mean.long(), *running[1:]), "running statistics of 3"),
        ((running[0], torch.ones(6)[::2], *running[2:]), "running statistics of 3"),
        ((running[0], None, *running[2:]), "both running statistics"),
        ((running[0], var.double(), *running[2:]), "both running statistics"),
        ((*running[:2], mean, 0.1), "one number of int64"),
        ((*running[:2], None, None), "a momentum or num_batches_tracked"),
    ):
        with pytest.raises(ValueError, match=message):
            train(wrong)
    grads = (x, x, mean, var, None, None, mean, None, y, None, 32.0, *how)
    with pytest.raises(ValueError, match="both sums or neither"):
        library.call("batch_norm_grad_input", *grads, on=x)
    grads = (x, x, mean, var, None, None, None, None, y, None, 32.0, *how)
    with pytest.raises(ValueError, match="mask"):
        library.call("batch_norm_grad_input", *grads, on=x)


@pytest.mark.parametrize("backend", (None, "aten", "cpu", "reference"))
def test_a_batch_that_is_refused_is_counted_as_by_pytorch(backend) -> None:
    counts = []
    for layer in (torch.nn.BatchNorm1d(3), pydl.nn.BatchNorm1d(3, backend=backend)):
        layer(torch.randn(2, 3))
        for _ in range(3):
            with pytest.raises(ValueError, match="more than 1 value per channel"):
                layer(torch.randn(1, 3))
        counts.append(int(layer.num_batches_tracked))
    assert counts == [4, 4]


def test_a_momentum_is_a_number() -> None:
    for backend in ("aten", "cpu"):
        with pytest.raises(TypeError, match="momentum"):
            functional.batch_norm(X, *STATISTICS, training=True, momentum=None, backend=backend)

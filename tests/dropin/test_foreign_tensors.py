"""Tensors that are more than dense memory: ``auto`` gives them to PyTorch, as stock does, and a
kernel asked for by name refuses them in words."""

import pytest
import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor
from torch.utils._pytree import tree_map

import pydl

MAP = (2, 8, 128, 128)  # large enough for the kernels here


class Tagged(torch.Tensor):
    """A subclass that stays one through torch's functions."""


class Wrapped(torch.Tensor):
    """A subclass without memory of its own."""

    @staticmethod
    def __new__(cls, inner):
        return torch.Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype)

    def __init__(self, inner):
        self.inner = inner

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        def unwrapped(x):
            return x.inner if isinstance(x, Wrapped) else x

        result = function(*tree_map(unwrapped, args), **tree_map(unwrapped, kwargs or {}))
        return tree_map(lambda y: Wrapped(y) if isinstance(y, torch.Tensor) else y, result)


CALLS = {
    "max_pool2d": lambda f, x: f.max_pool2d(x, 2),
    "avg_pool2d": lambda f, x: f.avg_pool2d(x, 2),
    "lp_pool2d": lambda f, x: f.lp_pool2d(x, 2.0, 2),
    "adaptive_avg_pool2d": lambda f, x: f.adaptive_avg_pool2d(x, 5),
    "adaptive_max_pool2d": lambda f, x: f.adaptive_max_pool2d(x, 5),
    "local_response_norm": lambda f, x: f.local_response_norm(x, 3),
    "batch_norm": lambda f, x: f.batch_norm(x, torch.zeros(8), torch.ones(8)),
    "relu": lambda f, x: f.relu(x),
    "leaky_relu": lambda f, x: f.leaky_relu(x),
    "softmax": lambda f, x: f.softmax(x, -1),
    "log_softmax": lambda f, x: f.log_softmax(x, -1),
    "dropout": lambda f, x: f.dropout(x, 0.0),
    "conv2d": lambda f, x: f.conv2d(x, torch.ones(8, 1, 3, 3), groups=8),
}
FOREIGN = {
    "a subclass": lambda x: x.as_subclass(Tagged),
    "a wrapper": Wrapped,
    "sparse": lambda x: x.relu().to_sparse(),
    "quantised": lambda x: torch.quantize_per_tensor(x, 0.05, 64, torch.quint8),
    "nested": lambda x: torch.nested.nested_tensor([x[0, 0], x[1, 0, :5]], layout=torch.jagged),
    "integers": lambda x: (4 * x).long(),
    "complex": lambda x: torch.complex(x, x),
    "boolean": lambda x: x > 0,
}


def outcome(call, f, x):
    try:
        y = call(f, x)
    except Exception as error:
        return type(error), None
    plain = y.inner if isinstance(y, Wrapped) else y
    plain = plain.dequantize() if plain.is_quantized else plain
    plain = plain.values() if plain.is_nested else plain
    plain = plain.to_dense() if plain.is_sparse else plain
    return type(y), plain.as_subclass(torch.Tensor)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("kind", FOREIGN)
@pytest.mark.filterwarnings("ignore")
def test_auto_is_stock(call, kind):
    x = FOREIGN[kind](torch.randn(MAP))
    mine, y = outcome(CALLS[call], pydl.functional, x)
    stock, expected = outcome(CALLS[call], torch.nn.functional, x)
    assert mine is stock
    if expected is not None:
        torch.testing.assert_close(y, expected)


@pytest.mark.parametrize("kind", FOREIGN)
@pytest.mark.filterwarnings("ignore")
def test_a_kernel_asked_for_refuses(kind):
    x = FOREIGN[kind](torch.randn(MAP))
    with pytest.raises(RuntimeError, match="backend 'cpu' serves"):
        pydl.functional.relu(x, backend="cpu")


def test_distributed_tensors(tmp_path):
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1
    )
    try:
        mesh = init_device_mesh("cpu", (1,))
        whole = torch.randn(MAP)
        x = distribute_tensor(whole, mesh, [Shard(0)])
        for call in ("relu", "max_pool2d", "softmax"):
            y = CALLS[call](pydl.functional, x)
            assert isinstance(y, DTensor)
            torch.testing.assert_close(y.full_tensor(), CALLS[call](torch.nn.functional, whole))
        with pytest.raises(
            RuntimeError, match=r"got its subclass torch\.distributed\.tensor\.DTensor"
        ):
            pydl.functional.relu(x, backend="cpu")
    finally:
        torch.distributed.destroy_process_group()

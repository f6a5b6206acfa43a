"""What PyTorch does with whole models, done with accelerated and with fused ones: training beside a
scaler, checkpointed, in two processes, by threads; graphs, and back.

The models are so small that PyTorch itself would serve them, so the native kernels are asked for by
name, wherever they serve.
"""

import copy
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from fusible import image, made
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint, set_checkpoint_early_stop
from two_processes import in_two

import pydl

either = pytest.mark.parametrize("fuse", (False, True), ids=("swapped", "fused"))

STEPS = 5


def accelerated(name: str, fuse: bool) -> nn.Module:
    return pydl.accelerate(made(name), fuse=fuse)


def native():
    """The native kernels for what they serve, PyTorch's for the rest."""
    return pydl.use_backend("cpu", strict=False)


def batches(count: int = STEPS) -> list[torch.Tensor]:
    torch.manual_seed(3)
    return [torch.randn(4, 4, 12, 12) for _ in range(count)]


def train(model: nn.Module, loss: Callable = lambda y: y.square().mean()) -> None:
    """Five steps of gradient descent."""
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    for x in batches():
        optimizer.zero_grad()
        loss(model(x)).backward()
        optimizer.step()


def state(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def alike(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    """After a few steps of training in float32."""
    assert list(ours) == list(theirs)
    for name, one in ours.items():
        torch.testing.assert_close(one, theirs[name], rtol=2e-3, atol=2e-4, msg=name)


@either
def test_the_native_kernels_serve(fuse):
    """Or the tests here would be of PyTorch alone."""
    model = accelerated("nested", fuse)
    with native(), torch.profiler.profile() as seen:
        train(model)
    assert any("(cpu)" in event.key for event in seen.key_averages())


def scaled(model: nn.Module) -> float:
    """Trains with a scale that is too large at first, so that steps are left out."""
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**125, backoff_factor=2.0**-40)
    optimizer = torch.optim.SGD(model.parameters(), 0.002, momentum=0.9)
    for x in batches():
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(x).float().square().sum()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
    return scaler.get_scale()


@either
def test_gradients_are_scaled(fuse):
    model, stock = accelerated("nested", fuse).train(), made("nested").train()
    with native():
        scale = scaled(model)
    assert scale == scaled(stock) < 2.0**125
    for name, one in state(model).items():
        torch.testing.assert_close(one, state(stock)[name], rtol=0.01, atol=0.005, msg=name)


class Checkpointed(nn.Module):
    """Computes its model again in the backward pass, instead of keeping what it saved, and to the
    end: else the statistics of a last normalisation move once with ours, twice with PyTorch's."""

    def __init__(self, model: nn.Module, reentrant: bool) -> None:
        super().__init__()
        self.model, self.reentrant = model, reentrant

    def forward(self, x):
        with set_checkpoint_early_stop(False):
            return checkpoint(self.model, x.requires_grad_(), use_reentrant=self.reentrant)


@either
@pytest.mark.parametrize("reentrant", (False, True))
def test_activations_are_computed_again(fuse, reentrant):
    model = Checkpointed(accelerated("nested", fuse), reentrant)
    stock = Checkpointed(made("nested"), reentrant)
    with native():
        train(model)
    train(stock)
    alike(state(model), state(stock))


def parallel(rank: int) -> dict:
    """What one of two processes does: to start them takes longer."""
    mesh = torch.distributed.init_device_mesh("cpu", (2,))

    def sharded(model: nn.Module) -> nn.Module:
        for block in list(model)[1:]:
            fully_shard(block, mesh=mesh)
        return fully_shard(model, mesh=mesh)

    def whole(model: nn.Module) -> dict[str, torch.Tensor]:
        tensors = model.state_dict()
        full = {k: v.full_tensor() if isinstance(v, DTensor) else v for k, v in tensors.items()}
        return {name: tensor.detach().numpy() for name, tensor in full.items()}

    def loss(y: torch.Tensor) -> torch.Tensor:
        return y[rank::2].square().mean()  # each process has its half of the batch

    done = {}
    for name, wrapped in (("DDP", DistributedDataParallel), ("FSDP", sharded)):
        for fuse in (False, True):
            model, stock = wrapped(accelerated("nested", fuse)), wrapped(made("nested"))
            with native():
                train(model, loss)
            train(stock, loss)
            done[name, fuse] = whole(model), whole(stock)
    return done


def test_two_processes():
    found = [pair for of_rank in in_two(parallel) for pair in of_rank.values()]
    assert len(found) == 8
    before = state(made("nested"))
    for ours, theirs in found:
        alike(*({k: torch.from_numpy(v) for k, v in one.items()} for one in (ours, theirs)))
        first = next(iter(ours.values()))
        assert abs(first - next(iter(before.values())).numpy()).max() > 1e-4, "nothing was learned"


def answers(model: nn.Module, pipe) -> None:
    torch.set_num_threads(1)
    with torch.no_grad(), native():
        pipe.send(model(image("nested")).numpy())


@either
@pytest.mark.parametrize("method", ("fork", "spawn"))
def test_other_processes_answer_alike(fuse, method):
    model = accelerated("nested", fuse).eval()
    with torch.no_grad(), native():
        expected = model(image("nested"))
    context = multiprocessing.get_context(method)
    ours, theirs = context.Pipe()
    process = context.Process(target=answers, args=(model, theirs))
    process.start()
    assert ours.poll(60), "the other process does not answer"
    torch.testing.assert_close(torch.from_numpy(ours.recv()), expected)
    process.join()
    assert process.exitcode == 0


@either
def test_eight_threads_at_once(fuse):
    model = accelerated("nested", fuse).eval()
    images = batches(32)

    def gradients(x: torch.Tensor) -> list[torch.Tensor]:
        x = x.clone().requires_grad_()
        with native():
            y = model(x)
            return [y.detach(), *torch.autograd.grad(y.sum(), [x, *model.parameters()])]

    expected = [gradients(x) for x in images]
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(gradients, images))
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


@either
def test_a_batch_that_changes_is_compiled_twice_at_most(fuse):
    model, stock = accelerated("nested", fuse).eval(), made("nested").eval()
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(model, backend=counter, fullgraph=True)
    with torch.no_grad():
        for batch in (2, 3, 5, 8, 13):
            x = torch.randn(batch, 4, 12, 12)
            torch.testing.assert_close(compiled(x), stock(x), rtol=1e-4, atol=1e-5)
    assert counter.frame_count <= 2


@either
def test_inductor_compiles_forward_and_backward(fuse):
    model, stock = accelerated("nested", fuse), made("nested")
    compiled = torch.compile(model, fullgraph=True)
    with native():
        train(compiled)
    train(stock)
    alike(state(model), state(stock))


@either
def test_it_is_exported_and_loaded(fuse, tmp_path):
    model, stock = accelerated("nested", fuse).eval(), made("nested").eval()
    batch = torch.export.Dim("batch", min=2, max=64)
    with native():
        program = torch.export.export(model, (image("nested"),), dynamic_shapes=({0: batch},))
    assert any("pydl" in str(node.target) for node in program.graph.nodes)
    torch.export.save(program, tmp_path / "model.pt2")
    loaded = torch.export.load(tmp_path / "model.pt2").module()
    x = torch.randn(7, 4, 12, 12)
    with torch.no_grad():
        torch.testing.assert_close(loaded(x), stock(x), rtol=1e-4, atol=1e-5)


def test_it_is_compiled_ahead_of_time(tmp_path):
    model, x = accelerated("pooled", fuse=True).eval(), image("pooled")
    with native():
        program = torch.export.export(model, (x,))
    assert any("pydl" in str(node.target) for node in program.graph.nodes)
    file = str(tmp_path / "model.pt2")
    torch._inductor.aoti_compile_and_package(program, package_path=file)
    with torch.no_grad():
        found = torch._inductor.aoti_load_package(file)(x)
        torch.testing.assert_close(found, made("pooled").eval()(x), rtol=1e-4, atol=1e-5)


class LowRank(nn.Module):
    """A convolution that stays as it is beside two narrow ones that learn: Hu et al. 2021, LoRA."""

    def __init__(self, base: nn.Conv2d, rank: int = 2) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.down = nn.Conv2d(base.in_channels, rank, base.kernel_size, base.stride, base.padding)
        self.up = nn.Conv2d(rank, base.out_channels, 1)
        nn.init.constant_(self.down.weight, 0.05)
        nn.init.constant_(self.up.weight, 0.1)

    def forward(self, x):
        return self.base(x) + self.up(self.down(x))


def wrapped(model: nn.Module) -> nn.Module:
    torch.manual_seed(4)
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Conv2d) and not isinstance(parent, LowRank):
                setattr(parent, name, LowRank(child))
    return model


@either
@pytest.mark.parametrize("first", ("wrapped", "accelerated"))
def test_layers_are_wrapped(fuse, first):
    """As packages for fine-tuning do: layers are replaced by modules that hold them."""
    stock = wrapped(made("nested"))
    if first == "wrapped":
        model = pydl.accelerate(wrapped(made("nested")), fuse=fuse)
    else:
        model = wrapped(accelerated("nested", fuse))
    with native():
        train(model)
    train(stock)
    alike(state(model), state(stock))
    assert torch.equal(
        dict(model.named_parameters())["0.0.0.base.weight"], made("nested")[0][0][0].weight
    )


@either
def test_a_copy_learns_by_itself(fuse):
    model = accelerated("nested", fuse)
    before, copied = state(model), copy.deepcopy(model)
    with native():
        train(copied)
    alike(state(model), before)
    stock = made("nested")
    train(stock)
    alike(state(copied), state(stock))

"""Batch normalisation over the batches of two processes, which talk over gloo."""

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from two_processes import in_two

import pydl


def model_of(backend: str | None) -> nn.Module:
    torch.manual_seed(5)
    return nn.Sequential(
        pydl.nn.BatchNorm2d(3, backend=backend),
        nn.Conv2d(3, 4, 3),
        pydl.nn.BatchNorm2d(4, momentum=None, backend=backend),
        nn.ReLU(),
    ).double()


def joined(step: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(100 + step)
    return torch.randn(5, 3, 6, 7, generator=generator, dtype=torch.float64) * 3 + 10


def own_share(rank: int, shares: list[int], step: int) -> torch.Tensor:
    first = sum(shares[:rank])
    return joined(step)[first : first + shares[rank]]


def state_of(model: nn.Module) -> dict:
    return {name: tensor.numpy() for name, tensor in model.state_dict().items()}


def check_states(states: list[dict], expected: nn.Module) -> None:
    """Each process's state is the expected one, and all are the same to the bit."""
    for state in states:
        found = {name: torch.from_numpy(array) for name, array in state.items()}
        torch.testing.assert_close(found, dict(expected.state_dict()), rtol=1e-9, atol=1e-9)
        assert all((array == states[0][name]).all() for name, array in state.items())


# How the batch of five is shared out, and who serves.
SHARED = {
    "unequal": ([2, 3], "cpu"),
    "auto": ([1, 4], None),
    "an empty share": ([5, 0], "reference"),
}


def two_steps(rank: int, shares: list[int], backend: str | None) -> tuple:
    """Outputs and gradients of the share of a process, and its state afterwards."""
    model = pydl.nn.SyncBatchNorm.convert_sync_batchnorm(model_of(backend))
    seen = []
    for step in range(2):
        x = own_share(rank, shares, step).requires_grad_()
        y = model(x)
        grads = torch.autograd.grad((y * y).sum(), [x, *model.parameters()])
        seen.append([t.detach().numpy() for t in (y, *grads)])
    return seen, state_of(model)


def train(model: nn.Module, batches: list[torch.Tensor], times: int = 1) -> list:
    """Steps of gradient descent on the sum of squares, ``times`` over; the gradients of each."""
    optimizer = torch.optim.SGD(model.parameters(), 1e-4, momentum=0.9)
    grads = []
    for x in batches:
        optimizer.zero_grad()
        (times * model(x).square().sum()).backward()
        optimizer.step()
        grads.append([parameter.grad.clone() for parameter in model.parameters()])
    return grads


def train_in_parallel(
    rank: int, shares: list[int], backend: str | None, broadcast_buffers: bool
) -> tuple:
    model = pydl.nn.SyncBatchNorm.convert_sync_batchnorm(model_of(backend))
    parallel = DistributedDataParallel(model, broadcast_buffers=broadcast_buffers)
    batches = [own_share(rank, shares, step) for step in range(3)]
    # The gradients are averaged over the processes, so each one's loss counts for all.
    grads = train(parallel, batches, times=len(shares))
    return [[grad.numpy() for grad in step] for step in grads], state_of(model)


# Whether process 0 tells the others its running statistics before each step.
BUFFERS = {"broadcast": True, "each its own": False}


def work(rank: int) -> dict:
    """All that one of two processes does: to start them takes longer."""
    done = {}
    for name, (shares, backend) in SHARED.items():
        done["two steps", name] = two_steps(rank, shares, backend)
        for buffers, broadcast in BUFFERS.items():
            done[buffers, name] = train_in_parallel(rank, shares, backend, broadcast)
    return done


@pytest.fixture(scope="module")
def results() -> list[dict]:
    """What each of the two processes found."""
    return in_two(work)


@pytest.mark.parametrize("shared", SHARED)
def test_two_processes_are_one_with_the_joined_batch(results, shared):
    results = [of_rank["two steps", shared] for of_rank in results]
    model = model_of("reference")
    for step in range(2):
        x = joined(step).requires_grad_()
        y = model(x)
        grads = torch.autograd.grad((y * y).sum(), [x, *model.parameters()])
        parts = [[torch.from_numpy(t) for t in seen[step]] for seen, _ in results]
        for i, whole in enumerate((y.detach(), *grads)):
            shared = parts[0][i], parts[1][i]
            # Maps are shared out; each process has the parameters' gradients of its share.
            found = torch.cat(shared) if i < 2 else shared[0] + shared[1]
            torch.testing.assert_close(found, whole, rtol=1e-9, atol=1e-9)
    check_states([state for _, state in results], model)


@pytest.mark.parametrize("shared", SHARED)
@pytest.mark.parametrize("buffers", BUFFERS)
def test_distributed_data_parallel_is_one_process_with_the_whole_batch(results, shared, buffers):
    results = [of_rank[buffers, shared] for of_rank in results]
    model = nn.Sequential(
        nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, momentum=None), nn.ReLU()
    ).double()
    model.load_state_dict(model_of(None).state_dict())
    expected = train(model, [joined(step) for step in range(3)])
    for grads, _ in results:
        found = [[torch.from_numpy(grad) for grad in step] for step in grads]
        torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-8)
    check_states([state for _, state in results], model)

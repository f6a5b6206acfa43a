"""Several processes that train one model: who they are, what each reads, what they exchange.

Without a process group every function here does what one process needs.
"""

import os
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.utils.data import DataLoader, IterableDataset, Sampler


def join(device: torch.device) -> None:
    """Under torchrun, joins the others unless the program has done so."""
    if not dist.is_available() or not dist.is_torchelastic_launched() or dist.is_initialized():
        return
    backend = "nccl" if device.type == "cuda" else "gloo"
    if os.environ["LOCAL_WORLD_SIZE"] != os.environ["WORLD_SIZE"]:
        dist.init_process_group(backend)
        return
    # After a restart the agent's store still has the addresses of processes that are dead. (The
    # count of restarts is the same for all on one machine; each machine's agent has its own.)
    store, rank, size = next(dist.rendezvous("env://"))
    store = dist.PrefixStore(f"restart {os.environ['TORCHELASTIC_RESTART_COUNT']}", store)
    dist.init_process_group(backend, store=store, rank=rank, world_size=size)


def _joined() -> bool:
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """The number of this process."""
    return dist.get_rank() if _joined() else 0


def processes() -> int:
    """How many there are."""
    return dist.get_world_size() if _joined() else 1


class Shard(Sampler[Any]):
    """Every ``of``-th element of a sampler, from the ``which``-th.

    All processes draw the same order and share it out in turn: the batches of one step, together,
    are the batch that one process would have drawn.

    Args:
        whole: draws the same in every process.
        even: as many elements for each process, the first ones again where some are wanting.
    """

    def __init__(self, whole: Any, which: int, of: int, even: bool) -> None:
        self.whole, self.which, self.of, self.even = whole, which, of, even

    def __iter__(self) -> Iterator[Any]:
        if not self.even:
            yield from islice(self.whole, self.which, None, self.of)
            return
        order = list(self.whole)
        yield from islice(cycle(order), self.which, len(self) * self.of, self.of)

    def __len__(self) -> int:
        if self.even:
            return -(-len(self.whole) // self.of)
        return len(range(self.which, len(self.whole), self.of))


def sharded(loader: DataLoader, even: bool) -> DataLoader:
    """A loader of this process's share; with one process the loader itself."""
    if processes() == 1:
        return loader
    if isinstance(loader.dataset, IterableDataset):
        raise TypeError("an IterableDataset cannot be shared out to processes; give it indices")
    options: dict[str, Any] = {
        name: getattr(loader, name)
        for name in (
            "num_workers",
            "collate_fn",
            "pin_memory",
            "timeout",
            "worker_init_fn",
            "multiprocessing_context",
            "generator",
            "prefetch_factor",
            "persistent_workers",
        )
    }
    by_batch = type(loader.batch_sampler) is not torch.utils.data.BatchSampler
    if by_batch and loader.batch_sampler is not None:  # the user's own: whole batches are shared
        shard = Shard(loader.batch_sampler, rank(), processes(), even)
        return DataLoader(loader.dataset, batch_sampler=shard, **options)
    options["sampler"] = Shard(loader.sampler, rank(), processes(), even)
    return DataLoader(
        loader.dataset, batch_size=loader.batch_size, drop_last=loader.drop_last, **options
    )


def total(values: list[float], device: torch.device) -> list[float]:
    """Sums over all processes."""
    if processes() == 1:
        return values
    sums = torch.tensor(values, dtype=torch.float64, device=device)
    dist.all_reduce(sums)
    return sums.tolist()


def add(matrix: torch.Tensor) -> None:
    """Adds up a tensor over all processes, in place."""
    if processes() > 1:
        dist.all_reduce(matrix)


def most(value: int, device: torch.device) -> int:
    """The largest of all processes' numbers."""
    if processes() == 1:
        return value
    found = torch.tensor(value, device=device)
    dist.all_reduce(found, dist.ReduceOp.MAX)
    return int(found)


def same_buffers(model: torch.nn.Module) -> None:
    """The first process's buffers, e.g. running statistics, for all."""
    if processes() > 1:
        for buffer in model.buffers():
            dist.broadcast(buffer, 0)


def gathered(value: Any) -> list[Any]:
    """Every process's value, in the first; in the others nothing."""
    if processes() == 1:
        return [value]
    everyone: list[Any] | None = [None] * processes() if rank() == 0 else None
    dist.gather_object(value, everyone)
    return everyone or []


def content(path: Path, device: torch.device) -> bytes | None:
    """A file's bytes as the first process sees them, for all; None where there is no such file.
    Other machines need not have it."""
    read = path.read_bytes() if rank() == 0 and path.exists() else None
    if processes() == 1:
        return read
    length = torch.tensor(-1 if read is None else len(read), device=device)
    dist.broadcast(length, 0)
    if length < 0:
        return None
    if read is None:
        sent = torch.empty(int(length), dtype=torch.uint8, device=device)
    else:
        sent = torch.frombuffer(bytearray(read), dtype=torch.uint8).to(device)
    dist.broadcast(sent, 0)
    return bytes(sent.cpu().numpy())

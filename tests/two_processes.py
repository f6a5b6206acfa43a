"""Two processes that talk over gloo."""

import socket
from collections.abc import Callable
from typing import Any

import torch


def in_two(work: Callable[..., Any], *given: Any) -> list[Any]:
    """What ``work(rank, *given)`` returns in each of two new processes with one thread; of tensors
    it returns NumPy arrays, which outlive the process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with torch.multiprocessing.get_context("spawn").Manager() as manager:
        results = manager.dict()
        torch.multiprocessing.spawn(_process, (port, work, given, results), nprocs=2)
        return [results[rank] for rank in (0, 1)]


def _process(rank: int, port: int, work: Callable[..., Any], given: tuple, results: dict) -> None:
    torch.set_num_threads(1)
    address = f"tcp://127.0.0.1:{port}"
    torch.distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=2)
    try:
        results[rank] = work(rank, *given)
    finally:
        torch.distributed.destroy_process_group()

"""Runs that are killed, shared out and started again, each in a process of its own.

Run as a script: it forks a process for each, since importing PyTorch anew for each takes seconds.
"""

import os
import random
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch._dynamo  # by the first optimizer, which takes as long as PyTorch itself: once for all
import torch.distributed as dist
from torch.utils.data import DataLoader, Dataset

from pydl import nn
from pydl.train import Settings, augment, checkpoint, fit, schedules

EPOCHS, IMAGES, BATCH, EVERY = 2, 22, 4, 2


class Noisy(Dataset):
    """Images that are never twice the same: every library's generator has a part in them."""

    def __init__(self, noise: float = 0.1, dtype: torch.dtype = torch.float32) -> None:
        generator = torch.Generator().manual_seed(1)
        self.images = torch.randn(IMAGES, 3, 8, 8, generator=generator, dtype=dtype)
        self.labels = torch.randint(5, (IMAGES,), generator=generator)
        self.noise = noise

    def __len__(self) -> int:
        return IMAGES

    def __getitem__(self, i: int) -> tuple[torch.Tensor, torch.Tensor]:
        drawn = random.random() + np.random.rand() + torch.randn(()).item()  # noqa: NPY002
        return self.images[i] + self.noise * drawn, self.labels[i]


def network(dropout: float = 0.2, dtype: torch.dtype = torch.float32) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.BatchNormAct2d(4) if dropout else nn.ReLU(),
        nn.Dropout(dropout),
        nn.Conv2d(4, 5, 3, stride=2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    ).to(dtype)


def train(folder: Path, name: str, workers: int = 0, on_step: Callable = lambda step: None) -> None:
    """A run with everything that has a state; its weights are then in ``<name>.pt``."""
    torch.set_num_threads(1)
    torch.manual_seed(3)
    random.seed(3)
    np.random.seed(3)  # noqa: NPY002
    model = network()
    history = fit(
        model,
        DataLoader(Noisy(), BATCH, shuffle=True, num_workers=workers),
        epochs=EPOCHS,
        held_out=Noisy(),
        optimizer=torch.optim.AdamW(model.parameters(), 0.01),
        schedule=schedules.one_cycle(),
        augment=augment.Compose(augment.HorizontalFlip(), augment.Crop((8, 8), padding=1)),
        settings=Settings(average=0.9, checkpoint_every=EVERY),
        checkpoint=folder / f"{name}.checkpoint",
        on_step=on_step,
    )
    figures = [
        value
        for epoch in history.epochs
        for key, value in vars(epoch).items()
        if key != "seconds" and value is not None
    ]
    assert history.average is not None
    if _rank() == 0:
        ended = [model.state_dict(), history.average.state_dict(), figures]
        torch.save(ended, folder / f"{name}.pt")


def run(what: str, folder: Path) -> None:
    """This file as a script, in a process that finds the packages that this one does."""
    done = subprocess.run(
        [sys.executable, __file__, what, str(folder)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def forked(body: Callable[[], None]) -> Callable[[], int]:
    """Begins ``body`` in another process; what is returned waits for its end: minus a signal's
    number, or the exit status."""
    sys.stdout.flush()
    child = os.fork()
    if not child:
        status = 1
        try:
            body()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)

    return lambda: os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def killed_after_step(number: int) -> Callable[[Path, str], None]:
    return lambda folder, name: train(
        folder, name, on_step=lambda step: kill() if step.number == number else None
    )


def killed_in_write(number: int, when: str) -> Callable[[Path, str], None]:
    """At the ``number``-th checkpoint: when half of it is written, before or after the renaming."""

    def body(folder: Path, name: str) -> None:
        done = 0
        save, replace = torch.save, os.replace

        def saved(state: object, file: object) -> None:
            nonlocal done
            done += 1
            save(state, file)  # type: ignore[arg-type]
            if when == "half" and done == number:
                file.truncate(file.tell() // 2)  # type: ignore[attr-defined]
                kill()

        def replaced(old: Path, new: Path) -> None:
            if when == "before" and done == number:
                kill()
            replace(old, new)
            if when == "after" and done == number:
                kill()

        checkpoint.torch.save, checkpoint.os.replace = saved, replaced  # type: ignore
        train(folder, name)

    return body


def killed_with_workers(folder: Path, name: str) -> None:
    train(folder, name, workers=2, on_step=lambda step: kill() if step.number == 9 else None)


# Six steps an epoch; checkpoints after steps 2, 4, 6, 8, ...
KILLED = {
    "before the first checkpoint": (killed_after_step(1), 0),
    "within an epoch": (killed_after_step(5), 0),
    "at the end of an epoch": (killed_after_step(6), 0),
    "in the last epoch": (killed_after_step(11), 0),
    "in the first write": (killed_in_write(1, "half"), 0),
    "in a later write": (killed_in_write(4, "half"), 0),
    "before a renaming": (killed_in_write(3, "before"), 0),
    "after a renaming": (killed_in_write(3, "after"), 0),
    "after the last renaming": (killed_in_write(6, "after"), 0),
    "while workers load": (killed_with_workers, 2),
}


def kills(folder: Path) -> None:
    for workers in (0, 2):
        assert forked(lambda w=workers: train(folder, f"unbroken-{w}", w))() == 0  # type: ignore
    for name, (body, workers) in KILLED.items():
        assert forked(lambda: body(folder, name))() == -signal.SIGKILL, name  # noqa: B023
        assert not (folder / f"{name}.pt").exists()
        assert forked(lambda: train(folder, name, workers))() == 0, name  # noqa: B023


def exactly(folder: Path, name: str, batch: int, accumulate: int = 1) -> None:
    """A run without anything drawn but the order, in float64."""
    torch.set_num_threads(1)
    torch.manual_seed(3)
    model = network(dropout=0.0, dtype=torch.float64)
    data = Noisy(noise=0.0, dtype=torch.float64)
    history = fit(
        model,
        data,
        epochs=2,
        held_out=data,
        settings=Settings(batch=batch, average=0.9, clip=0.5, rate=0.05, accumulate=accumulate),
    )
    last = history.epochs[-1]
    figures = [last.loss, last.accuracy, last.held_out_loss, last.held_out_accuracy]
    torch.save([model.state_dict(), figures], folder / f"{name}-{_rank()}.pt")


def _rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def of_two(folder: Path, rank: int) -> None:
    dist.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=2)
    exactly(folder, "two", batch=2)
    exactly(folder, "two accumulating", batch=1, accumulate=2)
    dist.destroy_process_group()


def worker(folder: Path, name: str, dies: bool) -> None:
    """What torchrun starts: the second process dies once, after the 5th of six steps."""
    first_life = int(os.environ["TORCHELASTIC_RESTART_COUNT"]) == 0

    def on_step(step: object) -> None:
        if dies and first_life and _rank() == 1 and step.number == 5:  # type: ignore[attr-defined]
            kill()

    train(folder, name, on_step=on_step)
    if _rank() == 0:
        (folder / f"{name}.lives").write_text(os.environ["TORCHELASTIC_RESTART_COUNT"])


def shared(folder: Path) -> None:
    """Two processes beside one, and torchrun's agent with and without a death."""
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    both = [forked(lambda r=r: of_two(folder, r)) for r in (0, 1)]  # type: ignore[misc]
    one = forked(lambda: exactly(folder, "one", batch=4))
    assert [one(), *(wait() for wait in both)] == [0, 0, 0]
    for name, dies in (("whole", False), ("reborn", True)):
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=2,
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            run_id=name,
            max_restarts=1,
            monitor_interval=0.05,
            start_method="fork",
        )
        elastic_launch(config, worker)(folder, name, dies)


if __name__ == "__main__":
    {"kills": kills, "shared": shared}[sys.argv[1]](Path(sys.argv[2]))

"""Training: one loop, what it takes, and what it leaves behind."""

from pydl.train import augment, schedules
from pydl.train.checkpoint import CheckpointError
from pydl.train.evaluation import Evaluation, evaluate, with_heads
from pydl.train.fit import History, Settings, Step, fit
from pydl.train.log import Csv, Epoch, Log, TensorBoard
from pydl.train.metrics import Confusion

__all__ = [
    "CheckpointError",
    "Confusion",
    "Csv",
    "Epoch",
    "Evaluation",
    "History",
    "Log",
    "Settings",
    "Step",
    "TensorBoard",
    "augment",
    "evaluate",
    "fit",
    "schedules",
    "with_heads",
]

"""What a GPU is held to in the few minutes of `make gpu` (``pytest --gpu ROWS``).

Of each table of a test marked ``gpu`` this many rows, from all over it, by the kernels in CUDA C++
and in Triton, in float32 and bfloat16; every family's first before any second one, so that a run
that is stopped has seen them all. A row is forward and backward.
"""

from collections import defaultdict

import pytest
import torch

SERVERS = ("cuda", "triton", None)  # None: a test of CUDA C++ alone names no server
DTYPES = (torch.float32, torch.bfloat16, "tf32", None)


def chosen(items: list[pytest.Item], rows: int) -> list[pytest.Item]:
    """These of ``items``, in the order in which they are to run."""
    tables: dict[tuple, list[pytest.Item]] = defaultdict(list)
    for item in items:
        parameters = item.callspec.params if hasattr(item, "callspec") else {}
        server, dtype = parameters.get("server", (None,))[0], parameters.get("dtype")
        if item.get_closest_marker("gpu") and server in SERVERS and dtype in DTYPES:
            tables[item.path, item.originalname, server, dtype].append(item)
    places = [(i * len(table) // rows, table) for i in range(rows) for table in tables.values()]
    return list(dict.fromkeys(table[place] for place, table in places))

"""The backend that a block asks for: of one thread, one task, one graph; strict or not."""

import asyncio
import threading

import pytest
import torch

import pydl
from pydl import asked, functional

X = torch.randn(2, 6, 9, 9)


def served(function, *arguments):
    """The backends whose kernels a call runs, by the profiler's names."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        function(*arguments)
    return [
        e.name.partition("(")[2][:-1]
        for e in profile.events()
        if "pydl::" in e.name and "(" in e.name
    ]


def lrn(x=X):
    return functional.local_response_norm(x, 3)


def test_the_profiler_says_who_serves():
    assert served(lrn) == ["cpu"]
    with pydl.use_backend("reference"):
        assert served(lrn) == ["reference"]
        with pydl.use_backend("aten"):
            assert served(lrn) == []
        assert served(lrn) == ["reference"]


def test_a_thread_has_its_own():
    seen = {}

    def work():
        seen["outside"] = asked.backend(None)
        with pydl.use_backend("reference"):
            ready.set()
            leave.wait(10)
            seen["inside"] = asked.backend(None)

    ready, leave = threading.Event(), threading.Event()
    thread = threading.Thread(target=work)
    with pydl.use_backend("aten"):
        thread.start()
        assert ready.wait(10)
        assert asked.backend(None) == "aten"
        leave.set()
        thread.join()
    assert seen == {"outside": "auto", "inside": "reference"}
    assert asked.backend(None) == "auto"


def test_a_task_has_its_own():
    async def task(name):
        with pydl.use_backend(name):
            for _ in range(3):
                await asyncio.sleep(0)
                assert asked.backend(None) == name

    async def tasks():
        await asyncio.gather(*(task(name) for name in ("cpu", "aten", "reference")))
        assert asked.backend(None) == "auto"

    asyncio.run(tasks())


class _Asked(torch.utils.data.Dataset):
    def __len__(self):
        return 2

    def __getitem__(self, index):
        return asked.backend(None)


def test_the_workers_of_a_loader_start_with_the_blocks():
    """A forked worker starts with its parent's choice."""
    with pydl.use_backend("reference"):
        loader = torch.utils.data.DataLoader(
            _Asked(), num_workers=1, multiprocessing_context="fork"
        )
        assert list(loader) == [["reference"], ["reference"]]


def test_a_compiled_graph_follows():
    """One graph for each backend, chosen again at each call; a block inside the graph too."""
    torch._dynamo.reset()
    graphs = []

    def backend(graph, _):
        graphs.append([str(n.target) for n in graph.graph.nodes if n.op == "call_function"])
        return graph

    compiled = torch.compile(lrn, backend=backend, fullgraph=True)
    for name in ("auto", "aten", "auto", "aten"):
        with pydl.use_backend(name):
            torch.testing.assert_close(compiled(X), lrn())
    assert len(graphs) == 2 and ["pydl" in graph[0] for graph in graphs] == [True, False]

    def inside(x):
        with pydl.use_backend("aten"):
            y = functional.max_pool2d(x, 3)
        return y + functional.max_pool2d(x, 3, backend="cpu")

    graphs.clear()
    y = torch.compile(inside, backend=backend, fullgraph=True)(X)
    torch.testing.assert_close(y, 2 * torch.nn.functional.max_pool2d(X, 3))
    assert sum("pydl" in target for target in graphs[0]) == 1


def test_what_a_lenient_block_cannot_serve_goes_to_auto():
    model = torch.nn.Sequential(pydl.nn.Conv2d(3, 4, 3), pydl.nn.MaxPool2d(2), torch.nn.Flatten())
    x = torch.randn(2, 3, 8, 8)
    with pydl.use_backend("cpu"), pytest.raises(RuntimeError, match="'cpu' does not serve conv"):
        model(x)
    with pydl.use_backend("cpu", strict=False) as block:
        y = model(x)
        assert served(model, x) == ["cpu"]
    torch.testing.assert_close(y, model(x))
    assert list(block.left) == ["conv"] and "does not serve conv" in block.left["conv"]
    with pydl.use_backend("cpu", strict=False), pytest.raises(RuntimeError, match="does not serve"):
        functional.conv2d(x, torch.randn(4, 3, 3, 3), backend="cpu")  # its own word is strict


def test_bad_names():
    with pytest.raises(ValueError, match="backend must be one of auto, reference"):
        pydl.use_backend("gpu")
    with pytest.raises(ValueError, match="got 'sox'"):
        functional.relu(X, backend="sox")

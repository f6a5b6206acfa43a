"""The package as a whole: the grid has its rooms, backends are chosen and refused, models are
compiled."""

import copy
import io
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from contract import INSTRUCTION_SETS, instruction_set, servers

import pydl
from pydl import backends, functional, layout

ROOT = Path(__file__).parents[2]
X = torch.randn(2, 4, 9, 9)
BOX = torch.tensor([[0, 1, 1, 7, 6.5]])


# the grid

WITHOUT_LAYERS = ("nms",)  # nor has torchvision one


@pytest.mark.parametrize("family", backends.FAMILIES)
def test_a_family_has_all_its_rooms(family):
    rooms = [
        f"csrc/{family}.h",
        f"csrc/bindings/{family}.cpp",
        f"tests/grid/test_{family}.py",
        *(f"pydl/{room}/{family}.py" for room in ("functional", "native", "ops", "reference")),
    ]
    rooms_of = {
        "aten": f"pydl/aten/{family}.py",
        "cpu": f"csrc/cpu/calls/{family}.cpp",
        "cuda": f"csrc/cuda/{family}.cu",
        "triton": f"kernels/{family}.py",
    }
    rooms += [room for name, room in rooms_of.items() if name in backends.serving(family)]
    rooms += [f"pydl/nn/{family}.py"] if family not in WITHOUT_LAYERS else []
    assert [room for room in rooms if not (ROOT / room).exists()] == []


@pytest.mark.parametrize("family", backends.FAMILIES)
def test_every_backend_offers_the_same_functions(family):
    for backend in backends.serving(family):
        if backends.BACKENDS[backend].missing is None:
            for name in backends.FAMILIES[family]:
                assert callable(backends.function(backend, name))


# choosing a backend


def test_the_call_beats_the_block_beats_auto():
    assert backends.choose("lrn", None, X) == "cpu"
    with pydl.use_backend("reference"):
        assert backends.choose("lrn", None, X) == "reference"
        assert backends.choose("lrn", "aten", X) == "aten"
        with pydl.use_backend("auto"):
            assert backends.choose("lrn", None, X) == "cpu"
    assert backends.choose("lrn", None, X) == "cpu"


def test_auto_leaves_to_pytorch_what_is_too_small_to_gain():
    assert backends.choose("pool", None, torch.zeros(32, 16, 10, 10)) == "aten"
    assert backends.choose("pool", None, torch.zeros(32, 6, 28, 28)) == "cpu"
    assert backends.choose("conv", None, torch.zeros(32, 6, 28, 28)) == "aten"
    assert backends.choose("batch_norm", None, torch.zeros(32, 16, 10, 10)) == "aten"
    assert backends.choose("batch_norm", None, torch.zeros(32, 6, 28, 28)) == "cpu"


def test_auto_may_mix_the_passes_of_a_depthwise_convolution():
    x = torch.randn(2, 32, 14, 14).to(memory_format=torch.channels_last).requires_grad_()
    weight = torch.randn(32, 1, 3, 3, requires_grad=True)
    y = pydl.functional.conv2d(x, weight, padding=1, groups=32)
    ours = torch.autograd.grad(y.square().sum(), (x, weight))
    y = torch.nn.functional.conv2d(x, weight, padding=1, groups=32)
    theirs = torch.autograd.grad(y.square().sum(), (x, weight))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b)
        assert a.is_contiguous(memory_format=torch.channels_last)

    def served(stride: int, function: str) -> str:
        return backends.choose("depthwise", None, x, function, stride == 1)

    assert served(1, "conv_forward") == served(1, "conv_grad_input") == "cpu"
    assert served(1, "conv_grad_weight") == served(2, "conv_forward") == "aten"


def test_the_environment_variable_sets_the_default():
    code = (
        "import torch; from pydl import backends; "
        "print(backends.choose('lrn', None, torch.zeros(1)))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYDL_BACKEND": "reference"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout.strip() == "reference"


def test_a_backend_asked_for_never_falls_back():
    with pytest.raises(
        RuntimeError, match="'cpu' does not serve conv; reference, aten, triton, cuda do"
    ):
        functional.conv2d(X, torch.randn(2, 4, 3, 3), backend="cpu")
    with pytest.raises(RuntimeError, match="serves tensors on cpu, got one on meta"):
        functional.max_pool2d(X.to("meta"), 2, backend="cpu")
    with pytest.raises(
        ValueError,
        match="backend must be one of auto, reference, aten, cpu, triton, cuda, got 'gpu'",
    ):
        functional.max_pool2d(X, 2, backend="gpu")
    with pytest.raises(ValueError, match="got 'gpu'"):
        pydl.use_backend("gpu")
    with pytest.raises(ValueError, match="got 'gpu'"):
        pydl.nn.MaxPool2d(2, backend="gpu")
    with pytest.raises(RuntimeError, match="strided"):
        functional.max_pool2d(X.to_sparse(), 2, backend="cpu")


def test_auto_serves_what_pytorch_serves():
    integers = torch.arange(16).reshape(1, 1, 4, 4)
    assert torch.equal(
        functional.max_pool2d(integers, 2), torch.nn.functional.max_pool2d(integers, 2)
    )
    on_meta = functional.local_response_norm(X.to("meta"), 3)
    assert on_meta.device.type == "meta"


def test_auto_ends_at_a_backend_of_this_package_where_pytorch_has_no_operator():
    for family in ("roi", "nms"):
        assert "aten" not in backends.serving(family)
        assert backends.choose(family, None, X) == "cpu"
        assert backends.choose(family, None, X.to("meta")) == "reference"
        with pytest.raises(RuntimeError, match=r"'reference' serves float32, .* got torch.int64"):
            backends.choose(family, None, X.long())


def test_a_missing_extension_is_said_and_pytorch_serves(tmp_path):
    """In a process where pydl._C cannot be imported the package still works."""
    code = (
        "import sys; sys.modules['pydl._C'] = None\n"
        "import torch, pydl\n"
        "print(pydl.functional.max_pool2d(torch.ones(1, 1, 4, 4), 2).sum().item())\n"
        "print(pydl.functional.nms(torch.ones(2, 4), torch.ones(2), 0.5).tolist())\n"
        "try: pydl.functional.max_pool2d(torch.ones(1, 1, 4, 4), 2, backend='cpu')\n"
        "except RuntimeError as error: print(error)\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.startswith(
        "4.0\n[0, 1]\nbackend 'cpu' is not available: the extension pydl._C could not be imported"
    )


# memory


@pytest.mark.parametrize("channels_last", (False, True))
def test_the_native_kernels_copy_neither_layout(channels_last, monkeypatch):
    """Dense operands in either layout go to the kernels as they are, forward and backward."""
    x = X.contiguous(memory_format=torch.channels_last) if channels_last else X

    def no_copy(tensor, like=None):
        assert tensor.is_contiguous(memory_format=like), "a hidden copy"
        return tensor

    monkeypatch.setattr(layout, "dense", no_copy)
    for function in (
        lambda x: functional.max_pool2d(x, 3, 2, backend="cpu"),
        lambda x: functional.avg_pool2d(x, 3, 2, backend="cpu"),
        lambda x: functional.lp_pool2d(x, 2, 3, 2, backend="cpu"),
        lambda x: functional.adaptive_avg_pool2d(x, 4, backend="cpu"),
        lambda x: functional.adaptive_max_pool2d(x, 4, backend="cpu"),
        lambda x: functional.spatial_pyramid_pool(x, (3, 2), backend="cpu"),
        lambda x: functional.local_response_norm(x, 3, backend="cpu"),
        lambda x: functional.batch_norm_act(x, None, None, training=True, backend="cpu"),
        lambda x: functional.roi_align(x, BOX, 3, backend="cpu"),
        lambda x: functional.roi_pool(x, BOX, 3, backend="cpu"),
    ):
        leaf = x.detach().requires_grad_()
        y = function(leaf)
        y.backward(torch.randn_like(y))
        assert layout.memory_format(leaf.grad) == layout.memory_format(x)


@pytest.mark.parametrize(
    "server", [server for server in servers("pool") if server.values[0][0] != "aten"]
)
def test_inference_keeps_no_index_and_training_a_byte(server):
    backend, device = server
    x = torch.randn(1, 2, 8, 8, device=device, requires_grad=True)
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        functional.max_pool2d(x, 2, backend=backend)
    assert [(t.dtype, t.numel()) for t in saved] == [(torch.uint8, 32)]


@pytest.mark.parametrize(
    "family, run",
    (
        ("pool", lambda x, b: functional.max_pool2d(x, 3, 2, backend=b)),
        ("pool", lambda x, b: functional.avg_pool2d(x, 3, 2, backend=b)),
        ("pool_lp", lambda x, b: functional.lp_pool2d(x, 2, 3, 2, backend=b)),
        ("pool_adaptive", lambda x, b: functional.adaptive_avg_pool2d(x, 4, backend=b)),
        ("pool_adaptive", lambda x, b: functional.adaptive_max_pool2d(x, 4, backend=b)),
        ("pool_adaptive", lambda x, b: functional.spatial_pyramid_pool(x, (3, 2), backend=b)),
        ("lrn", lambda x, b: functional.local_response_norm(x, 5, 0.1, backend=b)),
        ("spatial_norm", lambda x, b: functional.spatial_response_norm(x, 3, 0.1, backend=b)),
        ("batch_norm", lambda x, b: functional.batch_norm(x, None, None, None, None, 1, backend=b)),
    ),
)
def test_the_same_bits_on_every_run_and_thread_count(family, run):
    x = torch.randn(4, 16, 33, 35)
    threads = torch.get_num_threads()
    seen = []
    for count in (1, 2, 1):
        torch.set_num_threads(count)
        leaf = x.clone().requires_grad_()
        y = run(leaf, "cpu")
        y.backward(y.detach())
        seen.append((y.detach(), leaf.grad))
    torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for other in seen[1:] for a, b in zip(seen[0], other, strict=True))


@pytest.mark.parametrize("isa", INSTRUCTION_SETS)
def test_every_instruction_set_gives_the_same_answer(isa):
    with instruction_set(isa):
        pools = (
            lambda x, backend: functional.lp_pool2d(x, 2, 3, 2, backend=backend),
            lambda x, backend: functional.adaptive_avg_pool2d(x, 4, backend=backend),
            lambda x, backend: functional.adaptive_max_pool2d(x, 4, backend=backend),
            lambda x, backend: functional.spatial_pyramid_pool(x, (3, 2), backend=backend),
        )
        for dtype in (torch.float32, torch.float16, torch.bfloat16):
            for x in (X.to(dtype), X.to(dtype).contiguous(memory_format=torch.channels_last)):
                for ours, theirs in (
                    *((pool(x, "cpu"), pool(x, "reference")) for pool in pools),
                    (
                        functional.max_pool2d(x, 3, 2, backend="cpu"),
                        functional.max_pool2d(x, 3, 2, backend="reference"),
                    ),
                    (
                        functional.avg_pool2d(x, 3, 2, backend="cpu"),
                        functional.avg_pool2d(x, 3, 2, backend="reference"),
                    ),
                    (
                        functional.local_response_norm(x, 3, 0.5, backend="cpu"),
                        functional.local_response_norm(x, 3, 0.5, backend="reference"),
                    ),
                ):
                    torch.testing.assert_close(ours, theirs)


# layers


# Lazy layers have no weights to compare before their first input: tests/grid/test_conv_layers.py,
# test_batch_norm_layers.py. An unpooling takes two tensors, a recurrent layer sequences:
# tests/grid/test_unpool.py, test_rnn_layers.py.
TWINS = [
    name
    for name in pydl.nn.__all__
    if hasattr(torch.nn, name)
    and not any(word in name for word in ("Lazy", "Unpool", "RNN", "LSTM", "GRU"))
]


@pytest.mark.parametrize("name", TWINS)
def test_a_layer_is_its_twin_in_torch(name):
    """Same constructor, same initial weights for a seed, same state_dict, same representation."""
    own = dict.fromkeys(("Softmax2d", "CrossEntropyLoss", "NLLLoss", "ReLU"), ())
    own |= {"LocalResponseNorm": (3,)}
    own |= {name: (0.5,)} if "Dropout" in name else {}
    own |= {name: (4,)} if "BatchNorm" in name else {}
    arguments = (4, 6, 3) if "Conv" in name else own.get(name, (2,))
    arguments = (2, 2) if "LPPool" in name else arguments
    axes = int(name[-2]) if name[-1] == "d" else 2
    x = torch.randn(2, 4, *[9] * axes)
    torch.manual_seed(1)
    ours = getattr(pydl.nn, name)(*arguments)
    torch.manual_seed(1)
    theirs = getattr(torch.nn, name)(*arguments)
    if "Dropout" in name:  # the masks differ
        ours, theirs = ours.eval(), theirs.eval()
    assert str(ours) == str(theirs)
    assert all(
        torch.equal(a, b)
        for a, b in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True)
    )
    operands = (x, x.argmax(1)) if name.endswith("Loss") else (x,)
    torch.testing.assert_close(ours(*operands), theirs(*operands))
    saved = io.BytesIO()
    torch.save(ours.state_dict(), saved)
    saved.seek(0)
    theirs.load_state_dict(torch.load(saved))
    assert "backend='reference'" in str(getattr(pydl.nn, name)(*arguments, backend="reference"))


@pytest.mark.parametrize("mode", ("zeros", "reflect", "replicate", "circular"))
def test_padding_modes(mode):
    layer = pydl.nn.Conv2d(4, 3, 3, padding=1, padding_mode=mode, backend="reference")
    theirs = torch.nn.Conv2d(4, 3, 3, padding=1, padding_mode=mode)
    theirs.load_state_dict(layer.state_dict())
    torch.testing.assert_close(layer(X), theirs(X))


# torch.compile


@pytest.mark.parametrize(
    "backend", ("auto", "reference", *(p.values[0][0] for p in servers("conv")[2:]))
)
def test_compiles_whole(backend):
    """No graph break in a LeNet with every layer of the package, forward and backward."""
    device = (backends.BACKENDS[backend].devices or ("cpu",))[0] if backend != "auto" else "cpu"
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        pydl.nn.Conv2d(1, 3, 5),
        torch.nn.ReLU(),
        pydl.nn.MaxPool2d(2),
        pydl.nn.LocalResponseNorm(3),
        pydl.nn.Conv2d(3, 4, 3, padding=1),
        pydl.nn.AvgPool2d(2),
        pydl.nn.LPPool2d(2, 1),
        pydl.nn.SpatialPyramidPool2d((1, 2), "average"),
        torch.nn.Unflatten(1, (5, 2, 2)),
        pydl.nn.AdaptiveAvgPool2d((2, 1)),
        pydl.nn.AdaptiveMaxPool2d(2),
        torch.nn.Flatten(),
        torch.nn.Linear(20, 3),
    ).to(device)
    x, twin = torch.randn(2, 1, 12, 12, device=device), copy.deepcopy(model)
    with pydl.use_backend(backend):
        compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
        y = compiled(x)
        y.square().sum().backward()
        expected = twin(x)
        expected.square().sum().backward()
    torch.testing.assert_close(y, expected)
    for ours, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)


@pytest.mark.slow
def test_inductor_generates_code_around_the_operators():
    model = pydl.models.lenet5()
    x = torch.randn(2, 1, 32, 32)
    torch.testing.assert_close(torch.compile(model, fullgraph=True)(x), model(x))

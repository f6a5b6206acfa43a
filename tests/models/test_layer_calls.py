"""A network's layers as calls of operators: each gives what its layer gives."""

from collections.abc import Callable, Iterable
from importlib import import_module

import pytest
import torch
from torch import nn as theirs

from pydl import models, nn
from pydl.models.calls import Call, check, served
from pydl.models.layer_calls import layer_calls
from pydl.nn.layer import Layer


def run(model: theirs.Module, x: torch.Tensor) -> tuple[dict, dict[str, torch.Tensor]]:
    """The calls of ``model``, and what its layers gave in the same run."""
    outputs: dict[str, torch.Tensor] = {}

    def see(name: str) -> Callable:
        def hook(layer: theirs.Module, inputs: tuple, y: object) -> None:
            y = y[0] if isinstance(y, tuple) else y
            outputs[name] = y.detach().clone()

        return hook

    handles = [m.register_forward_hook(see(name)) for name, m in model.named_modules()]
    calls = layer_calls(model, x)
    for handle in handles:
        handle.remove()
    return calls, outputs


def fill(statistics: Iterable[torch.Tensor]) -> None:
    """Makes running means and variances unlike a fresh layer's."""
    for t in statistics:
        if t.is_floating_point():
            t.uniform_(0.5, 1.5)


class Given(theirs.Module):
    """Calls ``layer`` with these tensors too."""

    def __init__(self, layer: theirs.Module, *others: object, **named: object) -> None:
        super().__init__()
        self.layer, self.others, self.named = layer, others, named

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x, *self.others, **self.named)


def pooled(axes: int, padding: int = 0, **named: object) -> Given:
    x = torch.rand(2, 3, *[9] * axes)
    pool = getattr(theirs.functional, f"max_pool{axes}d")
    _, indices = pool(x, 3, 2, padding, return_indices=True)
    return Given(getattr(nn, f"MaxUnpool{axes}d")(3, 2, padding), indices, **named)


BOXES = torch.tensor([[0, 0.0, 0, 6, 5], [0, 1, 2, 8, 8]])
TARGET = torch.tensor([1, 0, 2])

# Of each kind an example and its input; in training, where the kind knows two modes.
LAYERS = [
    (lambda: nn.Conv1d(4, 6, 3, padding="same"), (2, 4, 9)),
    (lambda: nn.Conv2d(4, 6, 3, 2, 1, groups=2, bias=False), (2, 4, 9, 8)),
    (lambda: nn.Conv2d(4, 6, (3, 1), padding=(1, 0), padding_mode="reflect"), (2, 4, 9, 8)),
    (lambda: nn.Conv3d(4, 6, 2, dilation=2), (2, 4, 5, 6, 7)),
    (lambda: nn.LazyConv2d(6, 3), (2, 4, 9, 8)),
    (lambda: nn.ConvBiasAct2d(4, 6, 3, activation="silu"), (2, 4, 9, 8)),
    (
        lambda: Given(nn.ConvBiasAct2d(4, 6, 3, bias=False), residual=torch.randn(2, 6, 7, 6)),
        (2, 4, 9, 8),
    ),
    (lambda: nn.ConvTranspose1d(4, 6, 3, 2), (2, 4, 9)),
    (lambda: nn.ConvTranspose2d(4, 6, 3, 2, 1, output_padding=1, groups=2), (2, 4, 9, 8)),
    (lambda: Given(nn.ConvTranspose2d(4, 6, 3, 2), output_size=(20, 17)), (2, 4, 9, 8)),
    (lambda: nn.ConvTranspose3d(4, 6, 2), (2, 4, 5, 6, 7)),
    (lambda: nn.LocallyConnected1d(4, 6, 9, 3), (2, 4, 9)),
    (lambda: nn.LocallyConnected2d(4, 6, (9, 8), 3, 2, bias=False), (2, 4, 9, 8)),
    (lambda: nn.MaxPool1d(3, 2), (2, 3, 9)),
    (lambda: nn.MaxPool2d(3, 2, 1, return_indices=True), (2, 3, 9, 8)),
    (lambda: nn.MaxPool3d(2), (2, 3, 5, 6, 7)),
    (lambda: nn.AvgPool1d(3, 2), (2, 3, 9)),
    (lambda: nn.AvgPool2d(3, 2, 1, count_include_pad=False), (2, 3, 9, 8)),
    (lambda: nn.AvgPool3d(2), (2, 3, 5, 6, 7)),
    (lambda: nn.LPPool1d(2, 3), (2, 3, 9)),
    (lambda: nn.LPPool2d(2, 2, ceil_mode=True), (2, 3, 9, 8)),
    (lambda: nn.LPPool3d(2, 2), (2, 3, 5, 6, 7)),
    (lambda: nn.AdaptiveAvgPool1d(2), (2, 3, 9)),
    (lambda: nn.AdaptiveAvgPool2d((2, None)), (2, 3, 9, 8)),
    (lambda: nn.AdaptiveAvgPool3d(2), (2, 3, 5, 6, 7)),
    (lambda: nn.AdaptiveMaxPool1d(2), (2, 3, 9)),
    (lambda: nn.AdaptiveMaxPool2d(2, return_indices=True), (2, 3, 9, 8)),
    (lambda: nn.AdaptiveMaxPool3d(2), (2, 3, 5, 6, 7)),
    (lambda: nn.SpatialPyramidPool2d((1, 2), "average"), (2, 3, 9, 8)),
    (lambda: pooled(1), (2, 3, 4)),
    (lambda: pooled(2, output_size=(2, 3, 10, 10)), (2, 3, 4, 4)),
    (lambda: pooled(2, 1), (2, 3, 5, 5)),
    (lambda: pooled(3), (2, 3, 4, 4, 4)),
    (lambda: Given(nn.RoIAlign(2, 1.0, 2), BOXES), (1, 3, 9, 9)),
    (lambda: Given(nn.RoIAlign(2, 1.0, 0, aligned=True), [BOXES[:, 1:]] * 2), (2, 3, 9, 9)),
    (lambda: Given(nn.RoIPool((2, 3), 0.5), rois=BOXES), (1, 3, 9, 9)),
    (lambda: nn.LocalResponseNorm(5), (2, 8, 9, 9)),
    (lambda: nn.SpatialResponseNorm(3, alpha=0.1), (2, 8, 9, 9)),
    (lambda: nn.BatchNorm1d(3, affine=False), (2, 3, 9)),
    (lambda: nn.BatchNorm2d(3, eps=1e-3, momentum=None), (2, 3, 9, 8)),
    (lambda: nn.BatchNorm3d(3, track_running_stats=False), (2, 3, 5, 6, 7)),
    (lambda: nn.LazyBatchNorm2d(), (2, 3, 9, 8)),
    (lambda: nn.SyncBatchNorm(3), (2, 3, 9)),
    (lambda: nn.BatchNormAct2d(3, activation="leaky_relu"), (2, 3, 9, 8)),
    (lambda: Given(nn.BatchNormAct2d(3), torch.randn(2, 3, 9, 8)), (2, 3, 9, 8)),
    (lambda: Given(nn.BatchNormAct3d(3), torch.randn(2, 3, 5, 6, 7)), (2, 3, 5, 6, 7)),
    (lambda: nn.ReLU(inplace=True), (2, 10)),
    (lambda: nn.LeakyReLU(0.2), (2, 10)),
    (lambda: nn.Dropout(), (2, 10)),
    (lambda: nn.Dropout1d(), (2, 3, 9)),
    (lambda: nn.Dropout2d(inplace=True), (2, 3, 9, 8)),
    (lambda: nn.Dropout3d(0.2), (2, 3, 5, 6, 7)),
    (lambda: nn.Softmax(1), (2, 10)),
    (lambda: nn.Softmax2d(), (2, 10, 3, 3)),
    (lambda: nn.LogSoftmax(-1), (2, 10)),
    (lambda: Given(nn.CrossEntropyLoss(label_smoothing=0.1), TARGET), (3, 4)),
    (lambda: Given(nn.NLLLoss(reduction="none", ignore_index=2), TARGET), (3, 4)),
]
RECURRENT = {"RNN", "LSTM", "GRU", "RNNCell", "LSTMCell", "GRUCell"}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("build", "shape"), LAYERS)
def test_a_layers_call_gives_its_output(build, shape, training: bool) -> None:
    torch.manual_seed(0)
    model = build().train(training)
    if not isinstance(model, nn.LazyBatchNorm2d):
        fill(model.buffers())
    x = torch.randn(shape)
    torch.manual_seed(1)
    calls, outputs = run(model, x)
    ((name, (call, tensors)),) = calls.items()
    torch.manual_seed(1)
    assert torch.equal(call.ours(tensors), outputs[name])
    # What the call is made of fits together, apart from the layer's tensors.
    made = call.random()
    assert [(t.shape, t.dtype) for t in made] == [(t.shape, t.dtype) for t in tensors]
    assert [(t.shape, t.dtype) for t in call.empty()] == [(t.shape, t.dtype) for t in tensors]
    grad = torch.randn(outputs[name].shape)
    for kind in call.passes:
        call.runner(kind, call.ours, made, grad)()
    if call.boxes is None or (shape[0] == 1 and call.operator == "roi_align"):
        assert all(row.passed for row in check(call, tensors, grad))


def test_every_kind_of_layer_has_an_example() -> None:
    kinds = {type(layer).__name__ for build, _ in LAYERS for layer in build().modules()}
    lazy = {name for name in nn.__all__ if name.startswith("Lazy")}
    assert set(nn.__all__) - lazy - RECURRENT <= kinds


@pytest.mark.parametrize(
    ("build", "shape", "said"),
    [
        *(
            (lambda kind=kind: nn.Sequential(getattr(nn, kind)(4, 5)), (7, 4), rf"'0' is a {kind},")
            for kind in sorted(RECURRENT)
        ),
        (lambda: type("Own", (nn.ReLU,), {})(), (7, 4), "is a Own, which is not known"),
        (
            lambda: Given(nn.NLLLoss(weight=torch.ones(4)), TARGET),
            (3, 4),
            "'layer' is a NLLLoss, a loss with weights of classes",
        ),
        (
            lambda: Given(nn.CrossEntropyLoss(), torch.full((3, 4), 0.25)),
            (3, 4),
            "'layer' is a CrossEntropyLoss, a loss with weights of classes or probabilities",
        ),
    ],
)
def test_what_is_no_call_is_refused_by_name(build, shape, said: str) -> None:
    model = build()
    with pytest.raises(ValueError, match=said):
        layer_calls(model, torch.randn(shape))
    assert not any(layer._forward_pre_hooks for layer in model.modules())


def test_statistics_of_other_processes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    module = import_module("pydl.models.layer_calls")
    monkeypatch.setattr(module, "group_of", lambda group: "everyone")
    layer = nn.SyncBatchNorm(3)
    with pytest.raises(ValueError, match="takes statistics of other processes"):
        layer_calls(layer, torch.randn(2, 3, 4))
    assert list(layer_calls(layer.eval(), torch.randn(2, 3, 4))) == [""]


def test_what_is_skipped_is_neither_listed_nor_refused() -> None:
    model = nn.Sequential(nn.Conv1d(3, 4, 2), nn.ReLU(), nn.RNN(5, 6))
    calls = layer_calls(model, torch.randn(2, 3, 6), skip=(theirs.ReLU, theirs.RNNBase))
    assert list(calls) == ["0"]


def test_a_layer_called_twice_makes_two_calls() -> None:
    layer = nn.ReLU(inplace=True)
    calls = layer_calls(nn.Sequential(layer, nn.MaxPool1d(2), layer), torch.randn(2, 3, 6))
    assert {name: call.input for name, (call, _) in calls.items()} == {
        "0": (2, 3, 6),
        "1": (2, 3, 6),
        "0#2": (2, 3, 3),
    }


def test_boxes_in_several_images_have_no_other_side() -> None:
    model = Given(nn.RoIPool(2, 1.0), BOXES)
    ((call, tensors),) = layer_calls(model, torch.randn(2, 3, 9, 9)).values()
    with pytest.raises(ValueError, match="roi_pool by PyTorch's parts is of one image"):
        call.theirs(tensors)


NETWORKS = [
    ("lenet5", "lenet5"),
    ("lenet5", "lenet5-1998"),
    ("alexnet", "alexnet-torchvision"),
    ("resnet", "resnet18"),
    ("googlenet", "googlenet"),
    ("shufflenetv2", "shufflenet_v2_x0_5"),
    ("mobilenetv2", "mobilenet_v2"),
    ("efficientnet", "efficientnet_b0"),
    ("squeezenet", "squeezenet1_0"),
    ("autoencoder3d", "autoencoder3d"),
    ("video.resnet", "r2plus1d_18"),
]


@pytest.mark.parametrize(("file", "name"), NETWORKS)
def test_a_networks_calls_give_its_layers_outputs(file: str, name: str) -> None:
    rows = import_module(f"pydl.models.{file}").MODELS
    (row,) = (row for row in rows if row.name == name)
    model = row.build().eval()
    fill(model.buffers())
    calls, outputs = run(model, torch.randn(1, *row.sample))
    ran = {name for name, m in model.named_modules() if name in outputs and isinstance(m, Layer)}
    assert {name.partition("#")[0] for name in calls} == ran
    compared: list[Call] = []
    for name, (call, tensors) in calls.items():
        if call not in compared:
            assert torch.equal(call.ours(tensors), outputs[name]), name
            compared.append(call)


def test_a_models_calls_are_its_layers_calls() -> None:
    model = models.lenet5()
    calls = layer_calls(model, torch.randn(2, 1, 32, 32))
    # All but the fully connected layers, which are PyTorch's.
    acts = ["act1", "act2", "act3", "act4"]
    assert sorted(calls) == sorted(["conv1", "pool1", "conv2", "pool2", *acts])
    call, (x, weight, bias) = calls["conv1"]
    assert (call.operator, call.input, call.weight, call.bias) == (
        "conv2d",
        (2, 1, 32, 32),
        (6, 1, 5, 5),
        (6,),
    )
    assert not call.grad_input and calls["conv2"][0].grad_input
    assert torch.equal(call.ours([x, weight, bias]), model.conv1(x))
    for call, tensors in calls.values():
        grad = torch.randn(call.theirs(tensors).shape)
        assert all(row.passed for row in check(call, tensors, grad))


@pytest.mark.parametrize(
    "wrong", [lambda y: y * 1.001, lambda y: y[:, :1], lambda y: y * float("nan")]
)
def test_a_wrong_result_does_not_pass(monkeypatch: pytest.MonkeyPatch, wrong) -> None:
    call, tensors = layer_calls(models.lenet5(), torch.randn(2, 1, 32, 32))["pool1"]
    right = Call.ours

    def ours(call: Call, tensors: list[torch.Tensor], backend: str | None = None) -> torch.Tensor:
        y = right(call, tensors, backend)
        return y if backend == "reference" else wrong(y)

    monkeypatch.setattr(Call, "ours", ours)
    assert not any(row.passed for row in check(call, tensors, None))


def test_who_served_is_seen() -> None:
    call, tensors = layer_calls(models.lenet5(), torch.randn(2, 1, 32, 32))["pool1"]
    for backend, expected in (("reference", {"reference"}), ("aten", set())):
        with served() as seen:
            call.ours(tensors, backend)
        assert seen == expected
    with served() as seen:
        call.theirs(tensors)
    assert not seen

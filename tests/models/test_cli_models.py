"""The command line's way with networks: summary, training on images of one's own, prediction,
comparison."""

import csv
import importlib.util
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import pydl
import pydl_cli as cli
from pydl import models, nn
from pydl.models.meta import hollow, shapes_alone
from pydl.models.receptive import Whole, receptive_fields
from pydl.models.record import watch
from pydl.train import with_heads
from pydl_cli import compare, weights
from pydl_cli.questions import served

ROOT = Path(pydl.__file__).resolve().parents[1]


def run(*arguments: object) -> str:
    result = CliRunner().invoke(cli.app, list(map(str, arguments)))
    assert result.exit_code == 0, (result.output, result.exception)
    return " ".join(result.output.split())


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """What ``pydl`` says on standard error when it exits with status 2."""

    def said(*arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", ["pydl", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit:
            cli.main()
        assert exit.value.code == 2
        return " ".join(capsys.readouterr().err.split())

    return said


# Layers that are told by rule what shape they give: odd sizes, windows that overhang, one channel.
SHAPES = [
    (nn.Conv1d(4, 6, 3, stride=2, padding=2, dilation=2), (2, 4, 11)),
    (nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 0), groups=2), (2, 4, 9, 8)),
    (nn.Conv2d(4, 6, 3, padding="same"), (2, 4, 9, 8)),
    (nn.Conv3d(4, 6, 2), (2, 4, 5, 6, 7)),
    (nn.ConvTranspose2d(4, 6, 3, stride=2), (2, 4, 5, 6)),
    (nn.ConvTranspose2d(4, 6, (3, 2), (2, 3), (1, 0), (1, 2), 2, dilation=2), (2, 4, 5, 6)),
    (nn.ConvTranspose1d(4, 6, 3, stride=4, padding=2), (2, 4, 5)),
    (nn.MaxPool2d(3, 2), (2, 4, 8, 9)),
    (nn.MaxPool2d(3, 2, padding=1, ceil_mode=True), (2, 4, 8, 9)),
    (nn.MaxPool2d(2, 3, padding=1, ceil_mode=True), (2, 4, 6, 7)),
    (nn.MaxPool2d((2, 3), (2, 1), dilation=2), (2, 4, 8, 9)),
    (nn.AvgPool2d(2, ceil_mode=True), (2, 4, 7, 8)),
    (nn.AdaptiveAvgPool2d((2, None)), (2, 4, 7, 8)),
    (nn.AdaptiveAvgPool2d(3), (2, 4, 7, 8)),
    (nn.MaxPool3d((1, 2, 2)), (2, 4, 5, 7, 8)),
    (nn.MaxPool3d(2, ceil_mode=True), (2, 4, 1, 7, 8)),
    (nn.AvgPool3d(3, 2, padding=1), (2, 4, 5, 7, 8)),
    (nn.AdaptiveAvgPool3d((1, None, None)), (2, 4, 5, 7, 8)),
    (nn.AdaptiveAvgPool3d(1), (2, 4, 5, 7, 8)),
    (nn.BatchNormAct2d(4), (2, 4, 7, 8)),
    (nn.BatchNormAct3d(4), (2, 4, 5, 7, 8)),
    (nn.BatchNorm1d(4), (2, 4)),
    (nn.LocalResponseNorm(5), (2, 4, 7, 8)),
    (nn.Linear(8, 3), (2, 4, 7, 8)),
    (nn.SiLU(), (2, 8)),
]


def test_a_hollow_network_is_the_one_that_is_built() -> None:
    real, made = models.resnet_cifar(20).eval(), hollow(lambda: models.resnet_cifar(20))
    assert repr(made) == repr(real)
    for one, other in zip(made.modules(), real.modules(), strict=True):
        assert vars(one).keys() == vars(other).keys()
    tensors = {**dict(made.named_parameters()), **dict(made.named_buffers())}
    for name, tensor in {**dict(real.named_parameters()), **dict(real.named_buffers())}.items():
        other = tensors.pop(name)
        assert (tensor.shape, tensor.dtype, type(tensor)) == (other.shape, other.dtype, type(other))
        assert other.is_meta and tensor.requires_grad == other.requires_grad
    assert not tensors and len(set(map(id, made.parameters()))) == len(list(real.parameters()))


@pytest.mark.parametrize(("layer", "shape"), SHAPES, ids=lambda one: str(one))
def test_shapes_alone_are_those_of_a_run(layer: torch.nn.Module, shape: tuple[int, ...]) -> None:
    with torch.no_grad():
        real = layer.eval()(torch.rand(shape))
        meta = layer.to("meta")
        with shapes_alone(meta):
            told = meta(torch.empty(shape, device="meta"))
    assert told.shape == real.shape and "forward" not in vars(meta)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (lambda: nn.Conv2d(4, 6, 3), (2, 5, 9, 9)),
        (lambda: nn.Conv2d(4, 6, 3), (2, 4, 2, 9)),
        (lambda: nn.BatchNorm2d(4), (2, 5, 9, 9)),
        (lambda: nn.MaxPool2d(5), (2, 4, 3, 9)),
        (lambda: nn.Linear(8, 3), (2, 7)),
    ],
)
def test_an_input_that_does_not_fit_is_refused(layer, shape) -> None:
    model = hollow(layer)
    with pytest.raises((RuntimeError, ValueError)):
        models.summarize(model, shape)


def test_a_hollow_network_has_the_shapes_and_no_memory() -> None:
    built, empty = models.build("squeezenet1_1").state_dict(), hollow(models.squeezenet1_1)
    assert {name: one.shape for name, one in empty.state_dict().items()} == {
        name: one.shape for name, one in built.items()
    }
    assert all(one.is_meta for one in empty.state_dict().values()) and not empty.training


def test_a_summary_of_a_residual_network_imports_no_compiler() -> None:
    """Which PyTorch does, for seconds, at the first operator that it works out in Python."""
    code = (
        "import sys, pydl_cli\n"
        "sys.argv = ['pydl', 'summary', 'resnet20']\n"
        "try: pydl_cli.main()\n"
        "except SystemExit as exit: assert not exit.code\n"
        "assert not {'sympy', 'torch._dynamo'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True)


class Branches(torch.nn.Module):
    """Three ways that meet in a concatenation, a sum and a product. None of them sees all that the
    others see: their windows lie to the left and to the right."""

    def __init__(self) -> None:
        super().__init__()
        self.right = nn.Conv2d(2, 2, 4, stride=4)
        self.left = nn.AvgPool2d(5, 4, padding=2)
        self.both = nn.Sequential(nn.Conv2d(2, 2, 4, padding="same"), nn.AvgPool2d(1, 4))
        self.mix = nn.Conv2d(4, 4, 3, padding=1)
        self.last = nn.Conv2d(4, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.cat([self.right(x) + self.both(x), self.left(x)], 1)
        y = self.mix(x)
        y = y.view(len(y), 2, 2, *y.shape[2:]).transpose(1, 2).flatten(1, 2)
        return self.last((x + y) * x)


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("axis", (-2, -1))
@pytest.mark.parametrize(
    ("build", "channels", "known"),
    ((lambda: models.resnet_cifar(20), 3, 40), (Branches, 2, 6)),
)
def test_receptive_fields_are_the_support_of_the_gradient(build, channels, known, axis) -> None:
    torch.manual_seed(0)
    shape = (1, channels, *((96, 32) if axis == -2 else (32, 96)))
    fields = receptive_fields(hollow(build), shape, axis)
    assert len(fields) == known
    network, outputs = build().double().eval(), {}
    for parameter in network.parameters():  # so that nothing cancels
        parameter.data.abs_().add_(0.01)
    x = torch.rand(shape, dtype=torch.float64, requires_grad=True)
    with watch(network, after=lambda ran: outputs.update({ran.key: ran.output})):
        network(x)
    compared = 0
    for name, field in fields.items():
        if isinstance(field, Whole) or field.size + 2 * field.stride > 96:
            continue
        middle, seen = outputs[name].shape[axis] // 2, []
        for unit in (middle, middle + 1):
            one = outputs[name].select(axis, unit).sum()
            gradient = torch.autograd.grad(one, x, retain_graph=True)[0].abs()
            seen.append(gradient.sum((0, 1, -3 - axis)).nonzero())
        assert field.size == (seen[0].max() - seen[0].min() + 1).item(), name
        assert field.stride == (seen[1].min() - seen[0].min()).item(), name
        compared += 1
    assert compared >= 5


class Added(torch.nn.Module):
    """A convolution of x + other(x)."""

    def __init__(self, other: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.other, self.conv = other, nn.Conv2d(2, 2, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x + self.other(x))


@pytest.mark.parametrize(
    "other",
    (
        nn.ConvTranspose2d(2, 2, 3, padding=1),
        nn.Conv2d(2, 2, 1, stride=2, padding=16),  # units lie two pixels apart there
        lambda x: nn.functional.interpolate(x[:, :, ::2, ::2], scale_factor=2),
        lambda x: x.cumsum(3),
    ),
)
def test_a_receptive_field_is_not_known_where_an_unknown_one_is_added(other) -> None:
    assert "conv" not in receptive_fields(hollow(lambda: Added(other)), (1, 2, 32, 32))
    alone = receptive_fields(hollow(lambda: Added(nn.Identity())), (1, 2, 32, 32))
    assert alone["conv"].size == 3


def test_a_receptive_field_behind_what_is_not_followed_is_not_known() -> None:
    fields = receptive_fields(hollow(models.stn), (1, 1, 32, 32))
    assert isinstance(fields["0.theta"], Whole) and fields["0.localisation.5"].size == 16
    assert not any(name.startswith("1.") for name in fields)
    said = run("summary", "stn")
    assert "What 1.0, 1.1, 1.2 and 3 others see is not known" in said


def test_published_receptive_fields() -> None:
    """Of Araujo, Norris, Sim 2019, table 1, where the networks are the same."""
    for build, name, size in (
        (models.alexnet_torchvision, "features.12", 195),
        (models.vgg16, "features.30", 212),
        (models.mobilenet_v2, "features.18.2", 491),
    ):
        assert receptive_fields(hollow(build), (1, 3, 224, 224))[name].size == size


def test_the_summary_says_what_units_see_and_who_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    said = run("summary", "lenet5")
    assert re.search(r"pool2 MaxPool2d 16x5x5 16 \w+ 1,200", said)
    assert re.search(r"flatten Flatten 400 all fc3 Linear 120 all aten 48,000", said)
    depthwise = hollow(lambda: nn.Conv2d(96, 96, 3, padding=1, groups=96))
    assert served(depthwise, (32, 96, 56, 56)) == "cpu"
    monkeypatch.setenv("PYDL_BACKEND", "reference")
    assert served(hollow(lambda: nn.Conv2d(4, 4, 3)), (1, 4, 8, 8)) == "aten"


# Training and prediction


def png(path: Path, image: torch.Tensor) -> None:
    """Writes [C, H, W] in 0 ... 1."""
    from PIL import Image

    pixels = (255 * image).byte().permute(1, 2, 0).numpy()
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.squeeze(2) if len(image) == 1 else pixels).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five bright and five dark pictures."""
    pytest.importorskip("PIL")
    torch.manual_seed(0)
    for name, least in (("bright", 0.6), ("dark", 0.0)):
        for number in range(5):
            png(
                tmp_path / "images" / name / f"{number}.png",
                least + 0.4 * torch.rand(3, 24, 24),
            )
    return tmp_path / "images"


def test_the_summary_of_a_network_for_sequences_counts_its_steps(refused) -> None:
    said = run("summary", "rnnsearch", "--input", "7", "--batch", "2")
    assert "Input 7, batch of 2." in said and "encoder.recurrent GRU 7x2x2000" in said
    assert "decoder.attention.read Product 2x1x2000" in said  # one step of the decoder
    assert "output: with the axis of the batch" in said and "sees: the" not in said
    told = refused("summary", "rnnsearch", "--input", "3x7")
    assert "--input must be the steps of a sequence, such as 50, got '3x7'" in told


def test_a_network_trains_resumes_and_predicts(tmp_path: Path, refused) -> None:
    pytest.importorskip("sklearn")
    pytest.importorskip("PIL")
    from pydl.data import digits

    common = ("train", "lenet5", "--data", "digits", "--epochs", 2, "--rate", 0.05)
    common += ("--schedule", "one-cycle", "--augment", "shift")
    file, log, checkpoint = tmp_path / "w.pth", tmp_path / "h.csv", tmp_path / "run.pt"
    said = run(*common, "--output", file, "--csv", log, "--checkpoint", checkpoint)
    assert "1,437 images to learn from, 360 held out, 10 classes" in said
    rows = list(csv.DictReader(log.open()))
    assert [row["number"] for row in rows] == ["1", "2"]
    assert float(rows[1]["held_out_accuracy"]) > 0.8

    again = tmp_path / "again.pth"
    assert "epoch" not in run(*common, "--output", again, "--checkpoint", checkpoint)
    state = torch.load(file, weights_only=True)
    models.lenet5().load_state_dict(state)  # it is one like any other
    assert all(torch.equal(one, torch.load(again)[name]) for name, one in state.items())
    said = refused(*common, "--seed", 1, "--output", again, "--checkpoint", checkpoint)
    assert "is of another run: seed 0 there and 1 here" in said

    split = digits.load(0)
    picked = [split.held_out[number] for number in range(8)]
    files = [tmp_path / f"{number}.png" for number in range(8)]
    for path, (image, _) in zip(files, picked, strict=True):
        png(path, (image * split.deviation[0] + split.mean[0]).clamp(0, 1))
    said = run("predict", "lenet5", *files, "--weights", file, "--top", 1)
    found = re.findall(r"(\d) │ *([\d.]+) %", said)
    right = [int(name) == label for (name, _), (_, label) in zip(found, picked, strict=True)]
    assert sum(right) >= 6


def test_weights_of_other_classes_begin_a_network_whose_backbone_stays(
    tmp_path: Path, folder: Path
) -> None:
    first, second = tmp_path / "first.pth", tmp_path / "second.pth"
    torch.manual_seed(3)
    given = models.lenet5(num_classes=7)
    torch.save(given.state_dict(), first)
    common = ("train", "lenet5", "--data", folder, "--epochs", 1, "--init", first)
    said = run(*common, "--freeze", "backbone", "--output", second)
    assert "Not taken from" in said and "fc5.weight, fc5.bias" in said
    assert "60,856 of 61,026 weights stay as they are" in said
    state, about = weights.read(second)
    assert about is not None and about.classes == ("bright", "dark")
    same = {name for name, one in given.state_dict().items() if torch.equal(one, state[name])}
    assert same == {name for name in state if not name.startswith("fc5")}

    run(*common, "--freeze", 2, "--output", second)
    state, _ = weights.read(second)
    same = {name for name, one in given.state_dict().items() if torch.equal(one, state[name])}
    assert same == {"conv1.weight", "conv1.bias", "conv2.weight", "conv2.bias"}

    bright = folder / "bright" / "0.png"
    said = run("predict", "lenet5", bright, "--weights", second)
    assert "bright │" in said and "dark │" in said
    assert 99.9 < sum(map(float, re.findall(r"([\d.]+) %", said))) < 100.1
    labels = tmp_path / "labels.txt"
    labels.write_text("Tag\nNacht\n")
    said = run("predict", "lenet5", bright, "--weights", second, "--labels", labels)
    assert "Tag" in said and "Nacht" in said


def test_published_weights_predict_numbers_of_classes(tmp_path: Path, folder: Path) -> None:
    file = tmp_path / "squeezenet.pth"
    torch.save(models.squeezenet1_1().state_dict(), file)
    said = run("predict", "squeezenet1_1", folder / "dark" / "0.png", "--weights", file)
    assert len(re.findall(r"│ \d+ │ 0\.\d\d %", said)) == 5


def test_frozen_statistics_stay_too(tmp_path: Path, folder: Path) -> None:
    first, second = tmp_path / "first.pth", tmp_path / "second.pth"
    torch.save(models.resnet_cifar(20).state_dict(), first)
    run(
        *("train", "resnet20", "--data", folder, "--epochs", 1, "--init", first),
        *("--freeze", "backbone", "--output", second, "--channels-last"),
        *("--autocast", "bfloat16", "--augment", "flip", "--augment", "crop"),
    )
    before, (after, _) = torch.load(first), weights.read(second)
    changed = {name for name, one in before.items() if not torch.equal(one, after[name])}
    assert changed == {"fc.weight", "fc.bias"}


def test_auxiliary_heads_learn_too(tmp_path: Path, folder: Path) -> None:
    out = tmp_path / "w.pth"
    said = run("train", "googlenet", "--data", folder, "--epochs", 1, "--batch", 8, "--output", out)
    assert "epoch 1" in said and "aux1.fc2.weight" in weights.read(out)[0]


def test_losses_of_auxiliary_heads_are_added() -> None:
    a, b, target = torch.randn(4, 3), torch.randn(4, 3), torch.tensor([0, 2, 1, 1])
    main, other = (nn.functional.cross_entropy(one, target) for one in (a, b))
    loss = with_heads(pydl.functional.cross_entropy)
    assert torch.isclose(loss((a, None, b), target), main + 0.3 * other)
    assert torch.isclose(loss(a, target), main)


def test_a_seed_repeats_a_run(tmp_path: Path, folder: Path) -> None:
    states = []
    for number, seed in enumerate((1, 1, 2)):
        file = tmp_path / f"{number}.pth"
        common = ("train", "lenet5", "--data", folder, "--epochs", 1, "--output", file)
        run(*common, "--seed", seed, "--augment", "turn")
        states.append(weights.read(file)[0])
    same, other = (
        all(torch.equal(one, states[0][name]) for name, one in state.items())
        for state in states[1:]
    )
    assert same and not other


def idx(path: Path, numbers: np.ndarray) -> None:
    sizes = b"".join(int(size).to_bytes(4, "big") for size in numbers.shape)
    path.write_bytes(bytes([0, 0, 8, numbers.ndim]) + sizes + numbers.astype(np.uint8).tobytes())


def test_folders_are_known_by_what_lies_there(tmp_path: Path, folder: Path, refused) -> None:
    draw = np.random.default_rng(0)
    for part in ("train", "t10k"):
        idx(tmp_path / f"{part}-images-idx3-ubyte", draw.integers(0, 256, (6, 28, 28)))
        idx(tmp_path / f"{part}-labels-idx1-ubyte", np.arange(6) % 3)
    out = ("--epochs", 1, "--output", tmp_path / "w.pth")
    said = run("train", "lenet5", "--data", tmp_path, *out)
    assert "6 images to learn from, 6 held out, 3 classes" in said

    cifar = tmp_path / "cifar"
    cifar.mkdir()
    for name in [*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]:
        records = draw.integers(0, 256, (2, 3073)).astype(np.uint8)
        records[:, 0] = (0, 9)
        (cifar / f"{name}.bin").write_bytes(records.tobytes())
    (cifar / "batches.meta.txt").write_text("".join(f"class{n}\n" for n in range(10)))
    said = refused("train", "lenet5", "--data", cifar, *out)
    assert "lenet5 takes 1 channel, and these images have 3" in said

    parted = tmp_path / "parted"
    for part, number in (("train", 4), ("val", 2)):
        for name in ("a", "b"):
            for n in range(number):
                png(parted / part / name / f"{n}.png", torch.rand(1, 20, 30))
    said = run("train", "lenet5", "--data", parted, *out)
    assert "8 images to learn from, 4 held out, 2 classes" in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("train lenet6 --data digits", "no model is called 'lenet6'"),
        ("train lenet5", "Missing option '--data'"),
        ("train lenet5 --data nowhere", "nowhere is neither"),
        ("train lenet5 --data {tmp}", "holds neither a subfolder of images a class, nor train-"),
        ("train lenet5 --data digits --output w.onnx", "ends in .safetensors or .pth"),
        ("train lenet5 --data digits --freeze head", "--freeze must be backbone, a number"),
        ("train lenet5 --data digits --freeze 5", "would leave nothing to learn: there are 5"),
        ("train lenet5 --data digits --init none.pth", "there is no file none.pth"),
        ("train lenet5 --data digits --init {tmp}/other.pth", "has the weights of another network"),
        ("train lenet5 --data digits --init {tmp}/broken.pth", "cannot be read as a file of"),
        ("train regression --data digits", "regression is for regression, not for classification"),
        ("train segnet --data digits", "segnet is for segmentation, not for classification"),
        ("train lenet5 --data digits --schedule sudden", "Invalid value for '--schedule'"),
        ("predict lenet5 a.png", "Missing option '--weights'"),
        ("predict lenet5 {tmp}/a.png --weights {tmp}/lenet5.pth", "a.png cannot be read as an"),
        ("predict lenet5 a.png --weights {tmp}/other.pth", "has the weights of another network"),
        ("predict zfnet a.png --weights {tmp}/said.pth", "has the weights of lenet5, not of zfnet"),
        ("compare --output a.doc", "--output ends in .png, .svg or .pdf"),
        ("compare --output {tmp}/no/a.png", "there is no folder"),
    ],
)
def test_mistakes_end_in_a_sentence(tmp_path: Path, refused, arguments: str, said: str) -> None:
    for module in ("sklearn", "PIL", "matplotlib"):
        pytest.importorskip(module)
    (tmp_path / "broken.pth").write_bytes(b"nothing")
    (tmp_path / "a.png").write_bytes(b"nothing")
    torch.save(torch.nn.Linear(3, 4).state_dict(), tmp_path / "other.pth")
    torch.save(models.lenet5().state_dict(), tmp_path / "lenet5.pth")
    about = weights.About("lenet5", tuple("0123456789"), (1, 32, 32), (0.5,), (0.5,))
    weights.write(models.lenet5(), tmp_path / "said.pth", about)
    assert said in refused(*arguments.format(tmp=tmp_path).split())


@pytest.mark.parametrize("suffix", weights.SUFFIXES)
def test_weights_come_back_with_what_is_said_of_them(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"w{suffix}"
    model = models.lenet5(num_classes=3)
    about = weights.About("lenet5", ("a", "b", "ç"), (1, 32, 32), (0.25,), (0.5,))
    if suffix == ".safetensors" and importlib.util.find_spec("safetensors") is None:
        with pytest.raises(ImportError, match=r"safetensors is not installed.*end in \.pth"):
            weights.write(model, path, about)
        return
    weights.write(model, path, about)
    state, said = weights.read(path)
    assert said == about and weights.classes_of(models.find("lenet5"), state) == 3
    assert all(torch.equal(one, state[name]) for name, one in model.state_dict().items())


def test_comparison_has_published_accuracies_and_counted_operations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused
) -> None:
    pytest.importorskip("matplotlib")
    kept = {name: row for name, row in models.MODELS.items() if name in ("resnet18", "googlenet")}
    monkeypatch.setattr(models, "MODELS", kept)
    said = run("compare", "--output", tmp_path / "chart.png")
    assert "resnet18 │ 69.8 % │ 1.814 G │ 11.7 M" in said
    assert "googlenet │ 69.8 % │ 1.498 G │ 6.6 M" in said  # without its auxiliary heads
    for name, year, error in compare.ERRORS:
        assert f"{name} │ {year} │ {error:g} %" in said
    assert (tmp_path / "chart.png").read_bytes().startswith(b"\x89PNG")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert "pydl-kernels[plots]" in refused("compare", "--output", tmp_path / "chart.png")


def test_accuracies_are_those_of_networks_of_torchvision() -> None:
    for model in models.MODELS.values():
        if model.top1 is not None:
            assert model.golden == "torchvision" and 55 < model.top1 < 85, model.name

"""The worked numbers of the five lecture decks, a row each; the operators' on every backend that
serves them.

A deck is named by its number and line: 000 advanced topics, 001 review, 002 CNN, 003 Bradbury, 004
tutorial. Where a deck's own figure is wrong, the row has the right one and says so. Not here:

- the printed results of 2, 3 and 21, whose matrices and image are pictures of which no copy is
  kept; their rows hold what the decks say of them, on operands made here;
- 13, an image padded from 6 x 6 to 8 x 8, whose printed result belongs to another picture;
- 28, the costs of style transfer, which come with that system.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from contract import servers

import pydl
from pydl import functional, models, nn
from pydl.models.googlenet_2014 import Inception, googlenet_2014
from pydl.models.receptive import receptive_field


@dataclass(frozen=True)
class Row:
    """``found`` takes the operator and gives what ``right`` says, to within ``within``.

    An operator of ``functional`` takes tensors as nested lists, which it gets in float64, and runs
    once on each backend; layers and networks lie on the meta device.
    """

    number: int
    deck: str
    about: str
    operator: str
    found: Callable[[Callable], object]
    right: object
    within: float = 0.0

    def __str__(self) -> str:
        return f"{self.number}-{self.deck}-{self.about.partition(':')[0].replace(' ', '-')}"


def tensor(values: object) -> torch.Tensor:
    return torch.as_tensor(values, dtype=torch.float64)


def maps(rows: list) -> torch.Tensor:
    """One image, or one filter, of one channel."""
    return tensor(rows)[None, None]


def size(layer: torch.nn.Module, *shape: int) -> tuple[int, ...]:
    """C, H, W behind a layer or network, of one image."""
    return tuple(layer(torch.empty(1, *shape)).shape[1:])


def weights(layer: torch.nn.Module) -> int:
    return layer.weight.numel()


X = [2, 3, 4, -2, -3, -4, 8, 6, -1, -1]  # 001:22
DENSE = (torch.arange(100.0, dtype=torch.float64) * 7 % 11 - 5).view(10, 10)
# A column for each of eight outputs, three weights each, two of them 0 as in the deck.
LOCAL = tensor([[1, 2, -3, 0, 5, 2, -1, 4], [2, -6, 1, 3, -2, 7, 0, 1], [3, 1, 4, -5, 2, 6, 8, -2]])
STEPS = [[100, 100, 200, 200]] * 4  # 002:46
EDGE = [[10, 10, 10, 0, 0, 0]] * 6  # 002:136
FIRST = [[2, 8, 9, 4], [3, 6, 5, 7], [3, 1, 6, 4], [2, 5, 7, 3]]  # 001:305
SECOND = [[12, 20, 30, 0], [8, 12, 2, 0], [34, 70, 37, 4], [112, 100, 25, 12]]
FIVE = [[2, 2, 3, 3, 3], [0, 1, 3, 0, 3], [2, 3, 0, 1, 3], [3, 3, 2, 1, 2], [3, 3, 0, 2, 3]]
CS231N = [[1, 1, 2, 4], [5, 6, 7, 8], [3, 2, 1, 0], [1, 2, 3, 4]]  # 003:392
# Rises by 5.5 a column and 4 a row: differences of 11 and 8 over two pixels.
PLANE = [[5.5 * w + 4 * h for w in range(5)] for h in range(5)]


def pixels(*rows: str) -> list[list[int]]:
    return [[int(value) for value in row.split()] for row in rows]


# The pictures of Deshpande, "A Beginner's Guide To Understanding Convolutional Neural Networks",
# 2016: a filter that looks for a curve, a curve, and another part of the same drawing. They give
# the deck's 6600 and 0.
CURVE = pixels(
    "0 0 0 0 0 30 0",
    "0 0 0 0 30 0 0",
    *["0 0 0 30 0 0 0"] * 4,
    "0 0 0 0 0 0 0",
)
BACK = pixels(
    "0 0 0 0 0 0 30",
    "0 0 0 0 50 50 50",
    "0 0 0 20 50 0 0",
    *["0 0 0 50 50 0 0"] * 4,
)
HEAD = pixels(
    "0 0 0 0 0 0 0",
    "0 40 0 0 0 0 0",
    "40 0 40 0 0 0 0",
    "40 20 0 0 0 0 0",
    "0 50 0 0 0 0 0",
    "0 0 50 0 0 0 0",
    "25 25 0 50 0 0 0",
)

WORDS = ["dog", "cat", "lion", "tiger", "elephant", "cheetah", "monkey", "rabbit", "mouse", "rat"]
VECTORS = tensor(  # animal, domesticated, pet, fluffy: a figure of many texts on embeddings
    [
        *([-0.40, 0.37, 0.02, -0.34], [-0.15, -0.02, -0.23, -0.23], [0.19, -0.40, 0.35, -0.48]),
        *([-0.08, 0.31, 0.56, 0.07], [-0.04, -0.09, 0.11, -0.06], [0.27, -0.28, -0.20, -0.43]),
        *([-0.02, -0.67, -0.21, -0.48], [-0.04, -0.30, -0.18, -0.47]),
        *([0.09, -0.46, -0.35, -0.24], [0.21, -0.48, -0.56, -0.37]),
    ]
)


def nearest(cosine: Callable, words: str) -> list[list[float]]:
    """The place in WORDS of the nearest other word, and its cosine."""
    out = []
    for word in words.split():
        own = WORDS.index(word)
        of_all = cosine(VECTORS, VECTORS[own])
        best = int(of_all.topk(2).indices[1])  # the first is the word itself
        out.append([best, of_all[best].item()])
    return out


def banded(columns: torch.Tensor) -> torch.Tensor:
    """The 10 x 8 matrix whose column o holds three weights in the rows from o on."""
    matrix = columns.new_zeros(10, 8)
    for tap in range(3):
        matrix.diagonal(-tap)[:] = columns[tap]
    return matrix


def lenet_as_a_matrix(conv2d: Callable) -> list[float]:
    """LeNet's first convolution by a matrix of mostly zeros: the largest difference, then rows,
    columns and weights other than 0."""
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(-9, 10, (1, 1, 32, 32), generator=generator).double()
    filters = torch.randint(1, 10, (6, 1, 5, 5), generator=generator).double()
    matrix = tensor(torch.zeros(32, 32, 6, 28, 28))
    at = torch.arange(28)
    h, w = at[:, None], at[None, :]
    for kh in range(5):
        for kw in range(5):
            matrix[h + kh, w + kw, :, h, w] = filters[:, 0, kh, kw]
    # The upper 12 rows of the image, and what follows from them: interpreters take their time.
    upper = torch.einsum("hw,hwfij->fij", image[0, 0, :12], matrix[:12, :, :, :8])
    difference = conv2d(image[:, :, :12], filters)[0] - upper
    matrix = matrix.flatten(2).flatten(0, 1)
    return [difference.abs().max().item(), *matrix.shape, matrix.count_nonzero().item()]


def strongest(conv1d: Callable) -> list[float]:
    """The unit vector along a unit's gradient, and what the unit makes of it."""
    w = tensor([[[1, 2, -2]]])
    x = torch.zeros_like(w).requires_grad_()
    (grad,) = torch.autograd.grad(conv1d(x, w), x, torch.ones_like(w[..., :1]))
    best = grad / grad.norm()
    others = torch.nn.functional.normalize(torch.randn(50, 1, 3, dtype=torch.float64), dim=2)
    assert conv1d(others, w).max() < 3
    return [*best.flatten().tolist(), conv1d(best, w).item()]


def gru(gru_cell: Callable) -> torch.Tensor:
    """r = 1/2 and 3/4, z = 3/4 by biases alone; U crosses the two units."""
    log3 = math.log(3)
    recurrent = tensor([[0, 0]] * 4 + [[0, 2], [4, 0]])
    bias = [0, log3, log3, log3, 0, 0]
    return gru_cell([[0]], [[1, 1]], [[0]] * 6, recurrent, bias, [0] * 6, reset_after=False)


def hog(conv2d: Callable) -> list[float]:
    """Differences across and down in the middle of the plane, their length and angle."""
    across = conv2d(maps(PLANE), maps([[-1, 0, 1]]))[0, 0, 2, 1].item()
    down = conv2d(maps(PLANE), maps([[-1], [0], [1]]))[0, 0, 1, 2].item()
    return [across, down, math.hypot(across, down), math.degrees(math.atan2(down, across))]


def alexnet(summarize: Callable) -> list[int]:
    rows = summarize(models.alexnet_lecture(), (1, 3, 227, 227))
    return [sum(row.weights for row in rows), sum(row.parameters for row in rows)]


def googlenet(summarize: Callable) -> list[int]:
    rows = summarize(network := googlenet_2014(), (1, 3, 224, 224))
    modules = sum(isinstance(module, Inception) for module in network.modules())
    convolutions = sum("Conv" in row.kind for row in rows)
    (average,) = (row for row in rows if row.name == "avgpool")
    return [modules, convolutions, *average.input_shape[1:], *average.output_shape[1:]]


def fields(receptive: Callable, chain: torch.nn.Sequential) -> list[int]:
    last = receptive(chain)[-1]
    return [last.size, last.stride]


def stack(number: int) -> torch.nn.Sequential:
    return nn.Sequential(*[nn.Conv2d(1, 1, 3, bias=False) for _ in range(number)])


# fmt: off
ROWS = (
    Row(1, "000:96", "5x5 image with padding 1: its printed 3x3 is the upper left at stride 1, not "
        "what stride 2 gives", "functional.conv2d",
        lambda f: f(maps(FIVE), maps([[2, 0, 1], [1, 0, 0], [0, 1, 1]]), padding=1)[0, 0],
        [[1, 6, 5, 6, 6], [7, 10, 9, 16, 9], [7, 10, 8, 12, 3], [9, 10, 12, 10, 6],
         [3, 11, 10, 6, 4]]),
    Row(2, "001:22", "dense W'X: a convolution as wide as its input", "functional.conv1d",
        lambda f: f(tensor([[X]]), DENSE.T[:, None]).flatten() - DENSE.T @ tensor(X), [0] * 10),
    Row(3, "001:33", "banded W'X: a locally connected layer", "functional.locally_connected1d",
        lambda f: f(tensor([[X]]), LOCAL[None, None])[0, 0] - banded(LOCAL).T @ tensor(X), [0] * 8),
    Row(3, "001:33", "its weights: 24, where the matrix has 80", "nn.LocallyConnected1d",
        lambda layer: [weights(layer(1, 1, 10, 3)), banded(LOCAL).numel()], [24, 80]),
    Row(4, "001:43", "shared filter 1 0 1", "functional.conv1d",
        lambda f: f(tensor([[X]]), tensor([[[1, 0, 1]]]))[0, 0], [6, 1, 1, -6, 5, 2, 7, 5]),
    Row(5, "001:68", "dense: 200x200x3 to 120,000 units", "nn.Linear",
        lambda layer: weights(layer(200 * 200 * 3, 120_000)), 14.4e9),
    Row(5, "001:83", "locally connected: 120,000 units of 3x3x3", "nn.LocallyConnected2d",
        lambda layer: weights(layer(3, 3, 200, 3, padding=1)), 3_240_000),
    Row(6, "001:116", "96 filters of 11x11x3: 35 K with biases, 002's 34 K without", "nn.Conv2d",
        lambda layer: [weights(c := layer(3, 96, 11)), weights(c) + c.bias.numel()],
        [34_848, 34_944]),
    Row(7, "001:305", "first example under max", "functional.max_pool2d",
        lambda f: f(maps(FIRST), 2)[0, 0], [[8, 9], [5, 7]]),
    Row(7, "001:320", "second example under max", "functional.max_pool2d",
        lambda f: f(maps(SECOND), 2)[0, 0], [[20, 30], [112, 37]]),
    Row(7, "001:331", "second example under average: 78 / 4 is 19.5, printed as 20",
        "functional.avg_pool2d", lambda f: f(maps(SECOND), 2)[0, 0], [[13, 8], [79, 19.5]]),
    Row(8, "001:340", "softmax of 6 0 5 3 8", "functional.softmax",
        lambda f: f([6, 0, 5, 3, 8], 0),
        [0.113517669, 0.000281382168, 0.0417608165, 0.00565171192, 0.838788421], 5e-10),
    Row(8, "001:340", "sum of exponentials: exp(x - log softmax)", "functional.log_softmax",
        lambda f: (tensor(x := [6, 0, 5, 3, 8]) - f(x, 0)).exp(), [3553.88547656] * 5, 5e-9),
    Row(9, "004:683", "softmax of 1.2 .9 .4: the last is .205, cut to .20", "functional.softmax",
        lambda f: f([1.2, 0.9, 0.4], 0), [0.4566, 0.3383, 0.2052], 5e-5),
    Row(10, "002:46", "Sobel: -100 - 200 - 100 + 200 + 400 + 200", "functional.conv2d",
        lambda f: f(maps(STEPS), maps([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]]))[0, 0],
        [[400, 400]] * 2),
    Row(11, "002:94", "filter of ninths", "functional.conv2d",
        lambda f: f(maps(STEPS), maps([[1 / 9] * 3] * 3))[0, 0], [[400 / 3, 500 / 3]] * 2, 1e-9),
    Row(11, "002:94", "the same as a pool", "functional.avg_pool2d",
        lambda f: f(maps(STEPS), 3, 1)[0, 0], [[400 / 3, 500 / 3]] * 2, 1e-9),
    Row(12, "002:136", "vertical edge", "functional.conv2d",
        lambda f: f(maps(EDGE), maps([[1, 0, -1]] * 3))[0, 0], [[0, 30, 30, 0]] * 4),
    Row(14, "002:296", "7 pixels, F 3, P 1, S 2", "nn.Conv2d",
        lambda layer: size(layer(1, 1, 3, padding=1, stride=2), 1, 7, 7), [1, 4, 4]),
    Row(15, "002:383", "HOG: 11 and 8 make 13.60 at 36.03 degrees; a plane with the differences of "
        "the deck's patch", "functional.conv2d",
        hog,
        [11, 8, 13.60, 36.03], 0.005),
    Row(16, "002:558", "LeNet by dense layers", "nn.Linear",
        lambda layer: [weights(layer(32 * 32, 28 * 28 * 6)),
                       weights(layer(14 * 14 * 6, 10 * 10 * 16))], [4_816_896, 1_881_600]),
    Row(16, "002:558", "LeNet by shared weights", "nn.Conv2d",
        lambda layer: [weights(layer(1, 6, 5)), weights(layer(6, 16, 5))], [150, 2_400]),
    Row(17, "002:598", "a convolution is a dense layer most of whose weights are zero",
        "functional.conv2d", lenet_as_a_matrix, [0, 1024, 4704, 117_600]),
    Row(18, "002:612", "AlexNet of the deck without and with biases: 27.55 M is the sum of figures "
        "cut off", "models.summarize",
        alexnet, [28_813_344, 28_823_912]),
    Row(19, "002:798", "3x3 after 3x3 after 3x3", "models.receptive.receptive_field",
        lambda f: [row.size for row in f(stack(3))], [3, 5, 7]),
    Row(19, "002:798", "VGG16's last pool: as Araujo et al. 2019 (distill) have it",
        "models.receptive.receptive_field",
        lambda f: fields(f, models.vgg16().features), [212, 32]),
    Row(19, "002:798", "AlexNet's last pool: as Araujo et al. 2019 (distill) have it",
        "models.receptive.receptive_field",
        lambda f: fields(f, models.alexnet_torchvision().features), [195, 32]),
    Row(20, "002:811", "w'x is largest over unit vectors at w / |w|", "functional.conv1d",
        strongest, [1 / 3, 2 / 3, -2 / 3, 3], 1e-15),
    Row(21, "003:94", "horizontal edge: rows that sum to 5 and 13 give -8, printed as -7",
        "functional.conv2d",
        lambda f: f(maps([[1, 0, 4], [6, 2, 7], [3, 8, 2]]),
                    maps([[1] * 3, [0] * 3, [-1] * 3]))[0, 0], [[-8]]),
    Row(22, "003:369", "weights of six and ten 5x5 filters", "nn.Conv2d",
        lambda layer: [weights(layer(3, 6, 5)), weights(layer(6, 10, 5))], [450, 1_500]),
    Row(22, "003:356", "sizes: 32, 28, 24", "nn.Conv2d",
        lambda layer: [size(first := layer(3, 6, 5), 3, 32, 32),
                       size(nn.Sequential(first, layer(6, 10, 5)), 3, 32, 32)],
        [[6, 28, 28], [10, 24, 24]]),
    Row(23, "003:392", "max pool: the input is CS231n's, of which this is the picture",
        "functional.max_pool2d", lambda f: f(maps(CS231N), 2)[0, 0], [[6, 8], [3, 4]]),
    Row(24, "004:440", "curve detector on a curve: 4 x 50 x 30 + 20 x 30", "functional.conv2d",
        lambda f: f(maps(BACK), maps(CURVE))[0, 0], [[6600]]),
    Row(24, "004:528", "curve detector elsewhere", "functional.conv2d",
        lambda f: f(maps(HEAD), maps(CURVE))[0, 0], [[0]]),
    Row(25, "004:533", "3x3 on 7 pixels at strides 1 and 2", "nn.Conv2d",
        lambda layer: [size(layer(1, 1, 3, stride=s), 1, 7, 7) for s in (1, 2)],
        [[1, 5, 5], [1, 3, 3]]),
    Row(25, "004:571", "three 5x5x3 on 32x32x3 with padding 2", "nn.Conv2d",
        lambda layer: [size(pad, 3, 32, 32)
                       for pad in (nn.ZeroPad2d(2), layer(3, 3, 5, padding=2))],
        [[3, 36, 36], [3, 32, 32]]),
    Row(26, "004:881", "two 3x3 see 5x5 and three 7x7", "models.receptive.receptive_field",
        lambda f: [fields(f, stack(n))[0] for n in (2, 3)], [5, 7]),
    Row(26, "004:881", "with 18 weights for 25 and 27 for 49", "nn.Conv2d",
        lambda layer: [[sum(p.numel() for p in stack(n).parameters()),
                        weights(layer(1, 1, 2 * n + 1))] for n in (2, 3)], [[18, 25], [27, 49]]),
    Row(27, "004:897", "GoogLeNet: 9 modules, 57 convolutions, 7x7x1024 to 1x1x1024",
        "models.summarize", googlenet, [9, 57, 1024, 7, 7, 1024, 1, 1]),
    Row(29, "000:254", "word vectors: the nearest by cosine; for tiger it is dog, as these are "
        "four of many dimensions", "nn.CosineSimilarity",
        lambda layer: nearest(layer(dim=1), "mouse monkey lion dog tiger"),
        [[9, 0.974], [7, 0.931], [4, 0.810], [1, 0.547], [0, 0.322]], 6e-4),
    Row(30, "001:805", "GRU, reset before the product: tanh(2 x 3/4) and tanh(4 x 1/2), of which a "
        "quarter is taken", "functional.gru_cell", gru,
        [[0.25 * math.tanh(1.5) + 0.75, 0.25 * math.tanh(2) + 0.75]], 1e-12),
)
# fmt: on


def runs() -> list:
    out = []
    for row in ROWS:
        where, _, name = row.operator.rpartition(".")
        if where != "functional":
            out.append(pytest.param(row, (None, "meta"), id=str(row)))
            continue
        family = getattr(functional, name).__module__.rpartition(".")[2]
        for server in servers(family):
            out.append(
                pytest.param(row, server.values[0], id=f"{row}-{server.id}", marks=server.marks)
            )
    return out


@pytest.mark.parametrize("row, server", runs())
def test_worked_number(row, server):
    operator = pydl
    for name in row.operator.split("."):
        operator = getattr(operator, name)
    backend, device = server

    def on_backend(*arguments, **keywords):
        operands = [
            tensor(a).to(device) if isinstance(a, (list, torch.Tensor)) else a for a in arguments
        ]
        return operator(*operands, **keywords, backend=backend).cpu()

    if backend is None:
        with torch.device(device):
            found = row.found(operator)
    else:
        found = row.found(on_backend)
    torch.testing.assert_close(tensor(found), tensor(row.right), rtol=0, atol=row.within)


CHAINS = {
    "VGG16": lambda: models.vgg16().features,
    "AlexNet": lambda: models.alexnet_torchvision().features,
    "the deck's AlexNet": models.alexnet_lecture,
    "dilation, and axes that differ": lambda: nn.Sequential(
        nn.Conv2d(3, 4, (5, 3), stride=(1, 2), padding=1),
        nn.Sequential(nn.BatchNormAct2d(4), nn.MaxPool2d((2, 3), (2, 1))),
        nn.Conv2d(4, 4, 3, dilation=(2, 3), groups=4),
        nn.LPPool2d(2, 3),
    ),
}


def sums(layer: torch.nn.Module, axis: int) -> torch.nn.Module:
    """The layer's window along one axis with all weights 1; a maximum may come from any tap."""
    if not hasattr(layer, "kernel_size"):
        return torch.nn.Identity()
    stride = layer.stride or layer.kernel_size
    padding, dilation = getattr(layer, "padding", 0), getattr(layer, "dilation", 1)
    window = [
        value[axis] if isinstance(value, tuple) else value
        for value in (layer.kernel_size, stride, padding, dilation)
    ]
    conv = torch.nn.Conv1d(1, 1, *window, bias=False, dtype=torch.float64)
    torch.nn.init.ones_(conv.weight)
    return conv


@pytest.mark.parametrize("axis", (-2, -1))
@pytest.mark.parametrize("name", CHAINS)
def test_receptive_field_is_the_support_of_the_gradient(name, axis):
    with torch.device("meta"):
        chain = CHAINS[name]()
    rows = receptive_field(chain, axis)
    convolutions = sum(isinstance(layer, nn.Conv2d) for layer in chain.modules())
    assert sum(row.kind == "Conv2d" for row in rows) == convolutions > 0
    x = torch.ones(1, 1, 400, dtype=torch.float64, requires_grad=True)
    y = x
    for row in rows:
        y = sums(chain.get_submodule(row.name), axis)(y)
        middle = y.shape[-1] // 2
        seen = [
            torch.autograd.grad(y[0, 0, unit], x, retain_graph=True)[0].flatten().nonzero()
            for unit in (middle, middle + 1)
        ]
        assert row.size == (seen[0].max() - seen[0].min() + 1).item(), row
        assert row.stride == (seen[1].min() - seen[0].min()).item(), row


def test_receptive_field_is_refused_where_no_chain_is():
    with pytest.raises(ValueError, match="1 is a ConvTranspose2d"):
        receptive_field(nn.Sequential(nn.Conv2d(1, 1, 3), nn.ConvTranspose2d(1, 1, 3)))
    with torch.device("meta"), pytest.raises(ValueError, match="the network is a ResNet"):
        receptive_field(models.resnet18())

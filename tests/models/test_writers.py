"""Writers: what the decoder reads of images, regions, clips and lines, and what it writes."""

from functools import partial

import pytest
import torch

import pydl
from pydl import nn
from pydl.models.sequence.captioner import Captioner, Places
from pydl.models.sequence.clip_captioner import ClipCaptioner
from pydl.models.sequence.crnn import CRNN, Columns
from pydl.models.sequence.decoder import BEGIN
from pydl.models.sequence.line_reader import LineReader
from pydl.models.sequence.region_captioner import RegionCaptioner
from pydl.models.sequence.writer import Writer
from pydl.models.stages import stages
from pydl.models.video.lrcn import LRCN, Frames

SMALL = {"embedding": 3, "hidden": 5, "maxout": 4}
MAPS = (2, 2, 3, 3, 4, 4, 4)


def frames(**options) -> Frames:
    return Frames(stages(1, (4, 6)), 6 * 3 * 4, units=5, hidden=4, **options)


# By kind, the network, the shape of its input, and how many places it reads of that.
KINDS = {
    "image": (lambda **options: Captioner(stages(1, (4, 6)), 6, 9, **options), (1, 12, 16), 48),
    "region": (
        lambda **options: RegionCaptioner(stages(1, (4, 6)), 6, 9, stride=2, grid=3, **options),
        (1, 12, 16),
        9,
    ),
    "clip": (lambda **options: ClipCaptioner(frames(), 9, **options), (1, 5, 6, 8), 5),
    "line": (
        lambda **options: LineReader(Columns(maps=MAPS, hidden=3), 9, **options),
        (1, 32, 24),
        7,
    ),
}
kinds = pytest.mark.parametrize("kind", KINDS)


def network(kind: str = "image", **options) -> Writer:
    torch.manual_seed(0)
    return KINDS[kind][0](**SMALL, **options).double().eval()


@kinds
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_what_it_writes_is_what_it_scores_highest(kind: str, cell: str) -> None:
    model, (_, shape, places) = network(kind, cell=cell), KINDS[kind]
    given = torch.rand(3, *shape, dtype=torch.float64)
    written = model.write(given, longest=6)
    assert written.weights.shape[1:] == (3, places)
    torch.testing.assert_close(
        written.weights.sum(2), torch.ones(written.weights.shape[:2]).double()
    )
    begun = torch.cat([torch.full((1, 3), BEGIN), written.symbols[:-1]])
    with torch.no_grad():
        scores, weights = model(given, begun)
    scores[..., :2] = -torch.inf  # neither padding nor another beginning is written
    ended = written.symbols == 0
    assert torch.equal(scores.argmax(2).masked_fill(ended, 0), written.symbols)
    torch.testing.assert_close(weights[:1], written.weights[:1])
    one = model.write(given, longest=6, width=4)
    assert (one.log_probability >= written.log_probability - 1e-9).all()


# -- images


def test_each_place_has_its_coordinates() -> None:
    found = Places()(torch.zeros(2, 3, 3, 5))
    assert found.shape == (2, 5, 3, 5) and found[:, :3].abs().max() == 0
    assert found[1, 3, 2].tolist() == [-1, -0.5, 0, 0.5, 1]
    assert found[0, 4, :, 1].tolist() == [-1, 0, 1]


def test_one_place_alone_is_read_where_the_others_score_nothing() -> None:
    model = network()
    image = torch.zeros(1, 1, 8, 8, dtype=torch.float64)
    target = torch.tensor([[BEGIN]])
    with torch.no_grad(), pydl.use_backend("reference"):
        state, memory = model.read(image)
        _, _, weights = model.decoder.step(target[0], state, memory)
        by_hand = model.decoder.attention.score(state[0], memory.keys).softmax(1)
    torch.testing.assert_close(weights, by_hand)
    assert memory.values.shape == (1, 16, 8)


# -- regions of images


def test_a_region_is_read_at_its_place_in_the_image() -> None:
    model = RegionCaptioner(nn.Identity(), 1, 9, stride=1, grid=2, **SMALL).double()
    images = torch.zeros(2, 1, 9, 9, dtype=torch.float64)
    images[1] = 7
    regions = torch.tensor([[1, 2, 1, 6, 5], [0, 0, 0, 9, 9]], dtype=torch.float64)
    _, memory = model.read(images, regions)
    # Halves of the boxes have their middles at 3 and 5 across, 2 and 4 down; the middle of the
    # first pixel, 0.5, is -1, that of the last, 8.5, is 1.
    first, whole = (
        torch.tensor([[grey, x, y] for y in down for x in across], dtype=torch.float64)
        for grey, across, down in (
            (7, (-0.375, 0.125), (-0.625, -0.125)),
            (0, (-0.5625, 0.5625), (-0.5625, 0.5625)),
        )
    )
    torch.testing.assert_close(memory.values[0], first)
    torch.testing.assert_close(memory.values[1], whole)


def test_without_regions_each_image_is_one() -> None:
    model = network("region")
    images = torch.rand(2, 1, 12, 16, dtype=torch.float64)
    regions = torch.tensor([[0, 0, 0, 16, 12], [1, 0, 0, 16, 12]], dtype=torch.float64)
    target = torch.tensor([[BEGIN, BEGIN], [4, 5]])
    with torch.no_grad():
        for found, expected in zip(
            model(images, target), model(images, target, regions), strict=True
        ):
            torch.testing.assert_close(found, expected)
        # Several regions of one image, and none of another.
        twice = model(images, target, regions[[1, 1]])[0]
    torch.testing.assert_close(twice[0, 0], twice[0, 1])


# -- clips


def test_scores_of_frames_are_those_of_an_lstm_on_each_frames_features() -> None:
    torch.manual_seed(0)
    model = LRCN(frames(), 3).double().eval()
    clips = torch.rand(2, 1, 5, 6, 8, dtype=torch.float64)
    lstm = torch.nn.LSTM(5, 4).double()
    lstm.load_state_dict(model.frames.recurrent.state_dict())
    with torch.no_grad():
        each = [
            model.frames.linear(model.frames.features(clips[:, :, t]).flatten(1)).relu()
            for t in range(5)
        ]
        states, _ = lstm(torch.stack(each))
        expected = torch.stack([model.scores(state) for state in states], 2)
        found = model(clips)
    assert found.shape == (2, 3, 5)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_frame_knows_what_came_and_in_both_directions_what_comes(bidirectional: bool) -> None:
    torch.manual_seed(0)
    model = LRCN(frames(bidirectional=bidirectional), 3).double().eval()
    clips = torch.rand(1, 1, 5, 6, 8, dtype=torch.float64)
    changed = clips.clone()
    changed[:, :, 2] += 1
    with torch.no_grad():
        far = (model(clips) - model(changed)).abs().amax((0, 1)) > 1e-9
    assert far.tolist() == [bidirectional, bidirectional, True, True, True]


def test_the_order_of_frames_is_read() -> None:
    model = network("clip")
    clips = torch.rand(1, 1, 5, 6, 8, dtype=torch.float64)
    target = torch.tensor([[BEGIN]])
    with torch.no_grad():
        forwards, backwards = (model(one, target)[0] for one in (clips, clips.flip(2)))
        one, weights = model(clips[:, :, :1], target)
    assert (forwards - backwards).abs().max() > 1e-6 and one.shape == forwards.shape
    assert weights.tolist() == [[[1.0]]]


# -- lines


def test_a_reader_reads_the_columns_that_crnn_scores() -> None:
    torch.manual_seed(0)
    build = partial(Columns, maps=MAPS, hidden=3)
    crnn = CRNN(9, maps=MAPS, hidden=3).double().eval()
    columns = build().double().eval()
    missing, unexpected = columns.load_state_dict(crnn.state_dict(), strict=False)
    assert not missing and unexpected == ["scores.weight", "scores.bias"]
    model = LineReader(columns, 9, **SMALL).double().eval()
    images = torch.rand(2, 1, 32, 24, dtype=torch.float64)
    with torch.no_grad():
        _, memory = model.read(images)
        torch.testing.assert_close(crnn.scores(memory.values.transpose(0, 1)), crnn(images))

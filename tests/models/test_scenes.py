"""Scenes: what is said of a picture is true of its pixels."""

import dataclasses

import pytest
import torch
from torch.nn.functional import affine_grid, grid_sample, max_pool2d

pytest.importorskip("sklearn")

from pydl.data import digits, scenes
from pydl.data.sentences import WORDS, reading_order, region, sentence


@pytest.fixture(scope="module")
def made() -> list[scenes.Scene]:
    return scenes.scenes(40, seed=5)


def equal(a: object, b: object) -> bool:
    """Bit for bit, in all fields."""
    for field in dataclasses.fields(a):
        one, other = getattr(a, field.name), getattr(b, field.name)
        if not (torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other):
            return False
    return True


def test_shapes_and_ranges(made: list[scenes.Scene]) -> None:
    assert {len(scene.labels) for scene in made} == {1, 2, 3, 4}
    for scene in made:
        k = len(scene.labels)
        assert scene.image.shape == (1, 96, 96) and scene.image.dtype == torch.float32
        assert scene.image.min() >= 0 and scene.image.max() <= 1
        assert torch.equal((scene.image * 255).round() / 255, scene.image)
        assert scene.map.shape == (96, 96) and scene.map.dtype == torch.int64
        assert scene.masks.shape == (k, 96, 96) and scene.masks.dtype == torch.bool
        assert scene.boxes.shape == (k, 4) and len(scene.regions) == len(scene.string) == k
        assert scene.angles.abs().max() <= 20


def test_boxes_bound_the_masks(made: list[scenes.Scene]) -> None:
    for scene in made:
        for (left, top, right, bottom), mask in zip(
            scene.boxes.int().tolist(), scene.masks, strict=True
        ):
            assert mask[top:bottom, left:right].sum() == mask.sum() > 20
            assert mask[top].any() and mask[bottom - 1].any()
            assert mask[:, left].any() and mask[:, right - 1].any()


def test_the_map_is_the_union_of_the_masks(made: list[scenes.Scene]) -> None:
    for scene in made:
        assert scene.masks.sum(0).max() == 1
        assert torch.equal(scene.map > 0, scene.masks.any(0))
        for mask, label in zip(scene.masks, scene.labels, strict=True):
            assert (scene.map[mask] == label + 1).all()


def test_the_digits_are_what_is_bright(made: list[scenes.Scene]) -> None:
    inside = torch.cat([scene.image[0][scene.map > 0] for scene in made])
    outside = torch.cat([scene.image[0][scene.map == 0] for scene in made])
    assert inside.mean() > 0.65 and outside.mean() < 0.3
    assert outside.quantile(0.99) > 0.5  # scraps: brightness alone does not tell


def test_labels_are_those_of_the_digits(made: list[scenes.Scene]) -> None:
    labels = digits.read(0).labels
    for scene in made:
        assert torch.equal(labels[scene.digits], scene.labels)
        assert scene.string == "".join(map(str, scene.labels.tolist()))


def test_held_out_digits_are_in_held_out_pictures_alone() -> None:
    parts = digits.read(0)
    for held_out, numbers in ((False, parts.train), (True, parts.held_out)):
        for seed in (0, 1):
            given = {"seed": seed, "held_out": held_out}
            found = [
                *(scene.digits for scene in scenes.scenes(12, 64, **given)),
                scenes.distorted(30, **given).digits,
                scenes.clips(30, 2, **given).digits,
            ]
            assert torch.isin(torch.cat(found), numbers).all()


def test_scraps_keep_to_their_side(monkeypatch: pytest.MonkeyPatch) -> None:
    sides = set()
    choose = scenes.collage.choose
    monkeypatch.setattr(
        scenes.collage,
        "choose",
        lambda draw, held_out, count: sides.add(held_out) or choose(draw, held_out, count),
    )
    scenes.scenes(2, held_out=True)
    scenes.distorted(2, held_out=True, clutter=3)
    scenes.clips(2, held_out=True)
    assert sides == {True}


def test_same_seed_same_bits() -> None:
    for make in (scenes.distorted, scenes.clips):
        assert equal(make(3, seed=4), make(3, seed=4))
        assert not equal(make(3, seed=4), make(3, seed=5))
        assert not equal(make(3, seed=4), make(3, seed=4, held_out=True))
    first, again = scenes.scenes(3, seed=4), scenes.scenes(6, seed=4)
    assert all(equal(a, b) for a, b in zip(first, again, strict=False))
    for number, scene in enumerate(again):
        assert all(not equal(scene, other) for other in again[:number])
    assert not equal(first[0], scenes.scenes(1, seed=5)[0])


def test_others_draws_change_nothing() -> None:
    torch.manual_seed(0)
    first = scenes.scenes(2)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    assert all(equal(a, b) for a, b in zip(first, scenes.scenes(2), strict=True))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    "boxes, order",
    [
        pytest.param([[50, 10, 60, 30], [10, 12, 20, 32]], [1, 0], id="a line"),
        pytest.param([[10, 40, 20, 60], [50, 10, 60, 30]], [1, 0], id="two lines"),
        pytest.param(
            [[70, 50, 80, 70], [5, 55, 15, 75], [40, 5, 50, 25], [10, 0, 20, 20]],
            [3, 2, 1, 0],
            id="two lines of two",
        ),
        pytest.param([[5, 20, 15, 40], [50, 0, 90, 60]], [0, 1], id="a small one beside a tall"),
    ],
)
def test_reading_order(boxes: list[list[float]], order: list[int]) -> None:
    assert reading_order(boxes) == order


def test_sentences() -> None:
    three, seven, eight = [10.0, 10, 20, 30], [60.0, 14, 80, 34], [10.0, 60, 30, 90]
    assert sentence([3], [three]) == "a three"
    assert sentence([3, 7], [three, seven]) == "a three left of a seven"
    assert sentence([7, 3], [seven, three]) == "a seven right of a three"
    assert sentence([3, 8], [three, eight]) == "a three above an eight"
    assert sentence([8, 3, 7], [eight, three, seven]) == ("an eight below a three left of a seven")
    assert region(3, three, 96, 96) == "a small three at the top left"
    assert region(8, [40, 30, 60, 62], 96, 96) == "a large eight in the centre"
    assert region(7, [70, 70, 95, 95], 96, 96) == "a small seven at the bottom right"


def test_sentences_follow_from_the_boxes(made: list[scenes.Scene]) -> None:
    said = set()
    for scene in made:
        boxes = scene.boxes.tolist()
        assert reading_order(boxes) == list(range(len(boxes)))
        words = scene.sentence.split()
        assert [w for w in words if w in WORDS] == [WORDS[i] for i in scene.labels.tolist()]
        assert all(WORDS[i] in r for i, r in zip(scene.labels.tolist(), scene.regions, strict=True))
        if len(boxes) == 2:
            centres = (scene.boxes[:, :2] + scene.boxes[:, 2:]) / 2
            across, down = (centres[1] - centres[0]).tolist()
            relation = " ".join(words[2:-2])
            said.add(relation)
            expected = {"left of": across, "right of": -across, "above": down, "below": -down}
            assert expected[relation] == max(expected.values())
    assert {"left of", "above"} <= said


def test_a_line_is_read_from_left_to_right() -> None:
    for scene in scenes.scenes(10, (32, 128), digits=(3, 6), scale=(0.6, 0.9), angle=8):
        assert scene.image.shape == (1, 32, 128) and 3 <= len(scene.string) <= 6
        assert (scene.boxes[:, 2] <= 128).all() and (scene.boxes[:, 3] <= 32).all()
        assert torch.equal(scene.boxes[:, 0].sort().values, scene.boxes[:, 0])


def test_more_digits_are_made_smaller() -> None:
    (scene,) = scenes.scenes(1, 64, digits=(20, 20))
    assert len(scene.labels) == 20 and scene.masks.flatten(1).any(1).all()
    with pytest.raises(ValueError, match="300 digits at least 6 pixels high find no room in 64x64"):
        scenes.scenes(1, 64, digits=(300, 300))
    with pytest.raises(ValueError, match=r"at least 1, got \(0, 2\)"):
        scenes.scenes(1, digits=(0, 2))


@pytest.mark.parametrize("size", [64, (48, 80)], ids=["square", "wide"])
def test_the_affine_truth_gives_the_digit_back(size: int | tuple[int, int]) -> None:
    made = scenes.distorted(32, size, seed=2, scale=(0.5, 0.7))
    upright = scenes.upright(made.digits)
    grid = affine_grid(made.theta, list(upright.shape), align_corners=False)
    back = grid_sample(made.images, grid, align_corners=False)
    # Where there is ink, the ground is covered; elsewhere it is dim.
    full = upright > 0.95
    assert (back - upright)[full].abs().mean() < 0.04
    assert back[upright < 0.02].max() < 0.75

    def likeness(images: torch.Tensor) -> torch.Tensor:
        pairs = torch.stack([back.flatten(1), images.flatten(1)], 1)
        return torch.stack([torch.corrcoef(pair)[0, 1] for pair in pairs])

    own = likeness(upright)
    assert own.min() > 0.88
    assert (own > likeness(upright.roll(1, 0))).all()  # other digits
    assert (own > likeness(upright.roll((2, 2), (2, 3))) + 0.05).all()  # two pixels aside


def test_angles_are_counter_clockwise() -> None:
    made = scenes.distorted(40, 64, seed=3, angle=90)
    assert made.angles.min() < -60 and made.angles.max() > 60
    # The digit's right, a quarter turn further, is the picture's top.
    right = made.theta[:, :, 0]  # [N, (x, y)], downwards
    angles = torch.rad2deg(torch.atan2(-right[:, 1], right[:, 0]))
    torch.testing.assert_close(angles, made.angles, atol=1e-3, rtol=0)


def test_clips_show_their_motion() -> None:
    made = scenes.clips(60, 8, seed=1)
    assert made.frames.shape == (60, 1, 8, 32, 32) and made.masks.shape == (60, 8, 32, 32)
    assert made.masks.flatten(2).any(2).all()
    assert set(made.motions.tolist()) == {0, 1, 2}
    place = torch.arange(32) + 0.5
    area = made.masks.sum((2, 3)).float()  # [N, T]
    centre = torch.stack(
        [(made.masks.sum(2) * place).sum(2) / area, (made.masks.sum(3) * place).sum(2) / area], 2
    )
    travelled = (centre - centre[:, :1]).norm(dim=2).amax(1)
    grown = area.amax(1) / area.amin(1)
    moving, turning, growing = (made.motions == number for number in range(3))
    assert travelled[moving].min() > 2 > travelled[turning].median()
    assert grown[growing].min() > 1.3 and grown[growing].median() > 1.6
    assert grown[moving | turning].max() < 1.45
    for motion, label, said in zip(
        made.motions.tolist(), made.labels.tolist(), made.sentences, strict=True
    ):
        assert said.split()[1:] == [WORDS[label], scenes.MOTIONS[motion]]
    # Nothing but the digit changes: far from it the ground stands still.
    near = max_pool2d(made.masks.any(1, keepdim=True).float(), 7, 1, 3)[:, 0] > 0
    change = (made.frames[:, 0] - made.frames[:, 0, :1]).abs().amax(1)
    assert change[~near].max() < 0.01


def test_a_single_frame_says_nothing_of_the_motion() -> None:
    made = scenes.clips(300, 2, seed=9)
    area = made.masks[:, 1].sum((1, 2)).float()
    means = torch.stack([area[made.motions == number].mean() for number in range(3)])
    assert (means / area.mean() - 1).abs().max() < 0.12
    with pytest.raises(ValueError, match=r"expected a scale below 0\.83"):
        scenes.clips(1, scale=(0.5, 0.9))

"""Clips in which a digit does two things: what is said of them is true of its poses, and of the
pixels, and is not in the middle frame."""

import numpy as np
import pytest
import torch

pytest.importorskip("sklearn")

from pydl.data import collage, digits, scenes
from pydl.data.episodes import ACTS, episodes

# Which of x, y downwards, height and counter-clockwise angle an act changes, and which way.
CHANGES = {
    "moves left": (0, -1),
    "moves right": (0, 1),
    "moves up": (1, -1),
    "moves down": (1, 1),
    "grows": (2, 1),
    "shrinks": (2, -1),
    "turns left": (3, 1),
    "turns right": (3, -1),
}


@pytest.fixture
def poses(monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """The poses [T, 4] of the clips that are made from now on, which are blank."""
    found: list[np.ndarray] = []

    def blank(draw, chosen, poses, held_out, height, width, clutter):
        found.append(poses)
        return torch.zeros(len(poses), height, width), torch.zeros(len(poses), height, width) > 1

    monkeypatch.setattr(collage, "filmed", blank)
    return found


def test_poses_change_as_is_said(poses: list[np.ndarray]) -> None:
    made = episodes(60, seed=1)
    assert made.frames.shape == (60, 1, 10, 40, 40) and made.acts.shape == (60, 10)
    for path, acts, label, said in zip(
        poses, made.acts.tolist(), made.labels.tolist(), made.sentences, strict=True
    ):
        first, second = acts[0], acts[-1]
        turn = acts.index(second)
        assert first != second and 4 <= turn <= 6
        assert acts == [first] * turn + [second] * (10 - turn)
        steps = np.diff(path, axis=0)
        for act, some in ((first, steps[: turn - 1]), (second, steps[turn - 1 :])):
            axis, sign = CHANGES[ACTS[act]]
            assert (some[:, axis] * sign > 0).all() and np.allclose(some, some[0])
            assert np.allclose(np.delete(some, axis, 1), 0)
        words = said.split()
        assert words[1] == scenes.noun(label).split()[1]
        assert " ".join(words[2:]) == f"{ACTS[first]} then {ACTS[second]}"
    every = np.concatenate(poses)
    reach = 0.6 * every[:, 2]
    assert (every[:, :2] >= reach[:, None]).all() and (every[:, :2] <= 40 - reach[:, None]).all()
    assert every[:, 2].min() >= 10 and every[:, 2].max() <= 18 and abs(every[:, 3]).max() <= 60


def test_the_middle_frame_says_nothing_of_the_acts(poses: list[np.ndarray]) -> None:
    made = episodes(1500, seed=2)
    middle = np.stack([path[5] for path in poses])
    deviation = middle.std(0)
    for column in (0, -1):
        for act in range(len(ACTS)):
            some = middle[made.acts[:, column].numpy() == act]
            far = (some.mean(0) - middle.mean(0)) / deviation * len(some) ** 0.5
            assert abs(far).max() < 4, (column, ACTS[act])
    # The last one tells much.
    last = np.stack([path[-1] for path in poses])
    left, right = (
        last[made.acts[:, -1].numpy() == ACTS.index(f"moves {side}"), 0]
        for side in ("left", "right")
    )
    assert right.mean() - left.mean() > 2 * deviation[0]


def test_pixels_show_what_is_said() -> None:
    made = episodes(80, seed=3)
    assert made.masks.flatten(2).any(2).all() and made.frames.max() <= 1
    place = torch.arange(40) + 0.5
    area = made.masks.sum((2, 3)).float()  # [N, T]
    x, y = ((made.masks.sum(axis) * place).sum(2) / area for axis in (2, 3))
    seen = {"moves left": -x, "moves right": x, "moves up": -y, "moves down": y}
    seen |= {"grows": area, "shrinks": -area}
    counted = 0
    for i, acts in enumerate(made.acts.tolist()):
        first, second = (ACTS[acts[at]] for at in (0, -1))
        turn = acts.index(acts[-1])
        for act, begin, end in ((first, 0, turn - 1), (second, turn - 1, 9)):
            if act in seen:
                counted += 1
                assert seen[act][i, end] > seen[act][i, begin], (i, act)
    assert counted > 100


def test_held_out_clips_are_of_held_out_digits_and_repeat() -> None:
    parts = digits.read(0)
    for held_out, numbers in ((False, parts.train), (True, parts.held_out)):
        made = episodes(12, held_out=held_out)
        assert torch.isin(made.digits, numbers).all()
    again = episodes(13, held_out=True)
    assert torch.equal(made.frames, again.frames[:12]) and made.sentences == again.sentences[:12]
    assert not torch.equal(made.frames[0], episodes(1, held_out=True, seed=1).frames[0])


@pytest.mark.parametrize("frames", [4, 14])
def test_too_few_or_too_many_frames_are_refused(frames: int) -> None:
    with pytest.raises(ValueError, match=f"expected 5 to 13 frames, got {frames}"):
        episodes(1, frames)
    assert episodes(1, 13).frames.shape[2] == 13 and episodes(1, 5, clutter=0).acts.shape == (1, 5)

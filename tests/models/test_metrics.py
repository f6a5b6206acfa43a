"""The confusion matrix and what follows from it, beside scikit-learn; and training by it."""

import math

import pytest
import torch
from torch.utils.data import TensorDataset

from pydl import functional, nn
from pydl.train import Confusion, Settings, evaluate, fit, with_heads

metrics = pytest.importorskip("sklearn.metrics")


def drawn(classes: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores [3, classes, 7, 6] of maps [3, 7, 6], better than chance, some of which are ignored;
    the last class occurs in neither."""
    generator = torch.Generator().manual_seed(0)
    target = torch.randint(classes - 1, (3, 7, 6), generator=generator)
    scores = torch.randn(3, classes, 7, 6, generator=generator)
    scores[:, :-1] += nn.functional.one_hot(target, classes - 1).movedim(3, 1)
    scores[:, -1] = -9
    return scores, target


@pytest.mark.parametrize("ignore_index", [-100, 255, 0])
def test_figures_are_scikit_learns(ignore_index: int) -> None:
    scores, target = drawn()
    if ignore_index:
        target[0, 2:4] = ignore_index
    confusion = Confusion(5, ignore_index=ignore_index)
    for one, map in zip(scores.split(1), target.split(1), strict=True):
        confusion.update(one, map)
    counted = target != ignore_index
    truth, read = target[counted].numpy(), scores.argmax(1)[counted].numpy()
    labels = range(5)
    assert (
        confusion.matrix.tolist() == metrics.confusion_matrix(truth, read, labels=labels).tolist()
    )
    assert confusion.accuracy == pytest.approx(metrics.accuracy_score(truth, read))
    recall = metrics.recall_score(truth, read, labels=sorted({*truth}), average="macro")
    assert confusion.mean_accuracy == pytest.approx(recall)
    occur = sorted({*truth, *read})
    expected = metrics.jaccard_score(truth, read, labels=occur, average=None)
    assert confusion.jaccard[occur].tolist() == pytest.approx(expected)
    assert confusion.jaccard[-1].isnan()  # which is nowhere
    assert confusion.mean_jaccard == pytest.approx(expected.mean())
    weighted = metrics.jaccard_score(truth, read, average="weighted")
    assert confusion.frequency_weighted_jaccard == pytest.approx(weighted)


def test_without_a_position_there_are_no_figures() -> None:
    confusion = Confusion(3)
    figures = (
        confusion.accuracy,
        confusion.mean_accuracy,
        confusion.mean_jaccard,
        confusion.frequency_weighted_jaccard,
    )
    assert all(map(math.isnan, figures))


class Two(nn.Module):
    """Scores of pixels from two heads."""

    def __init__(self) -> None:
        super().__init__()
        self.out, self.aux = nn.Conv2d(1, 3, 3, padding=1), nn.Conv2d(1, 3, 1)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"out": self.out(x), "aux": self.aux(x)}


def pictures() -> TensorDataset:
    """Three grey levels, which are the classes; a column that does not count."""
    generator = torch.Generator().manual_seed(0)
    maps = torch.randint(3, (8, 6, 6), generator=generator)
    images = (maps - 1.0)[:, None].clone()
    maps[:, :, 0] = 255
    return TensorDataset(images, maps)


def test_pixels_are_learned_and_what_is_ignored_has_no_part() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 8, 1), nn.ReLU(), nn.Conv2d(8, 3, 1))
    data = pictures()
    settings = Settings(batch=4, rate=0.3, ignore_index=255)
    history = fit(model, data, epochs=30, held_out=data, settings=settings)
    last = history.epochs[-1]
    assert last.accuracy == last.held_out_accuracy == 1
    # The mean over pixels and batch.
    images, maps = data.tensors
    with torch.no_grad():
        log = model(images).log_softmax(1)
        picked = log.gather(1, maps.where(maps < 255, torch.tensor(0))[:, None])[:, 0]
    assert last.held_out_loss == pytest.approx(-picked[maps < 255].mean().item(), rel=1e-4)


def test_a_dict_of_heads_is_trained_and_judged_by_its_first() -> None:
    torch.manual_seed(0)
    model, data = Two(), pictures()
    images, maps = data.tensors
    maps[maps == 255] = -100
    loss = with_heads(functional.cross_entropy)
    scores = model(images)
    out, aux = (nn.functional.cross_entropy(one, maps) for one in scores.values())
    assert torch.isclose(loss(scores, maps), out + 0.5 * aux)
    found = evaluate(model, data, loss=loss)
    right = (scores["out"].argmax(1) == maps)[maps >= 0].double().mean().item()
    assert found.accuracy == pytest.approx(right)
    epoch = fit(model, data, epochs=1, loss=loss, settings=Settings(batch=8, rate=0)).epochs[0]
    assert epoch.accuracy == pytest.approx(right)

"""Classes of texts: concat pooling against its definition, padding that changes nothing, and
ULMFiT's fine-tuning."""

import copy

import pytest
import torch
from torch.nn.utils.rnn import pad_sequence

import pydl
from pydl import train
from pydl.models.sequence.awd_lstm import AWDLSTM
from pydl.models.sequence.classifier import ConcatPooling, SequenceClassifier, ULMFiT
from pydl.train import schedules, transfer

LENGTHS = torch.tensor([3, 5, 1])


def texts() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(1, 9, (length,), generator=generator) for length in LENGTHS.tolist()]


def language_model() -> AWDLSTM:
    torch.manual_seed(0)
    return AWDLSTM(9, embedding=4, hidden=5).double()


def test_concat_pooling_is_last_greatest_and_mean_state() -> None:
    states = -torch.rand(5, 3, 4)  # padding with zeros would be the greatest
    found = ConcatPooling()(states, LENGTHS)
    for example, length in enumerate(LENGTHS.tolist()):
        own = states[:length, example]
        expected = torch.cat([own[-1], own.max(0).values, own.sum(0) / length])
        torch.testing.assert_close(found[example], expected)
    whole = torch.full((3,), 5)
    torch.testing.assert_close(ConcatPooling()(states), ConcatPooling()(states, whole))


@pytest.mark.parametrize("kind", ["bidirectional", "ULMFiT"])
def test_padding_changes_nothing(kind: str) -> None:
    torch.manual_seed(0)
    model = SequenceClassifier(9, 4, embedding=3, hidden=5) if kind == "bidirectional" else None
    model = (model or ULMFiT(language_model(), 4)).double().eval()
    every = texts()
    with torch.no_grad(), pydl.use_backend("cpu", strict=False):
        together = model(pad_sequence(every), LENGTHS)
        for example, text in enumerate(every):
            torch.testing.assert_close(together[example], model(text[:, None])[0])


def test_a_classifier_begins_with_what_the_language_model_knows() -> None:
    model = language_model().eval()
    tuned = ULMFiT(model, 2).double().eval()
    text = texts()[1][:, None]
    states: list[torch.Tensor] = []
    model.dropout.register_forward_hook(lambda _, given, y: states.append(y))
    model(text)
    tuned(text)  # whose last dropout is the language model's
    torch.testing.assert_close(states[1], states[0], rtol=0, atol=0)
    groups = tuned.groups()
    assert sum(map(transfer.count, groups)) == sum(p.numel() for p in tuned.parameters())
    assert [type(group).__name__ for group in groups] == [
        "WordDropout",
        *["WeightDropLSTM"] * 3,
        "Sequential",
    ]


def test_earlier_layers_learn_more_slowly() -> None:
    groups = ULMFiT(language_model(), 2).groups()
    rates = [group["lr"] for group in transfer.discriminative(groups, 0.01)]
    assert rates == pytest.approx([0.01 / 2.6**place for place in (4, 3, 2, 1, 0)])
    optimizer = torch.optim.Adam(transfer.discriminative(groups, 0.01))
    schedule = schedules.slanted_triangle(0.1, 32)(optimizer, 1, 100)
    found = []
    for _ in range(100):
        found.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        schedule.step()
    # The paper's equation 3: cut = 10; p = t / cut, then 1 - (t - cut) / (cut (1 / 0.1 - 1)).
    for t, now in enumerate(found):
        p = t / 10 if t < 10 else 1 - (t - 10) / 90
        assert now == pytest.approx([rate * (1 + p * 31) / 32 for rate in rates]), t


def test_what_is_frozen_keeps_its_bits() -> None:
    model = ULMFiT(language_model(), 2).double()
    groups = model.groups()
    before = copy.deepcopy([group.state_dict() for group in groups])
    every = texts()
    batch = pad_sequence(every)
    for thawed in (1, 2, 5):
        transfer.unfreeze(groups, thawed)
        optimizer = torch.optim.AdamW(transfer.discriminative(groups, 0.1), weight_decay=0.1)
        loss = pydl.functional.cross_entropy(model(batch, LENGTHS), torch.tensor([0, 1, 1]))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        for place, (group, old) in enumerate(zip(groups, before, strict=True)):
            same = all(torch.equal(value, old[key]) for key, value in group.state_dict().items())
            assert same == (place < len(groups) - thawed), (thawed, place)
    with pytest.raises(ValueError, match="count must be 1 to 5, the number of groups, got 6"):
        train.transfer.unfreeze(groups, 6)

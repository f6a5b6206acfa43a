"""A bidirectional LSTM learns in which of eighteen languages a name is, of a country, a language or
a currency, by its letters.

It is held to logistic regression on a bag of characters, which knows how often each letter is in a
name and not in which order. Then AWD-LSTM learns to write such names, of no language in particular,
and is tuned as in ULMFiT to a few names whose language it is told; the same network that begins
with random weights is what that is held to. What is held out is so in all languages.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader

from pydl import functional, nn
from pydl.asked import use_backend
from pydl.data import pairs, phrases
from pydl.data.extras import require
from pydl.data.pairs import Vocabulary
from pydl.data.phrases import Phrases
from pydl.models.sequence.awd_lstm import AWDLSTM
from pydl.models.sequence.classifier import SequenceClassifier, ULMFiT
from pydl.recipes import translation
from pydl.recipes.recipe import Options, Recipe, publish
from pydl.train import Confusion, Epoch, Settings, evaluate, fit, schedules, transfer

if TYPE_CHECKING:
    from rich.console import Console

BETTER = 0.05  # by how much the LSTM is to be right more often than the bag of characters
EPOCHS = 5  # of the LSTM
LM_EPOCHS = 5  # of the language model
FEW = 10  # names of each language that ULMFiT is told of
TUNED_EPOCHS = 25  # with all layers, behind one for each that is thawed
_BATCH, _FEW_BATCH = 64, 16
_RATE, _LM_RATE, _TUNED_RATE = 4e-3, 1e-2, 1e-2

LSTM = "bidirectional LSTM"
BAG = "bag of characters, logistic regression"
TUNED = f"AWD-LSTM, tuned with {FEW} names of each language"
FRESH = "the same from random weights"
FEW_BAG = f"bag of characters with these {FEW}"

Batch = tuple[tuple[torch.Tensor, torch.Tensor], torch.Tensor]


class Whole(nn.Module):
    """A classifier on batches as they come from the data."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Sequence[torch.Tensor]) -> torch.Tensor:
        text, lengths = batch
        return self.model(text, lengths.cpu())


class Next(nn.Module):
    """A language model on texts, (T * B, symbols) scores of what comes next."""

    def __init__(self, model: AWDLSTM) -> None:
        super().__init__()
        self.model = model

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        return self.model(text)[0].flatten(0, 1)


@dataclass(frozen=True)
class Result:
    """What was learned, and how well each says the language of held-out names."""

    model: SequenceClassifier
    vocabulary: Vocabulary
    epochs: Sequence[Epoch]
    found: Mapping[str, Confusion]


def together(made: Sequence[tuple[torch.Tensor, int]]) -> Batch:
    """A batch of encoded names and the numbers of their languages."""
    texts, classes = zip(*made, strict=True)
    lengths = torch.tensor([len(text) for text in texts])
    return (pad_sequence(list(texts)), lengths), torch.tensor(classes)


def begun(made: Sequence[tuple[torch.Tensor, int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """A batch of encoded names for a language model: see :func:`pydl.data.pairs.forced`."""
    return pairs.forced([text for text, _ in made])


def few(made: Sequence[tuple[str, int]], count: int) -> list[tuple[str, int]]:
    """The first so many of each class."""
    left = {number: count for _, number in made}
    found = []
    for text, number in made:
        if left[number]:
            left[number] -= 1
            found.append((text, number))
    return found


def bag(learned: Sequence[tuple[str, int]], data: Phrases) -> Confusion:
    """The baseline: logistic regression on how often each character is in a name."""
    require("sklearn")
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression

    counts = CountVectorizer(analyzer="char", lowercase=False)
    learner = LogisticRegression(max_iter=1000)
    texts, classes = zip(*learned, strict=True)
    learner.fit(counts.fit_transform(texts), classes)
    texts, classes = zip(*data.held_out, strict=True)
    read = torch.from_numpy(learner.predict(counts.transform(texts)))
    found = Confusion(len(data.classes))
    found.update(nn.functional.one_hot(read, len(data.classes)), torch.tensor(classes))
    return found


class Task:
    """Names as numbers of their characters, and batches of them.

    Args:
        data: whose characters get numbers.
        options: of the run.
    """

    def __init__(self, data: Phrases, options: Options) -> None:
        self.data, self.options = data, options
        self.vocabulary = Vocabulary([text for text, _ in data.train])

    def loader(
        self, made: Sequence[tuple[str, int]], *, batch: int = _BATCH, begin: bool = False
    ) -> DataLoader:
        """Shuffled batches, for a classifier or, begun, for a language model."""
        encoded = [(self.vocabulary.encode(text), number) for text, number in made]
        order = torch.Generator().manual_seed(self.options.seed)
        collate = begun if begin else together
        return DataLoader(
            encoded,  # type: ignore[arg-type]
            batch,
            shuffle=True,
            generator=order,
            collate_fn=collate,
        )

    def judge(self, model: nn.Module) -> Confusion:
        """Which language of held-out names the model takes for which."""
        confusion = evaluate(Whole(model), self.loader(self.data.held_out)).confusion
        assert confusion is not None
        return confusion

    def learn(self, model: SequenceClassifier, epochs: int) -> Sequence[Epoch]:
        """AdamW, a rate that rises to 0.004 and falls; the held-out names decide nothing."""
        return fit(
            Whole(model),
            self.loader(self.data.train),
            epochs=epochs,
            held_out=self.loader(self.data.held_out),
            optimizer=torch.optim.AdamW(model.parameters(), _RATE, weight_decay=1e-2),
            schedule=schedules.one_cycle(warm_up=0.2),
            settings=Settings(seed=self.options.seed, clip=1.0),
        ).epochs

    def language_model(self) -> AWDLSTM:
        """A fresh one of characters, with little dropout. Their vectors are short, so their numbers
        begin larger than the paper's: with those the loss was still that of a model without any
        context after 600 steps."""
        model = AWDLSTM(
            len(self.vocabulary),
            embedding=64,
            hidden=128,
            layers=2,
            word_dropout=0.02,
            dropout_in=0.1,
            dropout_between=0.1,
            dropout_out=0.1,
            weight_drop=0.2,
        )
        nn.init.uniform_(model.embedding.weight, -0.5, 0.5)
        return model

    def write(self, model: AWDLSTM, epochs: int) -> Sequence[Epoch]:
        """Lets a language model learn to write the training names, whatever their language."""
        return fit(
            Next(model),
            self.loader(self.data.train, begin=True),
            epochs=epochs,
            optimizer=torch.optim.Adam(model.parameters(), _LM_RATE),
            schedule=schedules.one_cycle(warm_up=0.2),
            loss=translation.next_symbols,
            settings=Settings(seed=self.options.seed, clip=1.0),
        ).epochs

    def tune(self, model: ULMFiT, told: Sequence[tuple[str, int]], epochs: int) -> None:
        """ULMFiT: layers are thawed one after the other, the last first, an epoch each, and then
        all are tuned; earlier ones more slowly, with rates that rise shortly and fall long."""
        groups = model.groups()
        for thawed in range(1, len(groups) + 1):
            transfer.unfreeze(groups, thawed)
            fit(
                Whole(model),
                self.loader(told, batch=_FEW_BATCH),
                epochs=1 if thawed < len(groups) else epochs,
                optimizer=torch.optim.Adam(transfer.discriminative(groups, _TUNED_RATE)),
                schedule=schedules.slanted_triangle(),
                loss=functional.cross_entropy,
                settings=Settings(seed=self.options.seed, clip=1.0),
            )


def _steps(options: Options, console: "Console") -> bool:
    from pydl.recipes import name_languages_page  # which imports matplotlib

    data = phrases.names(options.seed)
    task = Task(data, options)
    symbols, classes = len(task.vocabulary), len(data.classes)
    told = few(data.train, FEW)
    torch.manual_seed(options.seed)
    with use_backend(options.backend):
        model = SequenceClassifier(symbols, classes).to(options.device)
        epochs = task.learn(model, options.epochs or EPOCHS)
        writer = task.language_model().to(options.device)
        fresh = ULMFiT(task.language_model(), classes).to(options.device)
        task.write(writer, options.epochs or LM_EPOCHS)
        tuned = ULMFiT(writer, classes).to(options.device)
        for network in (tuned, fresh):
            task.tune(network, told, options.epochs or TUNED_EPOCHS)
        found = {
            LSTM: task.judge(model),
            BAG: bag(data.train, data),
            TUNED: task.judge(tuned),
            FRESH: task.judge(fresh),
            FEW_BAG: bag(told, data),
        }
        result = Result(model, task.vocabulary, epochs, found)
        html = name_languages_page.html(options, task, result)
    for name, one in found.items():
        console.print(f"{name}: {100 * one.accuracy:.1f} % right", soft_wrap=True)
    publish(html, options, console)
    accuracy = {name: one.accuracy for name, one in found.items()}
    return accuracy[LSTM] >= accuracy[BAG] + BETTER and accuracy[TUNED] > accuracy[FRESH]


RECIPE = Recipe(
    "name-languages",
    "an LSTM says in which of 18 languages a name is, more often right than a bag of characters by "
    f"{100 * BETTER:.0f} points; a language model tuned with a few names does better than without",
    ("sklearn", "babel", "matplotlib"),
    _steps,
)

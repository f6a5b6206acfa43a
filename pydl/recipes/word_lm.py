"""Two networks learn which word comes next in the source of Python's standard library, or in a text
of your own: a small AWD-LSTM, and the feed-forward network of Bengio et al., which sees four words.

They are held to trigrams with Kneser-Ney smoothing, which count how often words follow one another.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from pydl import nn
from pydl.asked import use_backend
from pydl.data import words
from pydl.data.words import Words
from pydl.models.sequence.awd_lstm import AWDLSTM
from pydl.models.sequence.feed_forward_lm import FeedForwardLM
from pydl.recipes import char_lm
from pydl.recipes.kneser_ney import KneserNey
from pydl.recipes.recipe import Options, Recipe, publish
from pydl.train import Step

if TYPE_CHECKING:
    from rich.console import Console

WORDS = 2000  # that have a number
STEPS = 2400  # updates of the weights, which is once through the standard library and a bit
SIZE = 32, 16  # words of a batch, along time and side by side
_EACH = 50  # steps that a point of the curve is the mean of
_SAMPLE = 80  # words that each writes
_START = "\ndef"

RECURRENT, FEED_FORWARD = "AWD-LSTM", "feed-forward network"
TRIGRAMS = "trigrams with Kneser-Ney smoothing"


@dataclass(frozen=True)
class Learned:
    """What a model found in the text."""

    perplexity: float  # of a held-out word
    seconds: float  # of learning
    sample: str  # what it writes
    curve: list[tuple[float, float]]  # steps, and the mean perplexity up to there
    model: nn.Module | None = None


def networks(count: int) -> dict[str, nn.Module]:
    """Fresh ones for so many words.

    There is little to drop out, for they hardly see a text twice. The vectors of AWD-LSTM are
    short, so their numbers begin larger than the paper's, from which it is slow to see any context.
    """
    rates = ("word_dropout", "dropout_in", "dropout_between", "dropout_out")
    recurrent = AWDLSTM(
        count, embedding=128, hidden=256, layers=2, weight_drop=0.05, **dict.fromkeys(rates, 0.0)
    )
    nn.init.uniform_(recurrent.embedding.weight, -0.5, 0.5)
    return {
        RECURRENT: recurrent,
        FEED_FORWARD: FeedForwardLM(count, embedding=64, hidden=128, direct=False),
    }


def beginning(text: Words, options: Options) -> torch.Tensor:
    """What samples go on from: a function of Python, or where the held-out part of a text of one's
    own begins."""
    if options.text is not None:
        return text.held_out[:4]
    return text.vocabulary.encode(words.split(_START))


def learn(model: nn.Module, text: Words, options: Options) -> Learned:
    """Trains a fresh network as the character model is trained, and measures it."""
    losses: list[float] = []
    curve: list[tuple[float, float]] = []

    def keep(step: Step) -> None:
        losses.append(step.loss)
        if step.number % _EACH == 0:
            curve.append((step.number, 2 ** (sum(losses[-_EACH:]) / _EACH)))

    steps = STEPS
    if options.epochs is not None:
        steps = char_lm.steps_of(text.train, options.epochs, SIZE)
    history = char_lm.train(
        model, text.train, steps=steps, seed=options.seed, size=SIZE, on_step=keep
    )
    written = char_lm.go_on(model, beginning(text, options), _SAMPLE, seed=options.seed)
    return Learned(
        2 ** char_lm.bits_per_symbol(model, text.held_out),
        history.epochs[-1].seconds,
        text.vocabulary.decode(written),
        curve,
        model,
    )


def count(text: Words, options: Options) -> Learned:
    """The baseline, counted and measured."""
    began = time.perf_counter()
    trigrams = KneserNey(text.train.numpy(), len(text.vocabulary))
    seconds = time.perf_counter() - began
    written = trigrams.go_on(beginning(text, options).numpy(), _SAMPLE, seed=options.seed)
    sample = text.vocabulary.decode(torch.from_numpy(written))
    return Learned(trigrams.perplexity(text.held_out.numpy()), seconds, sample, [])


def _steps(options: Options, console: "Console") -> bool:
    from pydl.recipes import word_lm_page  # which imports matplotlib

    text = words.load(options.text, size=WORDS)
    console.print(
        f"{len(text.train):,} words to learn from, {len(text.held_out):,} held out, "
        f"{len(text.vocabulary):,} different ones",
        soft_wrap=True,
    )
    found: dict[str, Learned] = {}

    def say(name: str, one: Learned) -> None:
        found[name] = one
        console.print(f"{name}: perplexity {one.perplexity:.2f}, {one.seconds:.0f} s")

    say(TRIGRAMS, count(text, options))
    torch.manual_seed(options.seed)
    with use_backend(options.backend):
        for name, model in networks(len(text.vocabulary)).items():
            say(name, learn(model.to(options.device), text, options))
        html = word_lm_page.html(options, text, found)
    publish(html, options, console)
    return better(found)


def better(found: Mapping[str, Learned]) -> bool:
    """Whether the recurrent network knows the next word better than the baseline does."""
    return found[RECURRENT].perplexity < found[TRIGRAMS].perplexity


RECIPE = Recipe(
    "word-lm",
    "a small AWD-LSTM knows the next word of held-out source better than trigrams with Kneser-Ney "
    "smoothing do; --text FILE for one of your own",
    ("matplotlib",),
    _steps,
    of_text=True,
)

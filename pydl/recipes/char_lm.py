"""A recurrent network learns to write Python from the standard library's own source.

It is trained by truncated backpropagation through time (Williams, Peng 1990, An Efficient
Gradient-Based Algorithm for On-Line Training of Recurrent Network Trajectories): the state goes
from one batch to the next, gradients do not. Batches follow one another, so this is for a single
process.
"""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import DataLoader, Dataset

from pydl import functional, measure, nn
from pydl.asked import use_backend
from pydl.data import text as texts
from pydl.models.sequence.char_lm import CharLM
from pydl.models.stock import as_torch
from pydl.recipes.recipe import Options, Recipe, publish
from pydl.train import History, Settings, Step, evaluate, fit, schedules
from pydl.train.evaluation import Loss
from pydl.visualize import page

if TYPE_CHECKING:
    from rich.console import Console

TARGET = 2.6  # bits per character, on files that were held out
STEPS = 3000  # updates of the weights
STEPS_OF_TIME, STREAMS = 64, 32  # symbols of a batch, along time and side by side

_RATE = 4e-3
_WARM_UP = 0.05  # of all steps
_CLIP = 1.0  # the largest norm of the gradient
_STEPS_WITH_STOCK = 10
# Where the model shows what it writes: after the first step, and at these parts of the way.
_SAMPLES = {0.0: "At first", 0.05: "Train more", 0.3: "Train more", 1.0: "At the end"}
_SAMPLE_LENGTH = 240

# (T, B) characters, and whether the streams begin with them.
Batch = tuple[torch.Tensor, bool]


class Streams(Dataset):
    """A text in streams side by side, cut along time into batches, each the continuation of the
    one before.

    An item is a :data:`Batch` and the T * B characters that come next.

    Args:
        text: numbers of characters.
        steps: how many batches of full length to learn from: where a stream ends, all begin again
            at other places. None for the text once from its first character.
        seed: of the places where streams begin.
        size: T and B.

    Raises:
        ValueError: the text is shorter than a batch.
    """

    def __init__(
        self,
        text: torch.Tensor,
        steps: int | None = None,
        seed: int = 0,
        size: tuple[int, int] = (STEPS_OF_TIME, STREAMS),
    ) -> None:
        self.text = text
        self.time, self.streams = size
        self.length = len(text) // self.streams  # of a stream
        following = self.length - 1
        least = 1 if steps is None else self.time
        if following < least:
            raise ValueError(
                f"expected a text of at least {self.streams * (least + 1):,} symbols, "
                f"{self.streams} streams of {least + 1}, got {len(text):,}"
            )
        self.starts = [0]
        if steps is None:
            self.each = self.batches = math.ceil(following / self.time)
            return
        self.each, self.batches = following // self.time, steps
        drawn = torch.Generator().manual_seed(seed)
        turns = math.ceil(steps / self.each)
        self.starts = torch.randint(len(text) // 2, (turns,), generator=drawn).tolist()

    def __len__(self) -> int:
        return self.batches

    def __getitem__(self, i: int) -> tuple[Batch, torch.Tensor]:
        turn, part = divmod(i, self.each)
        begin = part * self.time
        end = min(begin + self.time + 1, self.length)
        streams = self.starts[turn] + torch.arange(self.streams) * self.length
        places = torch.arange(begin, end)[:, None] + streams  # [T + 1, B]
        characters = self.text[places % len(self.text)].long()
        return (characters[:-1], part == 0), characters[1:].flatten()


class Continuing(nn.Module):
    """Goes on with each batch from the state that the one before left.

    No gradient goes back there.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.state: Any = None

    def forward(self, batch: Batch) -> torch.Tensor:
        """(T * B, characters) scores."""
        text, begins = batch
        scores, state = self.model(text, None if begins else self.state)
        self.state = _detached(state)
        return scores.flatten(0, 1)


def _detached(state: Any) -> Any:
    """A state's tensors without their graph: alone, in a tuple, or in one for each layer."""
    if isinstance(state, tuple):
        return tuple(map(_detached, state))
    return state.detach()


def bits(scores: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """The mean cross entropy of (N, characters) scores, in bits."""
    return functional.cross_entropy(scores, target) / math.log(2)


def stock_bits(scores: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """The same by PyTorch's own cross entropy."""
    return nn.functional.cross_entropy(scores, target) / math.log(2)


def train(
    model: nn.Module,
    text: torch.Tensor,
    *,
    steps: int,
    seed: int = 0,
    size: tuple[int, int] = (STEPS_OF_TIME, STREAMS),
    loss: Loss = bits,
    on_step: Callable[[Step], None] | None = None,
) -> History:
    """Trains by Adam, a rate that rises to 0.004 over the first 5 % of the steps and falls to 0.

    Args:
        model: trained in place.
        text: the characters to learn from.
        steps: how many updates.
        seed: of the places where streams begin.
        size: of a batch: symbols along time, and side by side.
        loss: from scores and characters, in bits.
        on_step: called after every update.

    Returns:
        All steps as one epoch.
    """
    return fit(
        Continuing(model),
        DataLoader(Streams(text, steps, seed, size), batch_size=None),
        epochs=1,
        optimizer=torch.optim.Adam(model.parameters(), _RATE),
        schedule=schedules.cosine(_WARM_UP),
        loss=loss,
        settings=Settings(clip=_CLIP),
        on_step=on_step,
    )


def steps_of(
    text: torch.Tensor, epochs: int, size: tuple[int, int] = (STEPS_OF_TIME, STREAMS)
) -> int:
    """How many updates go through a text so many times."""
    return epochs * max(1, len(text) // math.prod(size))


def bits_per_symbol(model: nn.Module, text: torch.Tensor) -> float:
    """The mean cross entropy of each symbol of ``text`` given those before it in its stream."""
    batches = DataLoader(Streams(text), batch_size=None)
    return evaluate(Continuing(model), batches, loss=bits).loss


def difference_from_stock(
    model: CharLM, text: torch.Tensor, *, steps: int = _STEPS_WITH_STOCK, seed: int = 0
) -> float:
    """Trains two copies of ``model`` for a few steps, the second made of torch.nn's layers.

    Returns:
        By how many bits their losses differ at most.
    """
    ours, theirs = copy.deepcopy(model), as_torch(copy.deepcopy(model))
    losses: tuple[list[float], list[float]] = [], []
    for one, loss, found in zip((ours, theirs), (bits, stock_bits), losses, strict=True):

        def keep(step: Step, found: list[float] = found) -> None:
            found.append(step.loss)

        train(one, text, steps=steps, seed=seed, loss=loss, on_step=keep)
    return max(abs(a - b) for a, b in zip(*losses, strict=True))


@torch.no_grad()
def go_on(
    model: nn.Module, start: torch.Tensor, length: int, *, temperature: float = 0.7, seed: int = 0
) -> torch.Tensor:
    """Lets a language model go on from ``start``, drawing each next symbol by its probability.

    Args:
        model: from (T, B) symbols and a state to (T, B, symbols) scores and the state after; left
            in the mode it was in.
        start: the numbers of at least one symbol.
        length: how many to write.
        temperature: scores are divided by it; towards 0 the likeliest symbol always wins.
        seed: of the draws.

    Returns:
        ``start`` and what was written, int64.
    """
    training = model.training
    model.eval()
    device = next(model.parameters()).device
    generator = torch.Generator().manual_seed(seed)
    written = [start.long()]
    state = None
    for _ in range(length):
        scores, state = model(written[-1][:, None].to(device), state)
        odds = functional.softmax(scores[-1, 0] / temperature, 0).cpu()
        written.append(torch.multinomial(odds, 1, generator=generator))
    model.train(training)
    return torch.cat(written)


def write(
    model: CharLM, start: str, length: int, *, temperature: float = 0.7, seed: int = 0
) -> str:
    """``start`` and so many characters more: see :func:`go_on`."""
    numbers = go_on(model, texts.encode(start), length, temperature=temperature, seed=seed)
    return texts.decode(numbers)


@dataclass(frozen=True)
class Learned:
    """What came of it."""

    bits: float  # per character of the held-out text
    seconds: float  # of training
    difference: float | None  # from torch.nn, in bits, over the first steps
    samples: list[tuple[str, str]]  # when, and what the model wrote then


def learn(
    model: CharLM,
    text: texts.Text,
    console: "Console",
    *,
    steps: int = STEPS,
    seed: int = 0,
    start: str = "def ",
    target: float | None = None,
) -> Learned:
    """Trains a fresh model, and says on a console how it goes and what it writes on the way.

    Args:
        start: what it goes on from.
        target: in bits per held-out character, to be named; None where there is none.
    """
    from rich.rule import Rule
    from rich.text import Text

    console.print(
        f"{len(text.train):,} characters to learn from, {len(text.held_out):,} held out, "
        f"{len(texts.ALPHABET)} different ones"
    )
    difference = None
    if getattr(model.recurrent, "reset_after", True):  # torch.nn has no other GRU
        difference = difference_from_stock(model, text.train, seed=seed)
        console.print(
            f"The first {_STEPS_WITH_STOCK} steps beside the same model on torch.nn: losses at "
            f"most {difference:.1e} bits apart",
            soft_wrap=True,
        )
    shown = {max(1, round(part * steps)): title for part, title in _SAMPLES.items()}
    samples: list[tuple[str, str]] = []

    def show(step: Step) -> None:
        if step.number in shown:
            title = f"{shown[step.number]}: step {step.number}, {step.loss:.2f} bits"
            samples.append((title, write(model, start, _SAMPLE_LENGTH, seed=seed)))
            # All at once, on a line of its own, for the progress bar is on the current one.
            parts = "", Rule(title, align="left"), Text(samples[-1][1])
            console.print(*parts, sep="\n", soft_wrap=True)

    history = train(model, text.train, steps=steps, seed=seed, on_step=show)
    seconds = history.epochs[-1].seconds
    console.rule(align="left")
    console.print(f"{steps} steps in {seconds:.0f} s")
    found = bits_per_symbol(model, text.held_out)
    told = "" if target is None else f"; the target is {target}"
    console.print(f"{found:.3f} bits per character of what was held out{told}", soft_wrap=True)
    return Learned(found, seconds, difference, samples)


def _page(learned: Learned, text: texts.Text, device: torch.device) -> str:
    figures = [
        (
            f"{learned.bits:.2f} bits",
            f"a character of {len(text.held_out):,} that were held out; the target is {TARGET}",
            learned.bits < TARGET,
        ),
        (f"{learned.seconds:.0f} s", f"of training on {len(text.train):,} characters", True),
    ]
    if learned.difference is not None:
        what = f"between the losses of {_STEPS_WITH_STOCK} steps and those of torch.nn's layers"
        figures.append((f"{learned.difference:.1e} bits", what, True))
    written = [
        page.section(title, f'<div class="scroll"><pre>{escape(sample)}</pre></div>')
        for title, sample in learned.samples
    ]
    lead = f"""A recurrent network read Python, character by character, and learned what comes next.
        Below is what it wrote on the way, each time after <code>def</code>. The text:
        {escape(text.source)} ({escape(text.licence)})."""
    parts = [page.tiles(figures), *written]
    return page.page("A network writes Python", lead, parts, measure.versions(device))


def _steps(options: Options, console: "Console") -> bool:
    device = torch.device(options.device)
    torch.manual_seed(options.seed)
    model = CharLM(len(texts.ALPHABET)).to(device)
    text = texts.load()
    steps = STEPS
    if options.epochs is not None:
        steps = steps_of(text.train, options.epochs)
    with use_backend(options.backend):
        learned = learn(model, text, console, steps=steps, seed=options.seed, target=TARGET)
    publish(_page(learned, text, device), options, console)
    return learned.bits < TARGET


RECIPE = Recipe(
    "char-lm",
    f"an LSTM writes Python: source that was held out takes less than {TARGET} bits per character",
    (),
    _steps,
)

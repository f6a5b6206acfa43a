"""Networks that write, step by step, against stock PyTorch: ``python bench/sequences.py --out
FILE``.

A sentence read by the encoder, one step of the decoder with attention, a thousand sentences
translated greedily, and a step of training of AWD-LSTM and ELMo. Ours and theirs, the same network
made of torch.nn's layers, share their weights and are timed in turns in one process, after their
results have been compared. Where the reset acts before the recurrent product PyTorch has no
operator, and theirs is the cell, or the loop over steps, that one would write with it.

With one thread the processor's time counts, which other programs have no part in. The layers alone
are timed by ``bench/rnn.py``.
"""

import argparse
import fnmatch
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402

from pydl import functional, measure  # noqa: E402
from pydl.bench import options  # noqa: E402
from pydl.bench.results import write_table  # noqa: E402
from pydl.models.sequence.awd_lstm import AWDLSTM  # noqa: E402
from pydl.models.sequence.decoder import Decoder  # noqa: E402
from pydl.models.sequence.elmo import CHARACTERS, WORD, elmo_small  # noqa: E402
from pydl.models.sequence.translator import Encoder, Translator  # noqa: E402
from pydl.models.stock import as_torch  # noqa: E402

SYMBOLS, HIDDEN, PLACES = 1000, 256, 30  # of decoders: of words, units and places of the memory
SENTENCES, WORDS, AT_ONCE = 1000, 20, 100  # translated
STREAMS, STEPS = 20, 35  # of AWD-LSTM's training
ELMO_BATCH, ELMO_WORDS = 8, 20

# What one side of a measurement does, made of a network; the results are compared.
Action = Callable[[], tuple[torch.Tensor, ...]]
Run = Callable[[torch.nn.Module], Action]

RESET = {"cell": "gru", "reset_before": True}
CELLS = {"GRU": {"cell": "gru"}, "LSTM": {"cell": "lstm"}, "GRU, reset before": RESET}


@dataclass(frozen=True)
class Case:
    """A network, made when it is asked for, and what is done with it; with that of torch.nn's
    layers ``stock``, where that is another function."""

    name: str
    build: Callable[[], torch.nn.Module]
    run: Run
    stock: Run | None = None

    def sides(self) -> dict[str, Action]:
        """What is to be timed, of one set of weights."""
        torch.manual_seed(0)
        ours = self.build()
        theirs = as_torch(ours)
        return {"ours": self.run(ours), "theirs": (self.stock or self.run)(theirs)}


def _read(batch: int) -> Run:
    generator = torch.Generator().manual_seed(1)
    source = torch.randint(3, SYMBOLS, (WORDS, batch), generator=generator)
    return lambda model: torch.inference_mode()(lambda: model(source))


def _step(batch: int) -> Run:
    generator = torch.Generator().manual_seed(1)
    values = torch.randn(batch, PLACES, 2 * HIDDEN, generator=generator)
    h = torch.randn(batch, HIDDEN, generator=generator).tanh()
    written = torch.randint(3, SYMBOLS, (batch,), generator=generator)

    def run(model: torch.nn.Module) -> Action:
        with torch.inference_mode():
            state, memory = model.begin(h), model.remember(values)  # once a sentence

        @torch.inference_mode()
        def step() -> tuple[torch.Tensor, ...]:
            scores, after, weights = model.step(written, state, memory)
            return scores, *after, weights

        return step

    return run


def _translated(model: torch.nn.Module) -> Action:
    generator = torch.Generator().manual_seed(1)
    batches = [
        (
            torch.randint(3, SYMBOLS, (WORDS, AT_ONCE), generator=generator),
            torch.randint(WORDS // 2, WORDS + 1, (AT_ONCE,), generator=generator),
        )
        for _ in range(SENTENCES // AT_ONCE)
    ]

    @torch.inference_mode()
    def translate() -> tuple[torch.Tensor, ...]:
        # Random weights end nothing: all sentences become as long as they may.
        written = (model.write(*batch, longest=WORDS) for batch in batches)
        return tuple(one.log_probability for one in written)

    return translate


def _gradients(model: torch.nn.Module, loss: torch.Tensor) -> tuple[torch.Tensor, ...]:
    learned = [one for one in model.parameters() if one.requires_grad]
    return (loss.detach(), *torch.autograd.grad(loss, learned))


def _language(loss: Callable[..., torch.Tensor]) -> Run:
    generator = torch.Generator().manual_seed(1)
    text = torch.randint(10_000, (STEPS + 1, STREAMS), generator=generator)

    def run(model: torch.nn.Module) -> Action:
        def train() -> tuple[torch.Tensor, ...]:
            scores, _ = model(text[:-1])
            return _gradients(model, loss(scores.flatten(0, 1), text[1:].flatten()))

        return train

    return run


def _vectors(model: torch.nn.Module) -> Action:
    generator = torch.Generator().manual_seed(1)
    words = torch.randint(1, CHARACTERS, (ELMO_WORDS, ELMO_BATCH, WORD), generator=generator)
    return lambda: _gradients(model, model(words).square().mean())


def _awd_lstm() -> AWDLSTM:
    """The paper's for the Penn Treebank, which drops nothing out: both sides compute alike."""
    rates = ("word_dropout", "dropout_in", "dropout_between", "dropout_out", "weight_drop")
    return AWDLSTM(10_000, **dict.fromkeys(rates, 0.0))


def cases() -> Iterator[Case]:
    """All that there are."""
    for name, cell in CELLS.items():
        for batch in (1, 32):

            def decoder(cell: dict = cell) -> torch.nn.Module:
                return Decoder(SYMBOLS, 2 * HIDDEN, hidden=HIDDEN, **cell).eval()

            yield Case(f"decoder step, {name}, batch {batch}", decoder, _step(batch))
    for batch in (1, 32):

        def encoder() -> torch.nn.Module:
            return Encoder(SYMBOLS, 64, HIDDEN, reset_before=True).eval()

        yield Case(f"encoder, GRU, reset before, batch {batch}", encoder, _read(batch))
    for reset in (True, False):

        def translator(reset: bool = reset) -> torch.nn.Module:
            sizes = {"embedding": 64, "hidden": HIDDEN}
            return Translator(SYMBOLS, SYMBOLS, reset_before=reset, **sizes).eval()

        kind = "reset before" if reset else "reset after"
        yield Case(f"{SENTENCES} sentences, GRU, {kind}", translator, _translated)
    entropies = functional.cross_entropy, torch.nn.functional.cross_entropy
    yield Case("training, AWD-LSTM", _awd_lstm, *map(_language, entropies))
    yield Case("training, ELMo, small", elmo_small, _vectors)


def check(sides: dict[str, Action]) -> None:
    """Raises AssertionError where results differ by more than rounding, relative to the largest."""
    for mine, their in zip(*(run() for run in sides.values()), strict=True):
        bound = 1e-4 * their.abs().max().item()
        torch.testing.assert_close(mine, their, rtol=1e-4, atol=bound)


def row(case: Case, seconds: float) -> dict[str, str]:
    """One measurement."""
    sides = case.sides()
    check(sides)
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    taken = measure.interleave(sides, seconds=seconds, rounds=(5, 400), clock=clock)
    mine, their, versions = taken["ours"], taken["theirs"], measure.versions()
    return {
        "case": case.name,
        "threads": str(torch.get_num_threads()),
        "ours_us": f"{1e6 * mine.median:.1f}",
        "theirs_us": f"{1e6 * their.median:.1f}",
        "ratio": f"{their.median / mine.median:.2f}",
        "ours_least_us": f"{1e6 * mine.minimum:.1f}",
        "theirs_least_us": f"{1e6 * their.minimum:.1f}",
        "ratio_of_least": f"{their.minimum / mine.minimum:.2f}",
        "device": measure.device_name(),
        "date": time.strftime("%Y-%m-%d"),
        **{name: versions[name] for name in ("torch", "torch_isa", "pydl_isa")},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", default="*", help="patterns of names, separated by semicolons")
    options.add_isa_to(parser)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=1.0, help="for a case")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    options.hold_to(given.isa)
    torch.set_num_threads(given.threads)
    if given.threads == 1:
        measure.pin_to_one_core()
    rows: list[dict[str, str]] = []
    for case in cases():
        if not any(fnmatch.fnmatch(case.name, pattern) for pattern in given.cases.split(";")):
            continue
        made = row(case, given.seconds)
        rows.append(made)
        print(
            f"{made['ratio']:>6}x of medians {made['ratio_of_least']:>6}x of the least "
            f"{made['ours_us']:>12} us  {case.name}",
            flush=True,
        )
    if given.out is not None and rows:
        write_table(rows[0], rows, given.out)


if __name__ == "__main__":
    main()

"""The baseline of language models: n-grams with interpolated, modified Kneser-Ney smoothing.

With the count c of an n-gram, the probability of a word w behind the context u of n - 1 words is

    p(w | u) = (c(u w) - D(c(u w))) / c(u) + b(u) p(w | u')

where c(u) is the sum of c(u w) over all words, u' is u without its first word, and b(u) is the part
of c(u) that the discounts D took away, so that the sum over w is 1. Of the longest n-grams c counts
how often they occur, of shorter ones behind how many different words; behind single words come
equal probabilities. A context that was never seen is passed over: b is 1.

Source: Kneser, Ney 1995, Improved Backing-off for M-gram Language Modeling; Chen, Goodman 1999, An
Empirical Study of Smoothing Techniques for Language Modeling, whose discounts of counts of 1, 2 and
more differ (Kneser and Ney have one).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

Discounts = tuple[float, float, float]  # of a count of 1, of 2, and of any larger one

# Where too few n-grams are rare to estimate them from, as in KenLM.
USUAL: Discounts = (0.5, 1.0, 1.5)


class _Length(NamedTuple):
    """All that was seen of one length, contexts and n-grams each in order of their numbers."""

    grams: np.ndarray
    kept: np.ndarray  # c(u w) - D(c(u w))
    contexts: np.ndarray
    totals: np.ndarray  # c(u)
    freed: np.ndarray  # b(u) c(u)


class KneserNey:
    """The n-grams of a text.

    Args:
        text: (N,) numbers of words, from 0.
        words: how many there are.
        order: n of the longest n-grams.
        discounts: of each length, from single words; None estimates them as Chen and Goodman do,
            from how many n-grams have the counts 1 to 4.

    Raises:
        ValueError: the text is shorter than an n-gram, or there are more n-grams than numbers of 64
            bits.
    """

    def __init__(
        self,
        text: np.ndarray,
        words: int,
        order: int = 3,
        discounts: Sequence[Discounts] | None = None,
    ) -> None:
        if len(text) < order:
            raise ValueError(f"expected at least {order} words, got {len(text)}")
        if words**order >= 2**63:
            raise ValueError(f"{order}-grams of {words:,} words have no numbers of 64 bits")
        self.words, self.order = words, order
        grams, counts = np.unique(self._numbers(text, order), return_counts=True)
        lengths = []
        for length in range(order, 0, -1):
            taken = estimate(counts) if discounts is None else discounts[length - 1]
            lengths.append(self._length(grams, counts, taken))
            # Of the text's own n-grams, and not of those above, which lack its first.
            every = grams if length == order else np.unique(self._numbers(text, length))
            grams, counts = np.unique(every % words ** (length - 1), return_counts=True)
        self.lengths = lengths[::-1]  # from single words

    def _numbers(self, text: np.ndarray, length: int) -> np.ndarray:
        """(N - length + 1,) numbers of a text's n-grams: their words are the digits."""
        count = len(text) - length + 1
        numbers = np.zeros(count, np.int64)
        for place in range(length):
            numbers = numbers * self.words + text[place : place + count]
        return numbers

    def _length(self, grams: np.ndarray, counts: np.ndarray, discounts: Discounts) -> _Length:
        taken = np.array([0.0, *discounts])[np.minimum(counts, 3)]
        context = grams // self.words  # in order as the n-grams are
        first = np.flatnonzero(np.diff(context, prepend=-1))
        totals, freed = (np.add.reduceat(values, first) for values in (counts, taken))
        return _Length(grams, counts - taken, context[first], totals, freed)

    def probabilities(self, text: np.ndarray) -> np.ndarray:
        """(N - order + 1,) of each word of a text (N,) that has a whole context before it."""
        return self._of(self._numbers(text, self.order))

    def following(self, context: np.ndarray) -> np.ndarray:
        """(words,) of each word behind a context of order - 1 words."""
        (number,) = self._numbers(context, self.order - 1)
        return self._of(number * self.words + np.arange(self.words))

    def _of(self, grams: np.ndarray) -> np.ndarray:
        found = np.full(len(grams), 1 / self.words)
        for length, seen in enumerate(self.lengths, 1):
            ends = grams % self.words**length
            place, known = _places(seen.contexts, ends // self.words)
            total, freed = seen.totals[place], seen.freed[place]
            at, there = _places(seen.grams, ends)
            own = np.where(there, seen.kept[at], 0)
            found = np.where(known, (own + freed * found) / total, found)
        return found

    def perplexity(self, text: np.ndarray) -> float:
        """The exponential of the mean cross entropy of those words."""
        return float(np.exp(-np.log(self.probabilities(text)).mean()))

    def go_on(
        self, start: np.ndarray, length: int, *, temperature: float = 0.7, seed: int = 0
    ) -> np.ndarray:
        """``start``, at least order - 1 words, and so many more, each drawn by its probability;
        towards the temperature 0 the likeliest always wins."""
        drawn, written = np.random.default_rng(seed), list(start)
        for _ in range(length):
            odds = self.following(np.array(written[len(written) - self.order + 1 :]))
            odds **= 1 / temperature
            written.append(drawn.choice(self.words, p=odds / odds.sum()))
        return np.array(written)


def estimate(counts: np.ndarray) -> Discounts:
    """Chen and Goodman's discounts for n-grams of these counts; the usual ones where no n-gram has
    one of the counts 1 to 4, or where that gives less than 0 or more than there is."""
    one, two, three, four = (int((counts == number).sum()) for number in range(1, 5))
    if not (one and two and three and four):
        return USUAL
    y = one / (one + 2 * two)
    found = 1 - 2 * y * two / one, 2 - 3 * y * three / two, 3 - 4 * y * four / three
    return found if all(0 <= d <= n for n, d in enumerate(found, 1)) else USUAL


def _places(keys: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where each of some numbers is among ``keys``, and whether it is there at all."""
    places = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return places, keys[places] == wanted

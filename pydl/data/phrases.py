"""Short texts that belong to classes: names of countries, languages and currencies in eighteen
languages, from the Unicode CLDR by Babel, or the lines of a file that you have."""

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydl.data import pairs
from pydl.data.extras import require

SOURCE = "names in the Unicode CLDR, by Babel"
LICENCE = "Unicode License v3"
# Those of Europe that are written in Latin letters, by the codes of CLDR.
LANGUAGES = (
    *("cs", "da", "de", "es", "et", "fi", "fr", "hr", "hu"),
    *("it", "nb", "nl", "pl", "pt", "ro", "sk", "sl", "sv"),
)
_KINDS = ("territories", "languages", "currencies")
# One of so many names is held out, in all languages.
_HELD_OUT = 5


@dataclass(frozen=True)
class Phrases:
    """Texts and the numbers of their classes: those to learn from, and others that only measure."""

    train: Sequence[tuple[str, int]]
    held_out: Sequence[tuple[str, int]]
    classes: Sequence[str]
    source: str
    licence: str


def names(seed: int, languages: Sequence[str] = LANGUAGES) -> Phrases:
    """What countries, languages and currencies are called, each in every language that has a name
    of its own for it: what two languages call alike belongs to neither. What is held out is so in
    all languages.

    Raises:
        MissingExtraError: Babel is not installed.
    """
    require("babel")
    from babel import Locale

    called: dict[tuple[str, str], list[str | None]] = defaultdict(lambda: [None] * len(languages))
    for number, language in enumerate(languages):
        for kind in _KINDS:
            for code, name in getattr(Locale(language), kind).items():
                called[kind, code][number] = name
    every = sorted(called)
    random.Random(seed).shuffle(every)
    kept = len(every) // _HELD_OUT

    def own(things: Iterable[tuple[str, str]]) -> list[tuple[str, int]]:
        found = []
        for thing in things:
            count = Counter(called[thing])
            for number, name in enumerate(called[thing]):
                if name and count[name] == 1 and any(map(str.isalpha, name)):
                    found.append((name, number))
        return found

    displayed = [Locale(language).get_display_name("en") or language for language in languages]
    return Phrases(own(every[kept:]), own(every[:kept]), displayed, SOURCE, LICENCE)


def load(file: Path, seed: int = 0) -> Phrases:
    """Lines of a text, a tab and the name of its class; a tenth, drawn at random, is held out.

    Raises:
        CorruptFileError: a line has no tab or several, or the file is not UTF-8.
        ValueError: there are fewer than ten lines, or a single class.
    """
    listed = pairs.load(file, seed)
    classes = sorted({name for _, name in (*listed.train, *listed.held_out)})
    if len(classes) < 2:
        raise ValueError(f"expected at least two classes in {file}, got {classes[0]!r} alone")
    number = {name: i for i, name in enumerate(classes)}
    train, held_out = (
        [(text, number[name]) for text, name in some] for some in (listed.train, listed.held_out)
    )
    return Phrases(train, held_out, classes, listed.source, listed.licence)

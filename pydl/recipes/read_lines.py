"""A CRNN learns to read images of words or lines of your own: ``pydl run read-lines --data DIR``.

:mod:`pydl.data.lines` says what the folder holds. Beside the page lies what the network reads in
the held-out images, ``read.tsv``.
"""

from typing import TYPE_CHECKING

import torch

from pydl import measure
from pydl.asked import use_backend
from pydl.data import lines
from pydl.models.sequence import ctc
from pydl.recipes import reading
from pydl.recipes.reading import Alphabet
from pydl.recipes.recipe import Options, Recipe, publish

if TYPE_CHECKING:
    from rich.console import Console

EPOCHS = 30

NETWORK = "CRNN"
NEAREST = "nearest neighbour of the whole image"


def _steps(options: Options, console: "Console") -> bool:
    from pydl.recipes import reading_page  # which imports matplotlib
    from pydl.visualize import page, plots, shares

    assert options.data is not None
    data = lines.load(options.data, options.seed)
    alphabet = Alphabet(data.train.texts)
    torch.manual_seed(options.seed)
    model = reading.network(len(alphabet)).to(options.device)
    with use_backend(options.backend):
        epochs = reading.train(
            model,
            data,
            alphabet,
            epochs=options.epochs or EPOCHS,
            options=options,
            console=console,
        )
        read = ctc.beam(reading.columns(model, data.held_out.images), reading.WIDTH)
        texts = {
            NETWORK: [alphabet.decode(text) for text, _ in read],
            NEAREST: reading.nearest(data),
        }
        found = {name: reading.score(one, data.held_out.texts) for name, one in texts.items()}
        album = plots.Album(options.output)
        some = data.held_out.images[:32].to(options.device)
        time = shares.of_layers(model.eval(), some)
    ours, theirs = found[NETWORK], found[NEAREST]
    lead = f"""A network read {len(data.train.texts):,} of your images and was told what they say,
        and then read {len(data.held_out.texts)} that it had never seen."""
    parts = [
        page.tiles(
            [
                (
                    f"{100 * ours.errors:.1f} %",
                    "of the characters in held-out images wrong, missing or too many",
                    ours.errors < theirs.errors,
                ),
                (f"{100 * ours.exact:.1f} %", "of these images right from end to end", True),
                (f"{100 * theirs.errors:.1f} %", f"of the characters wrong by {NEAREST}", True),
            ]
        ),
        reading_page.scores(
            found, "Held-out images. <i>Nearest neighbour</i>: what the most similar one says."
        ),
        reading_page.learning(album, {reading_page.CTC: epochs}),
        reading_page.wrong(data.held_out, texts[NETWORK]),
        page.where_time_goes(time, f"{len(some)} images"),
    ]
    versions = measure.versions(torch.device(options.device))
    publish(page.page("Reading your images", lead, parts, versions), options, console)
    rows = zip(data.held_out.texts, texts[NETWORK], strict=True)
    file = options.output / "read.tsv"
    file.write_text("".join(f"{right}\t{one}\n" for right, one in rows), encoding="utf-8")
    console.print(f"{file} has what the held-out images say and what was read", soft_wrap=True)
    return ours.errors < theirs.errors


RECIPE = Recipe(
    "read-lines",
    "a CRNN learns from images of words or lines of your own and what they say, and reads others "
    "better than their nearest neighbour does",
    ("PIL", "rapidfuzz", "matplotlib"),
    _steps,
    of_data=True,
)

"""The page of the recipe ``name-languages``."""

from html import escape

import torch

from pydl import measure, nn
from pydl.data.phrases import LANGUAGES
from pydl.models.sequence.classifier import SequenceClassifier
from pydl.recipes.name_languages import BAG, BETTER, FEW, FRESH, LSTM, TUNED, Result, Task, together
from pydl.recipes.recipe import Options
from pydl.visualize import page, plots, shares

WRONG = 14  # names that are not right
_BATCH = 64  # names of which the time is shown


class _Read(nn.Module):
    """The classifier on names whose lengths are known."""

    def __init__(self, model: SequenceClassifier, lengths: torch.Tensor) -> None:
        super().__init__()
        self.model, self.lengths = model, lengths

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        return self.model(text, self.lengths)


def html(options: Options, task: Task, result: Result) -> str:
    """The page; its plots go to ``options.output`` as files as well.

    Args:
        options: of the run.
        task: what was learned from and measured on.
        result: what was found.
    """
    album = plots.Album(options.output)
    data = task.data
    lead = f"""What countries, languages and currencies are called in {len(data.classes)} languages:
        a network read {len(data.train):,} names letter by letter, each with its language, and then
        said it of {len(data.held_out):,} names of other things. The names: {escape(data.source)}
        ({escape(data.licence)})."""
    encoded = [(task.vocabulary.encode(text), number) for text, number in data.held_out]
    (text, lengths), _ = together(encoded[:_BATCH])
    text = text.to(options.device)
    model = result.model.eval()
    time = shares.of_layers(_Read(model, lengths), text)
    counts = result.found[LSTM].matrix.cpu()
    matrix = album("confusion", plots.confusion_matrix, counts, LANGUAGES)
    parts = [
        _tiles(result),
        _scores(result),
        page.section(
            "Which language is taken for which",
            page.paragraph("Held-out names, by the codes of CLDR."),
            page.picture(matrix, "Which language was taken for which"),
        ),
        _wrong(options, encoded, task, model),
        page.where_time_goes(time, f"{_BATCH} names"),
    ]
    versions = measure.versions(torch.device(options.device))
    return page.page("Which language is a name in?", lead, parts, versions)


def _tiles(result: Result) -> str:
    right = {name: one.accuracy for name, one in result.found.items()}
    return page.tiles(
        [
            (
                f"{100 * right[LSTM]:.1f} %",
                f"of the held-out names right by the {LSTM}; the target is {100 * BETTER:.0f} "
                "points more than the bag of characters has",
                right[LSTM] >= right[BAG] + BETTER,
            ),
            (f"{100 * right[BAG]:.1f} %", f"by a {BAG}", True),
            (
                f"{100 * right[TUNED]:.1f} %",
                f"by a language model tuned with {FEW} names of each language",
                right[TUNED] > right[FRESH],
            ),
            (f"{100 * right[FRESH]:.1f} %", "by the same from random weights", True),
            (f"{result.epochs[-1].seconds:.0f} s", f"of training the {LSTM}", True),
        ]
    )


def _scores(result: Result) -> str:
    rows = [
        [escape(name), f"{100 * one.accuracy:.1f}", f"{100 * one.recall.min().item():.1f}"]
        for name, one in result.found.items()
    ]
    return page.section(
        "Beside others",
        page.paragraph("""
            Held-out names; what is held out is so in all languages. <i>A bag of characters</i> is
            how often each letter is in a name, whatever their order. <i>Tuned</i>: AWD-LSTM learned
            to write all training names, without being told their languages, and then, as in ULMFiT,
            the languages of a few, its layers thawed one after the other."""),
        page.table(["", "right, %", "of the worst language"], rows, numbers=(1, 2)),
    )


def _wrong(
    options: Options,
    encoded: list[tuple[torch.Tensor, int]],
    task: Task,
    model: SequenceClassifier,
) -> str:
    (text, lengths), _ = together(encoded)
    with torch.no_grad():
        read = model(text.to(options.device), lengths).argmax(1).tolist()
    classes = task.data.classes
    rows = [
        [escape(name), classes[number], classes[found]]
        for (name, number), found in zip(task.data.held_out, read, strict=True)
        if number != found
    ]
    return page.section(
        "What is wrong",
        page.paragraph(f"The first of the {len(rows)} held-out names that are not right."),
        page.table(["name", "language", "taken for"], rows[:WRONG]),
    )

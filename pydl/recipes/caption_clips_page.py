"""The page of the recipe ``caption-clips``."""

from html import escape

import torch

from pydl import measure
from pydl.data import episodes
from pydl.recipes import writing_page
from pydl.recipes.caption_clips import FRAME, FRAMES, NEAR_CHANCE, NETWORK, TARGET, Result, parts
from pydl.recipes.recipe import Options
from pydl.visualize import page, plots, shares
from pydl.visualize.attention import matrix
from pydl.visualize.thumbnails import grey, thumbnails

SHOWN = 4  # clips with which frames were read for each word


def html(options: Options, learned: int, result: Result) -> str:
    """The page; its plots go to ``options.output`` as files as well.

    Args:
        options: of the run.
        learned: how many clips the networks learned from.
        result: what was found.
    """
    album = plots.Album(options.output)
    lead = f"""A network saw {learned:,} clips of a handwritten digit that does two things, one
        after the other: its convolutions learned which digit is in a frame, then LRCN what is done
        in each, then a captioner on top of it wrote sentences. It was asked about
        {len(result.held_out.frames)} clips with digits that it had never seen. The middle frame
        says nothing of what is done: only who sees the others can know. The digits:
        {escape(episodes.SOURCE)} ({escape(episodes.LICENCE)})."""
    some = result.held_out.frames[:32].to(options.device)
    time = shares.of_layers(writing_page.Greedy(result.clips.model.eval()), some)
    sections = [
        _tiles(result),
        _looks(album, result),
        writing_page.scores(
            result.found,
            """Sentences about held-out digits. <i>The same network, told one frame</i>, learned in
            the same way from the middle frame of each clip. <i>The nearest clip</i> is that
            training clip whose pixels differ least, frame by frame.""",
        ),
        _right(result),
        writing_page.learning(album, result.clips.epochs, "clips"),
        writing_page.wrong(
            result.held_out.sentences, result.texts[NETWORK], lambda i: _clip(result, i), "19rem"
        ),
        page.where_time_goes(time, f"{len(some)} clips, written about word by word"),
    ]
    versions = measure.versions(torch.device(options.device))
    return page.page("Saying what a digit does", lead, sections, versions)


def _clip(result: Result, i: int) -> page.Picture:
    return thumbnails(result.held_out.frames[i, 0], grey, limits=(0, 1))


def _tiles(result: Result) -> str:
    ours, frame = result.found[NETWORK], result.found[FRAME]
    _, *acts = parts(result.texts[NETWORK], result.held_out.sentences)
    best = max(one.exact for name, one in result.found.items() if name != NETWORK)
    frames, guessed = (one.confusion.accuracy for one in (result.clips, result.frame))
    return page.tiles(
        [
            (
                f"{100 * ours.exact:.1f} %",
                f"of {len(result.held_out.frames)} sentences about held-out digits right to the "
                "last word",
                ours.exact > best,
            ),
            (f"{100 * frame.exact:.1f} %", "by the same network told one frame", True),
            (
                f"{100 * min(acts):.1f} %",
                "of the sentences right about the first act, or the second, whichever are fewer; "
                f"the target is {100 * TARGET:.0f} %",
                min(acts) >= TARGET,
            ),
            (
                f"{100 * frames:.1f} %",
                "of held-out frames in which LRCN is right about what is done; the target is "
                f"{100 * FRAMES:.0f} %",
                frames >= FRAMES,
            ),
            (
                f"{100 * guessed:.1f} %",
                f"by LRCN told one frame; guessing gets {100 / len(episodes.ACTS):.1f} %",
                guessed < NEAR_CHANCE,
            ),
            (
                f"{100 * result.pointing:.1f} %",
                "of the verbs in right sentences were written while a frame in which that is done "
                "was read most",
                True,
            ),
        ]
    )


def _looks(album: plots.Album, result: Result) -> str:
    pictures = []
    texts = result.texts[NETWORK]
    numbers = [str(number + 1) for number in range(result.held_out.frames.shape[2])]
    for i in range(SHOWN):
        words = texts[i].split()
        weights = result.clips.weights[: len(words), i].T  # [T, N words]
        image = album(f"attention{i + 1}", matrix, weights, words, numbers)
        pictures += [
            page.gallery([(_clip(result, i), f"<b>{escape(texts[i])}</b>")], fill=True),
            page.picture(image, f"Which frames were read for each word of {texts[i]!r}"),
        ]
    return page.section(
        "Where in time it looks",
        page.paragraph("""
            The first held-out clips and the sentences that the network wrote. A column for each
            frame, a row for each word: the darker, the more of the attention; each row adds up to
            1."""),
        *pictures,
    )


def _right(result: Result) -> str:
    acts = zip(episodes.ACTS, result.clips.confusion.recall.tolist(), strict=True)
    rows = [
        [escape(name), *(f"{100 * part:.1f}" for part in parts(text, result.held_out.sentences))]
        for name, text in result.texts.items()
    ]
    return page.section(
        "What of it is right",
        page.paragraph("""
            Of all sentences, how many name the right digit, what it does first, what it does
            then."""),
        page.table(["", "digit, %", "first, %", "then, %"], rows, numbers=(1, 2, 3)),
        page.paragraph("""
            Frame by frame, of the held-out frames in which something is done, how many LRCN takes
            for such."""),
        page.table(
            ["", "right, %"], [[act, f"{100 * part:.1f}"] for act, part in acts], numbers=(1,)
        ),
    )

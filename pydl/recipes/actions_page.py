"""The page of the recipe ``actions``."""

import torch

from pydl import measure
from pydl.data import scenes
from pydl.recipes.actions import NEAR_CHANCE, TARGET, Data, Result
from pydl.recipes.recipe import Options
from pydl.train import Confusion
from pydl.visualize import page, plots, shares
from pydl.visualize.curves import curves
from pydl.visualize.thumbnails import ink, thumbnails

SHOWN = 4  # clips of each motion


def html(options: Options, data: Data, clip: Result, frame: Result, stopped: Confusion) -> str:
    """The page; its plots go to ``options.output`` as files as well.

    Args:
        options: of the run.
        data: what was learned from and measured on.
        clip: what the 3-D network found.
        frame: what the network that sees one frame found.
        stopped: how the 3-D network judged clips that stand still.
    """
    album = plots.Album(options.output)
    shown = data.held_out.tensors[0][:32].to(options.device)
    lead = f"""Digits move, turn, or grow and shrink. Where they are, how large and how far turned
        is spread alike in all three, so that only the change from frame to frame tells them apart,
        and only a network that sees it can. The digits: {scenes.SOURCE} ({scenes.LICENCE})."""
    parts = [
        _tiles(len(data.held_out), len(data.train), clip, frame, stopped),
        _clips(data, clip),
        _learning(album, clip, frame),
        _matrices(clip, frame, stopped),
        page.where_time_goes(shares.of_layers(clip.model.eval(), shown), "32 clips"),
    ]
    versions = measure.versions(torch.device(options.device))
    return page.page("What a digit does", lead, parts, versions)


def _tiles(held_out: int, train: int, clip: Result, frame: Result, stopped: Confusion) -> str:
    return page.tiles(
        [
            (
                f"{100 * clip.confusion.accuracy:.1f} %",
                f"of {held_out} held-out clips judged right by the 3-D network; the target is "
                f"{100 * TARGET:.0f} %",
                clip.confusion.accuracy >= TARGET,
            ),
            (
                f"{100 * frame.confusion.accuracy:.1f} %",
                "by a network that sees one frame; guessing gets "
                f"{100 / len(scenes.MOTIONS):.1f} %",
                frame.confusion.accuracy < NEAR_CHANCE,
            ),
            (
                f"{100 * stopped.accuracy:.1f} %",
                "by the 3-D network when the clip stands still",
                stopped.accuracy < NEAR_CHANCE,
            ),
            (
                f"{clip.epochs[-1].seconds:.0f} s",
                f"of training the 3-D network on {train:,} clips",
                True,
            ),
        ]
    )


def _clips(data: Data, clip: Result) -> str:
    clips, motions = data.held_out.tensors
    device = next(clip.model.parameters()).device
    pictures = []
    for motion, name in enumerate(scenes.MOTIONS):
        some = clips[motions == motion][:SHOWN]
        with torch.no_grad():
            sure = clip.model.eval()(some.to(device)).softmax(1).cpu()
        for frames, (part, read) in zip(some[:, 0], zip(*sure.max(1), strict=True), strict=True):
            said = f"<b>{name}</b>, read as {scenes.MOTIONS[read]} ({100 * part:.0f} % sure)"
            seen = frames * data.deviation + data.mean
            pictures.append((thumbnails(seen, ink, limits=(0, 1)), said))
    return page.section(
        "Clips",
        page.paragraph("""
            The first held-out clips of each motion, eight frames from left to right, of digits that
            no clip to learn from shows, and what the 3-D network makes of them."""),
        page.gallery(pictures, "19rem"),
    )


def _learning(album: plots.Album, clip: Result, frame: Result) -> str:
    title = "Held-out clips judged right (%)"
    series = {
        name: [(epoch.number, 100 * (epoch.held_out_accuracy or 0)) for epoch in one.epochs]
        for name, one in (("3-D network", clip), ("one frame", frame))
    }
    image = album("learning", curves, title, "epoch", series)
    return page.section(
        "Learning",
        page.paragraph("""
            Both networks see the same clips, played forwards or backwards and mirrored at random,
            which changes no motion into another; one of them sees only the middle frame."""),
        page.picture(image, title),
    )


def _matrices(clip: Result, frame: Result, stopped: Confusion) -> str:
    rows = [
        [name if not shown else "", motion, *(f"{count:,}" for count in counts)]
        for name, found in (
            ("3-D network", clip.confusion),
            ("one frame", frame.confusion),
            ("the clip stopped", stopped),
        )
        for shown, (motion, counts) in enumerate(
            zip(scenes.MOTIONS, found.matrix.tolist(), strict=True)
        )
    ]
    return page.section(
        "Which motion is taken for which",
        page.paragraph("""
            Held-out clips. <i>One frame</i> is the same network, but that its convolutions are
            1&times;3&times;3 instead of 3&times;3&times;3, trained in the same way on the middle
            frame of each clip. <i>The clip stopped</i> is the 3-D network, as trained, on clips
            whose middle frame stands still: nothing is left to go by."""),
        page.table(
            ["", "shown", *(f"as {motion}" for motion in scenes.MOTIONS)],
            rows,
            numbers=(2, 3, 4),
        ),
    )

"""The benchmark's page: what it shows, what it loads (nothing), and files that are none of its."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from pydl.bench import reading, run
from pydl.bench.memory_bound import shares
from pydl.bench.page import document
from pydl.bench.results import write_csv
from pydl.bench.row import Row

RESULTS = Path(__file__).resolve().parents[2] / "bench" / "results"
FACTS = {"device": "A <Processor>", "threads": "1", "torch": "2.13.0", "date": "2026-11-30"}


def row(case: str = "alexnet.pool1", ratio: float | None = 2.0, **more: object) -> Row:
    known = {
        "kind": "forward",
        "operator": "max_pool2d",
        "shape": "16x96x55x55",
        "weight": "",
        "arguments": "",
        "layout": "nchw",
        "dtype": "float32",
        "asked": "auto",
        "ratio_of": "minimum",
        "status": "ok",
        "backend": "cpu",
        "copy_minimum": 1000.0,
        "copies": 0.5,
        "copies_theirs": 4.0,
    }
    return Row(case, ratio=ratio, **(known | more))


def written(folder: Path, *rows: Row) -> Path:
    write_csv(Row, rows, FACTS, folder / "results.csv")
    return folder / "results.csv"


class Seen(HTMLParser):
    """The tags of a page, and what each of its lists of bars says, line by line."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)
        entry = r'class="name">([^<]+)</span><span class="about">.*?class="ratio (\w+)">([\d.]+)&'
        self.lines = re.findall(entry, html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def test_wins_and_losses_are_shown_the_fastest_first(tmp_path: Path) -> None:
    rows = (
        row("alexnet.pool2", 0.5, ratio_compiled=0.25),
        row("alexnet.lrn1", 20.0, operator="local_response_norm"),
        row("alexnet.conv1", 1.4, operator="conv2d", backend="aten"),
        row("alexnet.pool5", 3.0, dtype="bfloat16"),
    )
    html = document([written(tmp_path, *rows)])
    assert Seen(html).lines == [
        ("alexnet.lrn1", "win", "20.0"),
        ("alexnet.conv1", "even", "1.40"),  # PyTorch's own operator served
        ("alexnet.pool2", "lose", "0.50"),
        ("alexnet.pool5", "win", "3.00"),
    ]
    assert '<b class="lose">0.25&times;</b>' in html and "bfloat16: 0 of 1 are slower" in html
    assert "<h2>Layers, forward, contiguous</h2>" in html


def test_passes_layouts_and_threads_are_cards_of_their_own(tmp_path: Path) -> None:
    file = written(tmp_path, row(), row(kind="both"), row(layout="channels_last"))
    written(tmp_path / "two", row())
    text = (tmp_path / "two" / "results.csv").read_text().replace(",1,2.13.0", ",2,2.13.0")
    (tmp_path / "threads.csv").write_text(text)
    titles = re.findall(r"<h2>(Layers[^<]*)", document([file, tmp_path / "threads.csv"]))
    assert titles == [
        "Layers, forward, contiguous",
        "Layers, forward + backward, contiguous",
        "Layers, forward, channels last",
        "Layers, forward, contiguous, 2 threads",
    ]


def test_of_a_long_list_both_ends_are_open(tmp_path: Path) -> None:
    ratios = [1.02**i / 2 for i in range(100)]
    html = document([written(tmp_path, *(row(ratio=ratio) for ratio in ratios))])
    head, _, rest = html.partition("timings between these")
    middle, _, tail = rest.partition("</details>")
    counts = [len(Seen(part).lines) for part in (head, middle, tail)]
    assert counts[0] == counts[2] and sum(counts) == 100
    assert "0.50" in tail and f"{ratios[-1]:.2f}" in head


def test_it_is_one_file_that_loads_nothing_and_escapes_what_files_say(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>"
    bad = row("alexnet.pool5", None, status="broken", detail=f"Error: {evil}")
    file = written(tmp_path, row(evil), row(backend=evil), row(dtype=evil, layout=evil), bad)
    html = document([file])
    tags = Seen(html).tags
    assert not {tag for tag, _ in tags} & {"script", "link", "iframe", "img", "object"}
    assert not {name for _, attrs in tags for name in attrs} & {"src", "href", "srcset"}
    assert "http" not in html and "url(" not in html and "@import" not in html
    assert "&lt;script&gt;" in html and "A &lt;Processor&gt;" in html
    assert "1 of 4 lines" in html and "Error: &lt;script&gt;" in html


def test_what_was_not_timed_is_said(tmp_path: Path) -> None:
    html = document([written(tmp_path, row(ratio=None, status="not served", detail="no Half"))])
    assert "<h2>Not timed</h2>" in html and "not served: no Half" in html
    assert not Seen(html).lines


def test_a_file_without_a_line_makes_a_page_that_says_so(tmp_path: Path) -> None:
    assert "<h2>What was measured" in document([written(tmp_path)])


@pytest.mark.parametrize("folder", ("cpu-avx2", "cpu-avx512"))
def test_every_line_of_the_results_is_on_the_page(folder: str) -> None:
    files = sorted((RESULTS / folder).glob("*.csv"))
    lines = [line for file in files for line in reading.read(file)]
    timed = sum(line.timed for line in lines)
    html = document([RESULTS / folder])
    assert len(Seen(html).lines) == timed > 1000
    for title in {line.title for line in lines}:
        assert f"<h2>{title}" in html
    assert "<h2>Roofline: forwards bound by memory, contiguous</h2>" in html


def test_two_folders_are_two_parts(tmp_path: Path) -> None:
    for name in ("before", "after"):
        written(tmp_path / name, row())
    html = document([tmp_path / "before", tmp_path / "after"])
    parts = re.findall(r'<h2 class="part">([^<]*)', html)
    assert parts == [str(tmp_path / "before"), str(tmp_path / "after")]


def test_bytes_a_second_over_those_of_a_copy(tmp_path: Path) -> None:
    """A 3x3 window with stride 2 writes 27 x 27 of 55 x 55; a copy reads and writes all of them."""
    rows = row(), row(kind="both"), row("alexnet.conv1"), row("unknown"), row(copies=None)
    (share,) = shares(reading.read(written(tmp_path, *rows)))
    pixels = 16 * 96 * 55 * 55
    moved = 4 * (pixels + 16 * 96 * 27 * 27)
    assert share.moved == moved and share.copied == pytest.approx(8 * pixels / 1e-3)
    assert share.ours == pytest.approx(moved / (8 * pixels) / 0.5, rel=1e-3)
    assert share.theirs == pytest.approx(share.ours / 8, rel=1e-3)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda text: "a,b\n1,2\n", "line 1: no columns of a results file"),
        (lambda text: "", "line 1: no columns of a results file"),
        (lambda text: text.replace(",3,", ",quick,"), "line 3: ratio is 'quick', not a positive"),
        (lambda text: text.replace(",3,", ",-3,"), "line 3: ratio is '-3', not a positive number"),
        (
            lambda text: text.replace(",3,", ",nan,"),
            "line 3: ratio is 'nan', not a",
        ),
        (lambda text: text.rstrip()[:-30], "line 3: not as many cells as columns"),
        (lambda text: text.rstrip() + ",more\n", "line 3: not as many cells as columns"),
        (lambda text: text.replace("4x3", "4x"), "line 3: shape is '4x', not sizes such as"),
        (lambda text: text.replace(",ok,", ',"o"k,'), "line 2: "),
    ],
    ids=("foreign", "empty", "word", "negative", "nan", "cut", "long", "shape", "quotes"),
)
def test_a_broken_file_is_named_with_its_line(tmp_path: Path, spoil, said: str) -> None:
    file = written(tmp_path, row(), row(ratio=3.0, shape="4x3"))
    file.write_text(spoil(file.read_text()))
    with pytest.raises(ValueError) as raised:
        document([file])
    assert str(raised.value).startswith(f"{file}, {said}") and "\n" not in str(raised.value)


def test_bytes_that_are_no_text_are_named_with_their_line(tmp_path: Path) -> None:
    file = written(tmp_path, row(), row())
    file.write_bytes(file.read_bytes().replace(b"auto", b"\xff", 1))
    with pytest.raises(ValueError, match="line 2: not UTF-8"):
        document([file])


def test_the_command_line_shows_files_and_measures_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "made" / "page.html"
    assert run.main(["--from", str(written(tmp_path, row())), "--html", str(page)]) == 0
    assert "alexnet.pool1" in page.read_text() and str(page) in capsys.readouterr().out
    assert list(tmp_path.rglob("*.csv")) == [tmp_path / "results.csv"]


@pytest.mark.usefixtures("unpinned")
def test_the_command_line_shows_what_it_measured(tmp_path: Path) -> None:
    quick = ["--cases", "lenet5.pool2", "--passes", "forward", "--seconds", "0.005"]
    page = tmp_path / "page.html"
    assert run.main([*quick, "--out", str(tmp_path), "--html", str(page)]) == 0
    assert [name for name, *_ in Seen(page.read_text()).lines] == ["lenet5.pool2"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--from", "{}"), "--from PATH... goes with --html FILE, and with nothing else"),
        (("--from", "{}", "--html", "x.html", "--batch", "2"), "and with nothing else"),
        (("--html", "{}"), "is a folder"),
        (("--from", "--html", "x.html"), "expected at least one argument"),
    ],
)
def test_mistakes_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str
) -> None:
    with pytest.raises(SystemExit) as exit:
        run.main([one.format(tmp_path) for one in arguments])
    assert exit.value.code == 2 and said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("nothing.csv", "nothing.csv is not there"),
        ("empty", "empty holds no results (*.csv)"),
        ("foreign.csv", "foreign.csv, line 1: no columns of a results file"),
    ],
)
def test_what_cannot_be_shown_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], path: str, said: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "foreign.csv").write_text("a,b\n1,2\n")
    page = tmp_path / "page.html"
    assert run.main(["--from", str(tmp_path / path), "--html", str(page)]) == 2
    assert capsys.readouterr().err == f"pydl bench: {tmp_path}/{said}\n"
    assert not page.exists()

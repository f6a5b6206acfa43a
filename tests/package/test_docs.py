"""What the documents name is there, and what docstrings call equivalent is."""

import re
from pathlib import Path

import pytest
import torch

from pydl import functional

ROOT = next(folder for folder in Path(__file__).resolve().parents if (folder / "csrc").is_dir())
DOCUMENTS = (
    "README.md",
    "CONTRIBUTING.md",
    *("docs/arrays.md", "docs/drop-in.md", "docs/tour.md"),
)
FOLDERS = "bench|csrc|docs|kernels|pydl|pydl_cli|tests"
ROOMS = ("csrc", "kernels", "pydl")


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_file_that_a_document_names_exists(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    named = re.findall(rf"`((?:{FOLDERS})/[\w./-]+)`", text)
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]
    missing = [name for name in named if not (ROOT / name).exists()]
    missing += [link for link in links if not ((ROOT / document).parent / link).exists()]
    assert len(named) + len(links) >= 1 and not missing


def test_the_tour_names_every_file_of_its_operator() -> None:
    """A room that local response normalisation gets is one that a reader should be shown."""
    tour = (ROOT / "docs" / "tour.md").read_text(encoding="utf-8")
    found = [path for folder in ROOMS for path in (ROOT / folder).rglob("*lrn.*")]
    names = [str(path.relative_to(ROOT)) for path in found if "__pycache__" not in path.parts]
    assert len(names) >= 10 and [name for name in names if f"`{name}`" not in tour] == []


MAP = {"input": torch.randn(2, 4, 9, 7)}
WINDOW = {"stride": 2, "padding": 1, "dilation": 1}
EQUIVALENTS = {
    "spatial_response_norm": MAP | {"size": 3, "alpha": 0.5, "beta": 0.75, "k": 2.0},
    "spatial_pyramid_pool": MAP | {"levels": (3, 2, 1)},
    "locally_connected1d": {
        "input": torch.randn(2, 4, 9),
        "weight": torch.randn(5, 4, 3, 4),
        "bias": torch.randn(5, 4),
        "stride": 2,
    },
    "locally_connected2d": MAP
    | {"weight": torch.randn(5, 4, 3, 3, 5, 4), "bias": torch.randn(5, 5, 4), **WINDOW},
    "conv2d_bias_act": MAP
    | {"weight": torch.randn(6, 2, 3, 3), "bias": torch.randn(6), **WINDOW, "groups": 2}
    | {"residual": torch.randn(2, 6, 5, 4)},
    "batch_norm_act": MAP
    | {"running_mean": None, "running_var": None, "weight": torch.randn(4), "bias": torch.randn(4)}
    | {"training": True, "momentum": 0.1, "eps": 1e-5, "residual": torch.randn(2, 4, 9, 7)},
}


@pytest.mark.parametrize("name", EQUIVALENTS)
def test_what_a_docstring_calls_equivalent_is(name: str) -> None:
    said = getattr(functional, name).__doc__.partition("Equivalent to: ``")[2].partition("``")[0]
    arguments = EQUIVALENTS[name]
    known = vars(torch) | vars(torch.nn.functional) | arguments
    expected = eval(" ".join(said.split()), known)
    found = getattr(functional, name)(**arguments, backend="reference")
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)

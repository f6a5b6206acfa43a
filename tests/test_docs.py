"""What the documents name is there."""

import re
from pathlib import Path

import pytest

ROOT = next(folder for folder in Path(__file__).resolve().parents if (folder / "csrc").is_dir())
DOCUMENTS = ("README.md", "CONTRIBUTING.md", "docs/tour.md", "docs/drop-in.md")
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

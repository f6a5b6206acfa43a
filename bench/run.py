"""``pydl bench`` of this checkout, whose results go to bench/results: ``python bench/run.py``.

Needs nothing beyond PyTorch and NumPy; with matplotlib there is a plot too. Exit status: that of
``pydl.bench.run``.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # what is measured is the checkout that this file belongs to

from folders import RESULTS  # noqa: E402

from pydl.bench.run import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main(prog="bench/run.py", results=RESULTS))

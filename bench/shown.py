"""Shows on real input that networks learn, evidence D of docs/networks.md: ``make shown``.

    python bench/shown.py                    what bench/results/shown lacks
    python bench/shown.py resnet18 lenet5    these, whether it has them or not

The recipe ``classifiers`` on one thread; each network is in the results as soon as it is done, so a
run that is stopped goes on. The page goes to shown/classifiers.

Exit status: 0 if every network is shown, 1 if one is not, 2 for a mistake in the arguments.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # what is shown is the checkout that this file belongs to

import torch  # noqa: E402
from folders import SHOWN  # noqa: E402
from rich.console import Console  # noqa: E402

from pydl.data.extras import require  # noqa: E402
from pydl.recipes import Options, classifiers  # noqa: E402
from pydl.recipes.classifiers_file import File  # noqa: E402


def main(argv: Sequence[str] | None = None) -> int:
    """Runs what is asked for; returns the exit status."""
    plans = {plan.network: plan for plan in classifiers.PLANS}
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0], prog="bench/shown.py")
    parser.add_argument("networks", nargs="*", metavar="NETWORK", help=", ".join(plans))
    names = parser.parse_args(argv).networks
    if unknown := [name for name in names if name not in plans]:
        parser.error(f"no classifier is called {unknown[0]!r}; there are {', '.join(plans)}")
    require(*classifiers.RECIPE.needs)
    torch.set_num_threads(1)
    options = Options(ROOT / "shown" / "classifiers")
    options.output.mkdir(parents=True, exist_ok=True)
    chosen = [plans[name] for name in names or plans]
    file, console = File(SHOWN), Console()
    rows = classifiers.run(chosen, options, file, console, command="make shown", again=bool(names))
    classifiers.show(file, options, console)
    return int(not all(row.shown for row in rows))


if __name__ == "__main__":
    sys.exit(main())

"""``python -m pydl.cli``."""

from pydl.cli import main

main()

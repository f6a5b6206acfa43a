"""``python -m pydl_cli``."""

from pydl_cli import main

main()

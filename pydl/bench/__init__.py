"""What ``pydl bench`` measures, how, and what it makes of it.

``cases`` is the table of calls, ``harness`` checks and times one, ``run`` is the command line and
``results`` writes the files. The repository's own scripts (bench/) are made of the same parts.
"""

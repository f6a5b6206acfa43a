"""LeNet-5 learns handwritten digits: what ``pydl demo`` does, step by step.

``training`` trains, ``report`` makes the page.
"""

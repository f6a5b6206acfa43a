"""LeNet-5 learns handwritten digits: what ``pydl demo`` does, step by step.

``training`` trains, ``operators`` compares every operator with the reference and with PyTorch's
time, ``plots`` and ``page`` show it all.
"""

"""Each family once: argument checks, output shapes, autograd, registered operators with fakes.

A call travels functional -> here -> ``autograd.Function`` -> ``torch.ops.pydl.<name>`` -> the
backend's function.
"""

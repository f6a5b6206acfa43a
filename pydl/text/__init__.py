"""A network learns to write Python: what ``pydl train char-lm`` does, step by step.

``dataset`` reads the standard library's own source, ``training`` trains a character language model
on it, measures it on files it never saw and lets it write.
"""

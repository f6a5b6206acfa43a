"""Dropout by PyTorch's product.

PyTorch's own operator draws a mask of its own and stores it, so the contract's mask here is the
definition's; a call of ``backend="aten"`` is PyTorch's own throughout.
"""

from pydl.reference.dropout import dropout_backward, dropout_forward

__all__ = ["dropout_backward", "dropout_forward"]

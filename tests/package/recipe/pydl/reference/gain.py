"""A map times a number, from its definition (csrc/gain.h)."""

from pydl.contract.gain import GainForward

from pydl.contract.call import Tensor
from pydl.reference import in_full_precision


@in_full_precision
def gain_forward(call: GainForward) -> Tensor:
    """y = factor x."""
    return call.factor * call.x

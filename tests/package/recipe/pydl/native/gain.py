"""A map times a number by the extension; definition and arguments in ``csrc/gain.h``."""

from pydl.contract.gain import GainForward

from pydl import layout
from pydl.contract.call import Tensor
from pydl.native import Library


def gain_forward(library: Library, call: GainForward) -> Tensor:
    x, factor = call
    y = call.results()
    operand = library.operand(x, layout.memory_format(x))
    library.call("gain_forward", operand, y, factor, on=x)
    return y

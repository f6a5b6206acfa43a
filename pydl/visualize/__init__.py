"""What a network does, shown: what its layers take and give, and pages with plots of it.

``record`` keeps what layers take and give, ``activations`` is the short form of it for one input;
``operators`` checks and times the calls that a network makes; ``plots`` (which needs matplotlib)
draws, and ``page`` puts tables and plots on one self-contained page, both in the colours of
``palette``.
"""

from pydl.models.record import Ran, record, watch
from pydl.visualize.activations import activations

__all__ = ["Ran", "activations", "record", "watch"]

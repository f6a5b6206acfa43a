"""The contract of each family: what its functions take and return, written once.

One module for each family, one ``NamedTuple`` for each function. Every backend's function takes
that tuple (``lrn_forward(call: LrnForward) -> Tensor``) and returns what ``call.results()``
allocates, written; the operators, their schemas and their fakes are derived from it. So a forward
of one backend and a backward of another fit together.
"""

import importlib
from typing import Any

from pydl.contract.call import Call, name_of

# The one list of families, in the order of the tables.
_NAMES = (
    "conv",
    "bias_act",
    "batch_norm",
    "local",
    "pool",
    "pool_lp",
    "pool_adaptive",
    "unpool",
    "roi",
    "nms",
    "lrn",
    "spatial_norm",
    "softmax",
    "cross_entropy",
    "dropout",
    "rnn",
)


def _calls(family: str) -> dict[str, type[Call[Any]]]:
    module = importlib.import_module(f"{__name__}.{family}")
    own = (
        one for one in vars(module).values() if getattr(one, "__module__", "") == module.__name__
    )
    return {name_of(one): one for one in own if isinstance(one, type) and hasattr(one, "results")}


# The functions of each family by name, in the order in which they are defined.
FAMILIES: dict[str, dict[str, type[Call[Any]]]] = {family: _calls(family) for family in _NAMES}
FAMILY_OF: dict[str, str] = {
    function: family for family, functions in FAMILIES.items() for function in functions
}

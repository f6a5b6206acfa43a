"""Every layer does what its counterpart in torch.nn does, in every respect of the table."""

import pytest
from drop_in import FEATURES
from drop_in_layers import LAYERS

# A graph takes a second, and who serves is asked when it runs (test_calls_graphs.py): a layer is
# small in one and large in the other.
GRAPHS = ("torch.compile, dynamic", "torch.export, dynamic batch")
FEATURE = [
    pytest.param(name, marks=[pytest.mark.in_turns("size")] if name in GRAPHS else [])
    for name in FEATURES
]


@pytest.mark.parametrize("size", ("small", "large"))
@pytest.mark.parametrize("layer", LAYERS, ids=str)
@pytest.mark.parametrize("feature", FEATURE)
def test_as_stock(feature, layer, size):
    FEATURES[feature](layer, getattr(layer, size))

"""Every layer does what its counterpart in torch.nn does, in every respect of the table."""

import pytest
from drop_in import FEATURES
from drop_in_layers import LAYERS


@pytest.mark.parametrize("size", ("small", "large"))
@pytest.mark.parametrize("layer", LAYERS, ids=str)
@pytest.mark.parametrize("feature", FEATURES)
def test_as_stock(feature, layer, size):
    FEATURES[feature](layer, getattr(layer, size))

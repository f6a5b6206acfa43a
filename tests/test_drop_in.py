"""Every layer does what its counterpart in torch.nn does, in every respect of the table."""

import pytest
from drop_in import EXCEPTIONS, FEATURES, LAYERS


@pytest.mark.parametrize("size", ("small", "large"))
@pytest.mark.parametrize("layer", LAYERS, ids=str)
@pytest.mark.parametrize("feature", FEATURES)
def test_as_stock(feature, layer, size):
    if (feature, str(layer)) in EXCEPTIONS:
        with pytest.raises((AssertionError, RuntimeError, NotImplementedError)):
            FEATURES[feature](layer, getattr(layer, size))
    else:
        FEATURES[feature](layer, getattr(layer, size))

"""The operators with the names, argument order and defaults of :mod:`torch.nn.functional`, and
``backend=``.

Every function takes ``backend=None`` last, by keyword: the name of the backend that must serve this
call (``auto``, ``reference``, ``aten``, ``cpu``, ``triton``, ``cuda``); None leaves the choice to
``use_backend`` and, without that, to the dispatch table. A backend asked for by name that cannot
serve raises RuntimeError; an unknown name raises ValueError.
"""

from pydl import tuning
from pydl.functional.batch_norm import batch_norm, batch_norm_act
from pydl.functional.bias_act import leaky_relu, relu
from pydl.functional.conv import (
    conv1d,
    conv2d,
    conv2d_bias_act,
    conv3d,
    conv_transpose1d,
    conv_transpose2d,
    conv_transpose3d,
)
from pydl.functional.cross_entropy import cross_entropy, nll_loss
from pydl.functional.dropout import dropout, dropout1d, dropout2d, dropout3d
from pydl.functional.local import locally_connected1d, locally_connected2d
from pydl.functional.lrn import local_response_norm
from pydl.functional.nms import batched_nms, nms
from pydl.functional.pool import (
    avg_pool1d,
    avg_pool2d,
    avg_pool3d,
    max_pool1d,
    max_pool1d_with_indices,
    max_pool2d,
    max_pool2d_with_indices,
    max_pool3d,
    max_pool3d_with_indices,
)
from pydl.functional.pool_adaptive import (
    adaptive_avg_pool1d,
    adaptive_avg_pool2d,
    adaptive_avg_pool3d,
    adaptive_max_pool1d,
    adaptive_max_pool1d_with_indices,
    adaptive_max_pool2d,
    adaptive_max_pool2d_with_indices,
    adaptive_max_pool3d,
    adaptive_max_pool3d_with_indices,
    spatial_pyramid_pool,
)
from pydl.functional.pool_lp import lp_pool1d, lp_pool2d, lp_pool3d
from pydl.functional.rnn import gru, gru_cell, lstm, lstm_cell, rnn, rnn_cell
from pydl.functional.roi import roi_align, roi_pool
from pydl.functional.softmax import log_softmax, softmax
from pydl.functional.spatial_norm import spatial_response_norm
from pydl.functional.unpool import max_unpool1d, max_unpool2d, max_unpool3d
from pydl.ops import flops

# All operators are registered now, and whatever calls them came by here.
flops.install()
tuning.load()

__all__ = [
    "adaptive_avg_pool1d",
    "adaptive_avg_pool2d",
    "adaptive_avg_pool3d",
    "adaptive_max_pool1d",
    "adaptive_max_pool1d_with_indices",
    "adaptive_max_pool2d",
    "adaptive_max_pool2d_with_indices",
    "adaptive_max_pool3d",
    "adaptive_max_pool3d_with_indices",
    "avg_pool1d",
    "avg_pool2d",
    "avg_pool3d",
    "batch_norm",
    "batch_norm_act",
    "batched_nms",
    "conv1d",
    "conv2d",
    "conv2d_bias_act",
    "conv3d",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "cross_entropy",
    "dropout",
    "dropout1d",
    "dropout2d",
    "dropout3d",
    "gru",
    "gru_cell",
    "leaky_relu",
    "local_response_norm",
    "locally_connected1d",
    "locally_connected2d",
    "log_softmax",
    "lp_pool1d",
    "lp_pool2d",
    "lp_pool3d",
    "lstm",
    "lstm_cell",
    "max_pool1d",
    "max_pool1d_with_indices",
    "max_pool2d",
    "max_pool2d_with_indices",
    "max_pool3d",
    "max_pool3d_with_indices",
    "max_unpool1d",
    "max_unpool2d",
    "max_unpool3d",
    "nll_loss",
    "nms",
    "relu",
    "rnn",
    "rnn_cell",
    "roi_align",
    "roi_pool",
    "softmax",
    "spatial_pyramid_pool",
    "spatial_response_norm",
]

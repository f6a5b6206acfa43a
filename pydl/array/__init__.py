"""Forward passes on NumPy and CuPy arrays, without PyTorch: the names, arguments and defaults of
:mod:`torch.nn.functional`, by the native library.

>>> import numpy as np
>>> import pydl.array
>>> x = np.ones((1, 3, 8, 8), np.float32)
>>> y = pydl.array.local_response_norm(x, 5)
>>> pydl.array.max_pool2d(y, 2).shape
(1, 3, 4, 4)

NumPy's arrays are served by the kernels in C++, CuPy's by those in CUDA C++ on CuPy's current
stream. Whatever shares its memory is taken without a copy: by ``__cuda_array_interface__``, DLPack
or the buffer protocol. Arrays are float32, float64 or float16; sums are made in float32 at least.
An operand is read where it lies, read-only or not, contiguous or channels last (CUDA's kernels: any
strides); another view is copied first. Results are new arrays of the package of the first operand,
in its layout.

The names of operands and errors are PyTorch's: TypeError for what is no array or no integer,
RuntimeError for shapes and dtypes that do not fit, or where there is no kernel.
"""

from pydl.array.batch_norm import batch_norm
from pydl.array.conv import conv1d, conv2d, conv3d
from pydl.array.lrn import local_response_norm
from pydl.array.pool import (
    avg_pool1d,
    avg_pool2d,
    avg_pool3d,
    max_pool1d,
    max_pool2d,
    max_pool3d,
)
from pydl.array.pool_adaptive import (
    adaptive_avg_pool1d,
    adaptive_avg_pool2d,
    adaptive_avg_pool3d,
    adaptive_max_pool1d,
    adaptive_max_pool2d,
    adaptive_max_pool3d,
)
from pydl.array.pool_lp import lp_pool1d, lp_pool2d, lp_pool3d
from pydl.array.rnn import gru, lstm, rnn
from pydl.array.softmax import log_softmax, softmax

__all__ = [
    "adaptive_avg_pool1d",
    "adaptive_avg_pool2d",
    "adaptive_avg_pool3d",
    "adaptive_max_pool1d",
    "adaptive_max_pool2d",
    "adaptive_max_pool3d",
    "avg_pool1d",
    "avg_pool2d",
    "avg_pool3d",
    "batch_norm",
    "conv1d",
    "conv2d",
    "conv3d",
    "gru",
    "local_response_norm",
    "log_softmax",
    "lp_pool1d",
    "lp_pool2d",
    "lp_pool3d",
    "lstm",
    "max_pool1d",
    "max_pool2d",
    "max_pool3d",
    "rnn",
    "softmax",
]

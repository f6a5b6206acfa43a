"""What layers take and give while a network runs, and what networks do without."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import pydl
from pydl import models
from pydl.models.record import Ran, record, watch

ROOT = Path(pydl.__file__).resolve().parents[1]
X = torch.randn(2, 1, 32, 32)


def hooks(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def test_what_named_layers_give_is_kept() -> None:
    model = models.lenet5()
    with record(model, "conv1", "pool2") as ran:
        model(X)
    assert list(ran) == ["conv1", "pool2"] and not hooks(model)
    torch.testing.assert_close(ran["conv1"].inputs, (X,))
    torch.testing.assert_close(ran["conv1"].output, model.conv1(X))
    assert ran["pool2"].layer is model.pool2 and ran["pool2"].output.shape == (2, 16, 5, 5)
    assert not ran["conv1"].output.requires_grad


def test_without_names_all_layers_are_meant_that_have_no_children() -> None:
    model = nn.Sequential(nn.Sequential(nn.Linear(2, 3), nn.ReLU()), nn.Linear(3, 1))
    with record(model) as ran:
        model(torch.ones(1, 2))
    assert list(ran) == ["0.0", "0.1", "1"]


def test_a_function_picks_layers_and_the_model_is_one() -> None:
    model = models.lenet5()
    with record(model, lambda name, layer: isinstance(layer, nn.ReLU), "") as ran:
        y = model(X)
    assert list(ran) == ["act1", "act2", "act3", "act4", ""]
    assert torch.equal(ran[""].output, y)


def test_a_name_that_is_no_layers_is_refused() -> None:
    with (
        pytest.raises(ValueError, match=r"no layer is called 'conv9'; there are conv1, act1"),
        record(models.lenet5(), "conv9"),
    ):
        pass


def test_work_in_place_changes_no_copy() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU(inplace=True))
    x = torch.randn(4, 3)
    with record(model) as ran:
        model(x)
    torch.testing.assert_close(ran["0"].output, model[0](x))
    torch.testing.assert_close(ran["1"].inputs, (model[0](x),))


class Twice(nn.Module):
    """Calls a layer twice, the second time by name, and one that fails in between."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.broken, self.sequence = nn.Linear(3, 3), nn.Linear(5, 5), nn.GRU(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.layer(x)
        try:
            self.broken(x)
        except RuntimeError:
            x = self.layer(input=x)
        return self.sequence(nn.utils.rnn.pack_padded_sequence(x, [4, 2]))[1]


def test_calls_are_numbered_and_matched() -> None:
    model, x = Twice(), torch.randn(4, 2, 3)
    with record(model, lambda name, layer: name != "") as ran:
        model(x)
    assert list(ran) == ["layer", "layer#2", "sequence"]
    once = model.layer(x)
    torch.testing.assert_close(ran["layer#2"].named, {"input": once})
    torch.testing.assert_close(ran["layer#2"].output, model.layer(once))
    assert ran["layer#2"].inputs == () and ran["layer#2"].name == "layer"
    (packed,) = ran["sequence"].inputs
    torch.testing.assert_close(packed.data[:2], model.layer(once)[0])


def test_what_a_watcher_raises_stops_the_model_and_no_hook_stays() -> None:
    model, seen = models.lenet5(), []

    def before(ran: Ran) -> None:
        seen.append((ran.key, ran.output))
        if ran.name == "pool1":
            raise KeyError("enough")

    with pytest.raises(KeyError, match="enough"), watch(model, before=before):
        model(X)
    assert seen == [("conv1", None), ("act1", None), ("pool1", None)] and not hooks(model)


def test_hooks_are_set_in_one_place() -> None:
    found = [
        path.relative_to(ROOT).as_posix()
        for folder in ("pydl", "pydl_cli", "bench")
        for path in (ROOT / folder).rglob("*.py")
        if re.search(r"\bregister_(module_)?(full_)?(forward|backward)", path.read_text())
    ]
    assert found == ["pydl/models/record.py"]


def test_networks_know_nothing_of_data_training_or_pictures() -> None:
    code = (
        "import pkgutil, sys, importlib, pydl.models\n"
        "for one in pkgutil.walk_packages(pydl.models.__path__, 'pydl.models.'):\n"
        "    importlib.import_module(one.name)\n"
        "rooms = ('data', 'train', 'visualize', 'recipes', 'text')\n"
        "print([m for m in sys.modules if m.startswith('pydl.') and m.split('.')[1] in rooms])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"

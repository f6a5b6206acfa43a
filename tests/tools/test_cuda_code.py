"""What nvcc made of the tensor-core, depthwise and persistent kernels in the extension, without a
GPU: the main loops' machine code, registers and spills, for every architecture."""

import functools
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

try:
    from pydl import _C
except ImportError:
    _C = None

PERSISTENT = ("rnn_persistent", "rnn_persistent_backward")
KERNELS = ("conv_gemm", "conv_gemm_weight", "conv_depthwise", *PERSISTENT)
ARCHITECTURES = ("sm_80", "sm_90a")


def _cuobjdump() -> str | None:
    """The toolkit's, or the copy that comes with Triton."""
    for folder in map(Path, sys.path):
        if (copy := folder / "triton/backends/nvidia/bin/cuobjdump").exists():
            return str(copy)
    return shutil.which("cuobjdump")


CUOBJDUMP = _cuobjdump()
pytestmark = [
    pytest.mark.skipif(CUOBJDUMP is None, reason="no cuobjdump"),
    pytest.mark.skipif(not hasattr(_C, "cuda"), reason="built without a CUDA compiler"),
    pytest.mark.parametrize("architecture", ARCHITECTURES),
]


def _dump(architecture: str, option: str) -> str:
    command = [CUOBJDUMP, option, "-arch", architecture, _C.__file__]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _is_of(name: str, kernel: str) -> bool:
    return re.search(rf"_{kernel}_cu_", name) is not None  # the file of its anonymous namespace


@functools.cache
def _functions(architecture: str) -> dict[str, list[tuple[int, str]]]:
    """The instructions of every kernel, with their addresses."""
    out = {}
    for part in _dump(architecture, "-sass").split("Function : ")[1:]:
        name = part.split(maxsplit=1)[0]
        if any(_is_of(name, kernel) for kernel in KERNELS):
            lines = re.findall(r"/\*([0-9a-f]{4,})\*/\s+(\S.*?);", part)
            out[name] = [(int(at, 16), instruction) for at, instruction in lines]
    return out


def _loops(instructions: list[tuple[int, str]]) -> list[str]:
    """The bodies of the loops: what lies between a branch backwards and where it goes."""
    bodies = []
    for at, instruction in instructions:
        branch = re.search(r"\bBRA\b.*?0x([0-9a-f]+)", instruction)
        if branch and (start := int(branch[1], 16)) < at:
            bodies.append("\n".join(i for where, i in instructions if start <= where <= at))
    return bodies


@pytest.mark.parametrize("kernel", ("conv_gemm", "conv_gemm_weight"))
def test_main_loops_use_tensor_cores_and_asynchronous_copies(architecture, kernel):
    seen = 0
    for name, instructions in _functions(architecture).items():
        if "product" not in name or not _is_of(name, kernel):
            continue
        seen += 1
        # Mangled: Form::along, across and gather are 0, 1 and 2 of the kernel's last arguments.
        forms = re.findall(r"(?:FormE|LS\w_)(\d)E", name)
        assert forms and set(forms) <= set("012"), name
        floats = re.search(r"productIf", name) is not None
        wanted = ["LDSM", "HMMA.1688.F32.TF32" if floats else "HMMA.16816.F32"]
        if set(forms) != {"2"}:
            wanted.append(r"LDGSTS\S*\.128\b")  # whole chunks
        if "2" in forms:
            wanted.append(r"LDGSTS\.E\b" if floats else r"LDG\S*\.U16")  # element by element
        assert any(all(re.search(one, body) for one in wanted) for body in _loops(instructions)), (
            f"{name}: no loop with {', '.join(wanted)}"
        )
    assert seen >= 7


@pytest.mark.parametrize("kernel", PERSISTENT)
def test_persistent_kernels_multiply_halves_by_tensor_cores_from_whole_chunks(architecture, kernel):
    """And read nothing through the cache that does not see what other blocks wrote."""
    seen = 0
    for name, instructions in _functions(architecture).items():
        if not _is_of(name, kernel):
            continue
        text = "\n".join(instruction for _, instruction in instructions)
        assert not re.search(r"LDG\S*\.CONSTANT", text), name
        if "Lb1E" not in name:  # the template's argument: without tensor cores
            continue
        seen += 1
        wanted = "HMMA.16816.F32", r"LDG\S*\.128\b", r"LDS\S*\.128\b"
        assert any(all(re.search(one, body) for one in wanted) for body in _loops(instructions)), (
            f"{name}: no loop with {', '.join(wanted)}"
        )
    assert seen == 2


@pytest.mark.parametrize("kernel", KERNELS)
def test_nothing_spills(architecture, kernel):
    text = _dump(architecture, "-res-usage")
    usage = re.findall(r"Function (\S+):\s+REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)", text)
    usage = [row for row in usage if _is_of(row[0], kernel)]
    assert len(usage) >= (6 if kernel in PERSISTENT else 7)
    for name, registers, stack, shared, local in usage:
        assert stack == local == "0", f"{name}: {stack} bytes of stack, {local} of local memory"
        assert int(registers) <= 168 and int(shared) <= 48 * 1024, name
    for name, instructions in _functions(architecture).items():
        spilling = [i for _, i in instructions if re.search(r"\b(STL|LDL)\b", i)]
        assert not (_is_of(name, kernel) and spilling), f"{name}: {spilling[0]}"

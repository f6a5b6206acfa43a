"""The instrument that counts what the CUDA kernels' machine code does: that it reads and executes
machine code rightly, and that no kernel does more than tests/tools/machine_code.csv allows it.

The counts need what nvcc compiled (`make nvcc`) and take seconds.
"""

import csv
import ctypes
import dataclasses
import functools
import struct

import machine_code
import pytest
import torch
from sass import listing, operands
from sass.launches import Launch, recorded
from sass.thread import Thread
from typer.testing import CliRunner

import pydl_cli
from pydl import functional

MODEL = machine_code.ROOT / "bench/results/model/sm_90.csv"
COMPILED = listing.tool() is not None and any(machine_code.OBJECTS.glob("cuda_*.o"))
compiled = pytest.mark.skipif(not COMPILED, reason="no machine code: no CUDA compiler was there")


def program(*lines: str) -> tuple[listing.Instruction, ...]:
    """With an address for each line, as cuobjdump prints it, and an end."""
    text = [f"        /*{16 * i:04x}*/   {line} ;   /* 0x0 */" for i, line in enumerate(lines)]
    return listing.instructions("\n".join([*text, f"        /*{16 * len(lines):04x}*/   EXIT ;"]))


def ran(*lines: str, parameters: bytes = b"", **where: object) -> Thread:
    thread = Thread(program(*lines), parameters, lambda address, width: bytes(width), **where)
    thread.run(10_000)
    return thread


def test_a_listing_is_read_with_guards_modifiers_and_loops() -> None:
    code = program(
        "MOV R1, c[0x0][0x28]", "@!P0 LDG.E.128.CONSTANT R4, desc[UR4][R2.64+0x10]",
        "HMMA.16816.F32.BF16 R8, R4, R6, R8", "@P1 BRA 0x10", "BRA 0x40",
    )  # fmt: skip
    load = code[1]
    assert (load.guard, load.name, load.width) == ("!P0", "LDG", 16)
    assert load.operands == ("R4", "desc[UR4][R2.64+0x10]")
    kernel = listing.Kernel("k", 32, 0, b"", code)
    (loop,) = kernel.loops
    assert [one.address for one in loop] == [16, 32, 48]
    assert kernel.per_product == 3


@pytest.mark.parametrize(
    ("line", "given", "result"),
    (
        ("IADD3 R0, R1, -R2, 0x5", {"R1": 3, "R2": 10}, -2),
        ("IMAD R0, R1, R2, -R3", {"R1": 7, "R2": -3, "R3": 1}, -22),
        ("IMAD.HI.U32 R0, R1, R2, RZ", {"R1": 0x80000000, "R2": 6}, 3),
        ("LOP3.LUT R0, R1, R2, R3, 0xe2, !PT", {"R1": 0b1100, "R2": 0b1010, "R3": 0b0110}, 0b1100),
        ("SHF.R.S32.HI R0, RZ, 0x2, R1", {"R1": -9}, -3),
        ("SHF.L.U64.HI R0, R1, 0x4, R2", {"R1": 0xF0000000, "R2": 1}, 0x1F),
        ("LEA R0, R1, R2, 0x3", {"R1": 5, "R2": 2}, 42),
        ("LEA.HI R0, R1, R2, RZ, 0x3", {"R1": 0xE0000000, "R2": 1}, 8),
        ("PRMT R0, R1, 0x7610, R2", {"R1": 0x1111AAAA, "R2": 0x2222BBBB}, 0x2222AAAA),
        ("VIADDMNMX R0, R1, 0x1, R2, !PT", {"R1": -5, "R2": -9}, -4),
        ("VIMNMX3 R0, R1, R2, R3, !PT", {"R1": -5, "R2": 4, "R3": -9}, 4),
        ("VIMNMX3 R0, R1, R2, 0x7, PT", {"R1": -5, "R2": 4}, -5),
        ("SGXT R0, R1, 0x8", {"R1": 0x80}, -128),
        ("FLO.U32 R0, R1", {"R1": 0x500}, 10),
        ("F2I.TRUNC.NTZ R0, R1", {"R1": operands.bits_of(-2.75)}, -2),
        ("I2FP.F32.S32 R0, R1", {"R1": -3}, operands.bits_of(-3.0)),
        ("HADD2.F32 R0, -RZ, R1.H1_H1", {"R1": 0x3E000000}, operands.bits_of(1.5)),
        ("HADD2.BF16_V2 R0, R1, R2.H0_H0", {"R1": 0x3F804000, "R2": 0x3F80}, 0x40004040),
        ("HADD2 R0, R1, -R2.H1_H1", {"R1": 0x3C004000, "R2": 0x3C000000}, 0x00003C00),
        ("ATOMG.E.CAS.STRONG.GPU PT, R0, [R4], R1, R2", {"R1": 7, "R2": 8}, 7),
        ("HFMA2.MMA R0, -RZ, RZ, 1.875, 0", {}, 0x3F800000),
        ("F2FP.BF16.F32.PACK_AB R0, RZ, R1", {"R1": operands.bits_of(1.00390625)}, 0x3F80),
        ("HFMA2.BF16_V2 R0, R1, 1, 2, R2", {"R1": 0x3F804000, "R2": 0x3F80BF80}, 0x40004040),
        ("HADD2 R0, R1, -R2.H0_H0", {"R1": 0x42003C00, "R2": 0x3C00}, 0x40000000),
        ("HMNMX2.BF16_V2 R0, R1, R2, !PT", {"R1": 0x3F80BF80, "R2": 0x40003F00}, 0x40003F00),
        ("FFMA R0, R1, -R2, |R3|", {f"R{i}": operands.bits_of(-i) for i in (1, 2, 3)},
         operands.bits_of(1.0)),
    ),
)  # fmt: skip
def test_an_instruction_computes(line: str, given: dict, result: int) -> None:
    code = program(line)
    thread = Thread(code, b"", lambda address, width: bytes(width))
    thread.registers.update({name: value & 0xFFFFFFFF for name, value in given.items()})
    thread.run()
    assert thread.registers["R0"] == result & 0xFFFFFFFF


def test_carries_reach_across_words() -> None:
    thread = ran(
        "LDC.64 R2, c[0x0][0x210]", "LDC.64 R4, c[0x0][0x218]", "IADD3 R6, P0, R2, R4, RZ",
        "IADD3.X R7, R3, R5, RZ, P0, !PT", "ISETP.GE.U32.AND P1, PT, R2, R4, PT",
        "ISETP.GE.AND.EX P2, PT, R3, R5, PT, P1", "IADD3 R8, P3, R2, -R4, RZ",
        "IADD3.X R9, R3, ~R5, RZ, P3, !PT",
        parameters=struct.pack("<qq", 0x1_FFFF_FFFF, 2),
    )  # fmt: skip
    assert thread.registers["R6"], thread.registers["R7"] == (1, 2)
    assert thread.predicates["P2"]
    assert (thread.registers["R8"], thread.registers["R9"]) == (0xFFFFFFFD, 1)


def test_what_is_counted() -> None:
    """All that is issued, held back or not; one wait for what is on its way together."""
    together = ("LDG.E R4, desc[UR4][R2.64]", "LDG.E.128 R8, desc[UR4][R2.64]")
    thread = ran(*together, "FADD R0, R4, R11", "@!PT FADD R0, R8, R8", "STG.E [R2.64], R0")
    assert thread.count == 6 and thread.waits == 1
    assert dict(thread.loads) == {4: 1, 16: 1} and dict(thread.stores) == {4: 1}
    apart = [line for load in together for line in (load, "FADD R0, R4, R8")]
    assert ran(*apart).waits == 2
    copies = ["LDGSTS.E.BYPASS.128 [R4], desc[UR4][R2.64]"] * 3
    thread = ran(*copies, "LDGDEPBAR", "DEPBAR.LE SB0, 0x0", "BAR.SYNC.DEFER_BLOCKING 0x0")
    assert thread.waits == 1 and thread.loads[16] == 3 and thread.barriers == 1


def test_a_thread_goes_its_way_by_place_and_parameters() -> None:
    lines = (
        "S2R R0, SR_TID.X", "S2R R1, SR_CTAID.Y", "IADD3 R2, R2, R0, R1",
        "ISETP.LT.AND P0, PT, R2, c[0x0][0x210], PT", "@P0 BRA 0x20",
    )  # fmt: skip
    where = {"thread": 37, "threads": (32, 2, 1), "block": (0, 2, 0)}
    thread = ran(*lines, parameters=struct.pack("<i", 21), **where)
    assert thread.registers["R2"] == 21 and thread.count == 2 + 3 * 3 + 1
    with pytest.raises(RuntimeError, match="does not end"):
        ran("BRA 0x0")
    with pytest.raises(NotImplementedError, match="UNHEARD"):
        ran("UNHEARD.OF R0, R1")


def test_what_others_put_in_shared_memory_is_found() -> None:
    """Two threads go to their barrier; one goes on and finds what the other left."""
    lines = (
        "S2R R0, SR_TID.X", "IMAD.SHL.U32 R1, R0, 0x4, RZ", "STS [R1], R0",
        "BAR.SYNC.DEFER_BLOCKING 0x0", "LDS R2, [R3+0x4]",
    )  # fmt: skip
    shared: dict[int, int] = {}
    for number in range(2):
        thread = Thread(
            program(*lines), b"", lambda _, width: bytes(width), thread=number, shared=shared
        )
        thread.run(to_barrier=True)
        assert (thread.count, thread.barriers) == (4, 1)
    assert shared == {0: 0, 4: 1}
    assert ran(*lines, shared=shared).registers["R2"] == 1
    assert ran(*lines).registers["R2"] == 0


X = torch.arange(2 * 3 * 5 * 4, dtype=torch.float32).sin().reshape(2, 3, 5, 4)


def test_launches_are_recorded_and_not_run() -> None:
    made = []
    (launch,) = recorded(
        lambda: made.append(functional.max_pool2d(X, 3, 2, padding=1, backend="cuda"))
    )
    assert made[0].isnan().all()
    kernel = "dense_max_forward<float, unsigned char, 1, 3>"
    assert (launch.file, launch.kernel) == ("pool_max_dense", kernel)
    assert launch.threads >= made[0].numel() and launch.block == (256, 1, 1)
    assert {t.data_ptr() for t in launch.tensors} >= {X.data_ptr(), made[0].data_ptr()}
    assert functional.max_pool2d(X, 3, 2, padding=1, backend="cuda").isfinite().all()


def result_of(launch: Launch, y: torch.Tensor) -> torch.Tensor:
    """What the machine code computes: every thread of a launch, one after the other, in the memory
    of its tensors."""
    kernel = machine_code._kernel(machine_code.OBJECTS / f"cuda_{launch.file}.o", launch.kernel)
    ranges = [(t.data_ptr(), t.untyped_storage().nbytes()) for t in launch.tensors]

    def inside(address: int, width: int) -> int:
        assert any(at <= address and address + width <= at + size for at, size in ranges)
        return address

    for number in range(launch.threads):
        thread, block = launch.place(number)
        one = Thread(
            kernel.instructions,
            launch.parameters,
            lambda address, width: ctypes.string_at(inside(address, width), width),
            jumps=kernel.jumps,
            thread=thread,
            block=block,
            threads=launch.block,
            blocks=launch.grid,
        )
        one.run()
        for address, data in one.written.items():
            ctypes.memmove(inside(address, len(data)), data, len(data))
    return y


@compiled
@pytest.mark.parametrize(
    "run",
    (
        functools.partial(functional.max_pool2d, kernel_size=3, stride=2, padding=1),
        functools.partial(functional.avg_pool2d, kernel_size=2),
        functools.partial(functional.local_response_norm, size=3, alpha=0.5),
        functools.partial(functional.local_response_norm, size=5, alpha=0.5),
    ),
    ids=lambda run: run.func.__name__,
)
@pytest.mark.parametrize("format", (torch.contiguous_format, torch.channels_last), ids=str)
def test_the_machine_code_executed_here_gives_the_kernels_results(run, format) -> None:
    """Of a whole call: index arithmetic, divisions, loops, special functions."""
    x = X.contiguous(memory_format=format)
    made = []
    (launch,) = recorded(lambda: made.append(run(x, backend="cuda")))
    torch.testing.assert_close(result_of(launch, made[0]), run(x, backend="aten"))


@compiled
@pytest.mark.parametrize("case", machine_code.CASES, ids=lambda case: case.name)
def test_no_kernel_does_more_than_it_is_allowed(case: machine_code.Case) -> None:
    table = {key: row for key, row in machine_code.read().items() if row.case == case.name}
    found = {row.key: row for row in machine_code.counted(case.name)}
    again = f"`pydl roofline --cases {case.name} --write` takes down what is meant"
    assert found.keys() == table.keys(), f"other kernels than in the table; {again}"
    worse = {" ".join(key): words for key, row in found.items() if (words := row.worse(table[key]))}
    assert not worse, f"{worse}; {again}"


def test_the_table_has_every_case_and_no_other() -> None:
    rows = machine_code.read().values()
    assert {row.case for row in rows} == {case.name for case in machine_code.CASES}
    for row in rows:
        assert row.spilled == 0 and row.registers <= 255 and row.instructions > 0
        assert row.longest >= row.instructions and row.memory >= 0


def test_the_model_is_of_these_figures() -> None:
    """bench/results/model/sm_90.csv was made of what the table holds."""
    budgets: dict[tuple[str, ...], list[machine_code.Count]] = {}
    for one in machine_code.read().values():
        budgets.setdefault((one.case, one.kind, one.dtype, one.layout), []).append(one)
    with MODEL.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    again = "`python bench/model.py` makes it anew"
    key = ("case", "kind", "dtype", "layout")
    assert {tuple(row[name] for name in key) for row in rows} == budgets.keys(), again
    for row in rows:
        counts = budgets[tuple(row[name] for name in key)]
        sums = {
            "issue_us": sum(one.issue for one in counts),
            "memory_us": sum(one.memory for one in counts),
            "predicted_us": sum(max(one.issue, one.memory) for one in counts),
        }
        found = {name: float(row[name]) for name in sums}
        assert found == pytest.approx(sums, rel=1e-3, abs=1e-3), f"{row}; {again}"
        assert float(row["copy_us"]) <= 1.01 * found["memory_us"] + 0.02


def test_each_launch_of_a_pass_has_a_row() -> None:
    launches = [Launch("split", kernel, (1, 1, 1), (1, 1, 1), b"", ()) for kernel in "sums"]
    names = [name for name, _ in machine_code.named(launches)]
    assert names == ["split: s", "split: u", "split: m", "split: s, 2"]


def test_a_figure_that_is_worse_is_named() -> None:
    row = next(iter(machine_code.read().values()))
    assert row.worse(row) == []
    for name, factor in (("instructions", 1.1), ("registers", 1.1), ("width", 0.5), ("loads", 2)):
        changed = dataclasses.replace(row, **{name: factor * getattr(row, name)})
        assert [said.split()[0] for said in changed.worse(row)] == [name]
        assert row.worse(changed) == []
    assert dataclasses.replace(row, spilled=8).worse(row) == ["spilled 8, was 0"]


def test_roofline_says_what_is_missing(tmp_path, monkeypatch, capfd) -> None:
    result = CliRunner().invoke(pydl_cli.app, ["roofline", "--objects", str(tmp_path)])
    assert result.exit_code == 1
    assert "`make nvcc` compiles it" in capfd.readouterr().err
    monkeypatch.setattr("pydl_cli.roofline.SCRIPT", tmp_path / "machine_code.py")
    result = CliRunner().invoke(pydl_cli.app, ["roofline"])
    assert isinstance(result.exception, FileNotFoundError)


@compiled
def test_roofline_prints_bounds(capsys) -> None:
    assert machine_code.main(["--cases", "alexnet.pool1"]) == 0
    said = capsys.readouterr().out
    assert "dense_max_backward<bfloat16, unsigned char, 8, 3>" in said and "channels_last" in said

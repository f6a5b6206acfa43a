"""The instrument that counts what the Triton kernels' machine code does: that no kernel of those it
counts here does more than tests/tools/triton_code.csv allows, and that their machine code, executed
thread by thread on a CPU, gives PyTorch's numbers."""

import csv

import pytest
import torch
import triton_code

from pydl.bench.cases import CASES as BENCHED

installed = pytest.mark.skipif(
    not triton_code.OLDEST.exists(), reason="no oldest Triton: `make cubins` installs it"
)


@installed
@pytest.mark.slow
def test_kernels_do_no_more_than_they_are_allowed_and_compute_what_pytorch_does(capfd) -> None:
    again = "`pydl roofline --backend triton --write` takes down what is meant"
    status = triton_code.again(["--check"]).returncode
    assert status == 0, f"{capfd.readouterr().err}; {again}"


def test_the_table_has_every_case_and_no_other() -> None:
    with triton_code.TABLE.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["case"] for row in rows} == {case.name for case in triton_code.CASES}
    assert {case.name for case in triton_code.CASES} <= {case.name for case in BENCHED}
    for row in rows:
        assert row["spilled"] == "0" and int(row["registers"]) <= 255


def test_softmax_losses_and_dropout_are_bound_by_memory_as_the_readme_says() -> None:
    """Or near it: kernels of a microsecond and more."""
    for row in triton_code.read(triton_code.TABLE).values():
        of = ("softmax", "cross_entropy", "dropout")
        if row.kernel.startswith(of) and row.issue > 1:
            assert row.issue <= 1.3 * row.memory, row


def test_arguments_are_packed_as_the_kernel_gets_them() -> None:
    x = torch.empty(4)
    kind = ("i32", "constexpr", ("i64", "fp64"))
    found = list(triton_code.packed(kind, (7, 1, (2**40, 0.5))))
    assert found == [("i", 7), ("q", 2**40), ("d", 0.5)]
    assert list(triton_code.packed("*fp32", x)) == [("Q", x.data_ptr())]
    assert list(triton_code.packed("constexpr", None)) == []


def test_without_the_oldest_triton_it_says_what_installs_it(monkeypatch, capsys, tmp_path) -> None:
    monkeypatch.setattr(triton_code, "OLDEST", triton_code.ROOT / "none/triton-0.0")
    assert triton_code.main([]) == 1
    assert "`make cubins` installs it" in capsys.readouterr().err

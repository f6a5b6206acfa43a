"""The native CPU kernels of batch normalisation: large results, the same bits on any number of
threads, no copies."""

import pytest
import torch
from contract import INSTRUCTION_SETS, instruction_set

from pydl import functional, layout, native
from pydl.contract.batch_norm import mask as empty_mask
from pydl.contract.batch_norm import pack


@pytest.mark.parametrize("isa", INSTRUCTION_SETS)
@pytest.mark.parametrize("channels_last", (False, True))
def test_results_past_the_caches(isa, channels_last):
    """Results of 16 MB and more are streamed, from the first line of the cache that a row has."""
    memory = torch.randn(2 * 37 * 247 * 231 + 8)
    with instruction_set(isa):
        for offset in (0, 1, 7):
            x = memory[offset : offset + memory.numel() - 8].view(2, 37, 247, 231)
            if channels_last:
                x = memory[offset : offset + memory.numel() - 8].view(2, 247, 231, 37)
                x = x.permute(0, 3, 1, 2)
            library = native.library("cpu")
            y, grad_x, grad_residual = (
                torch.empty_strided((memory.numel(),), (1,))[offset : -8 + offset or None]
                .view(-1)
                .as_strided(x.shape, x.stride())
                for _ in range(3)
            )
            for result in (y, grad_x, grad_residual):
                result.fill_(torch.nan)
            mean, var = torch.zeros(37), torch.ones(37)
            mask = empty_mask(x)
            none, how = (None, None, None), (0.0, "relu", 0.0)
            library.call("batch_norm_forward", x, mean, var, *none, y, mask, *how, False, on=x)
            assert torch.equal(y, x.relu())
            assert torch.equal(mask, pack(x > 0, x))
            results = (None, None, grad_x, grad_residual, 1.0)
            library.call(
                "batch_norm_grad_input",
                *(y, x, mean, var, None, mask, *results, *how, False),
                on=x,
            )
            assert torch.equal(grad_x, y) and torch.equal(grad_residual, y)


def test_the_same_bits_on_every_run_and_thread_count():
    threads = torch.get_num_threads()
    for format in (torch.contiguous_format, torch.channels_last):
        seen = []
        x = torch.randn(6, 20, 41, 43).contiguous(memory_format=format)
        for count in (1, 2, 3, 1):
            torch.set_num_threads(count)
            leaf = x.clone().requires_grad_()
            y = functional.batch_norm_act(leaf, None, None, training=True, backend="cpu")
            y.backward(y.detach())
            seen.append((y.detach(), leaf.grad))
        torch.set_num_threads(threads)
        for other in seen[1:]:
            assert all(torch.equal(a, b) for a, b in zip(seen[0], other, strict=True))


def test_dense_maps_are_not_copied(monkeypatch):
    def no_copy(tensor, like=None):
        assert tensor.is_contiguous(memory_format=like), "a hidden copy"
        return tensor

    monkeypatch.setattr(layout, "dense", no_copy)
    for format in (torch.contiguous_format, torch.channels_last):
        x = torch.randn(2, 4, 9, 9).contiguous(memory_format=format).requires_grad_()
        for training in (True, False):
            running = torch.zeros(4), torch.ones(4)
            y = functional.batch_norm_act(x, *running, training=training, backend="cpu")
            (grad,) = torch.autograd.grad(y, x, torch.randn_like(y))
            assert layout.memory_format(grad) == layout.memory_format(x)

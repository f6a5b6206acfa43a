"""What other packages make of accelerated models, beside what they make of stock ones: quantisation
of an exported graph by torchao, low-rank adapters by peft. Skipped where one is not installed:
pip install --no-deps torchao peft (peft imports transformers, accelerate and huggingface_hub)."""

import importlib

import pytest
import torch
from fusible import image, made
from torch import nn

import pydl

either = pytest.mark.parametrize("fuse", (False, True), ids=("swapped", "fused"))


def installed(module: str):
    try:
        return importlib.import_module(module)
    except ImportError as error:
        pytest.skip(f"{module} cannot be imported: {error}")


def native():
    """The native kernels for what they serve, PyTorch's for the rest."""
    return pydl.use_backend("cpu", strict=False)


def quantised(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """What the model computes in int8, after a look at ``x``."""
    pt2e = installed("torchao.quantization.pt2e.quantize_pt2e")
    x86 = installed("torchao.quantization.pt2e.quantizer.x86_inductor_quantizer")
    quantizer = x86.X86InductorQuantizer()
    quantizer.set_global(x86.get_default_x86_inductor_quantization_config())
    prepared = pt2e.prepare_pt2e(torch.export.export(model, (x,)).module(), quantizer)
    prepared(x)
    converted = pt2e.convert_pt2e(prepared)
    assert any("quantize" in str(node.target) for node in converted.graph.nodes)
    return converted(x)


@either
@pytest.mark.parametrize("name", ("small", "pooled"))
def test_an_exported_graph_is_quantised(name, fuse):
    """Under auto, for of the operators in a graph the quantiser knows PyTorch's alone."""
    x = image(name)
    with torch.no_grad():
        expected = quantised(made(name).eval(), x)
        model = pydl.accelerate(made(name), fuse=fuse).eval()
        torch.testing.assert_close(quantised(model, x), expected)


def adapted(model: nn.Module, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """The output and the state after three steps with adapters of rank 2 beside the convolutions,
    and the output with these merged into them."""
    peft = installed("peft")
    names = [name for name, layer in model.named_modules() if isinstance(layer, nn.Conv2d)]
    config = peft.LoraConfig(r=2, target_modules=names, init_lora_weights="gaussian")
    torch.manual_seed(5)
    adapted = peft.get_peft_model(model, config)
    learned = [p for p in adapted.parameters() if p.requires_grad]
    optimiser = torch.optim.SGD(learned, lr=0.1)
    for _ in range(3):
        optimiser.zero_grad()
        adapted(x).square().mean().backward()
        optimiser.step()
    adapted.eval()
    with torch.no_grad():
        found = {"output": adapted(x), **adapted.state_dict()}
        return found | {"merged": adapted.merge_and_unload()(x)}


@either
def test_adapters_learn(fuse):
    x = image("nested")
    expected = adapted(made("nested").train(), x)
    with native():
        found = adapted(pydl.accelerate(made("nested"), fuse=fuse).train(), x)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)

"""Non-maximum suppression: every backend keeps the same boxes as a loop over Python's floats."""

import itertools

import pytest
import torch
from contract import DTYPES, INSTRUCTION_SETS, instruction_set, servers
from hypothesis import given, settings
from hypothesis import strategies as st

from pydl import backends, functional

SERVERS = servers("nms")
OURS = [server for server in SERVERS if server.values[0][0] != "reference"]


def drawn(count, seed=0, spread=100.0, dtype=torch.float32):
    """Boxes with few enough places to overlap, scores with ties."""
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator) * spread
    size = torch.rand(count, 2, generator=generator) * 30 + 1
    scores = (torch.rand(count, generator=generator) * 50).round() / 50
    return torch.cat([corner, corner + size], 1).to(dtype), scores.to(dtype)


def by_loops(boxes, scores, classes, threshold):
    """In float64 exactly as written down; boxes of the tests have overlaps that no rounding moves
    across their thresholds."""
    boxes, scores = boxes.tolist(), scores.tolist()
    order, kept = sorted(range(len(boxes)), key=lambda i: -scores[i]), []
    for i in order:
        for j in kept:
            if classes is not None and classes[i] != classes[j]:
                continue
            a, b = boxes[j], boxes[i]
            wide, high = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
            inter = max(wide, 0) * max(high, 0)
            union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter
            if union and inter / union > threshold:
                break
        else:
            kept.append(i)
    return kept


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("count", (0, 1, 2, 63, 64, 65, 200))
@pytest.mark.parametrize("server", SERVERS)
def test_against_loops(server, count, dtype):
    """Around the 64 boxes of a word and of a block."""
    backend, device = server
    boxes, scores = drawn(count, dtype=dtype)
    for threshold in (0.0, 0.3, 0.7, 1.0):
        kept = functional.nms(boxes.to(device), scores.to(device), threshold, backend=backend)
        assert kept.dtype == torch.int64 and kept.device.type == device
        assert kept.tolist() == by_loops(boxes, scores, None, threshold)


@pytest.mark.parametrize("classes", (1, 3, 90))
@pytest.mark.parametrize("server", SERVERS)
def test_classes_do_not_see_each_other(server, classes):
    backend, device = server
    boxes, scores = drawn(180)
    numbers = torch.randint(classes, (180,), generator=torch.Generator().manual_seed(5))
    # Numbers that a shift of coordinates could not tell apart, nor 32 bits.
    numbers = numbers * 2**33 - 7
    operands = (t.to(device) for t in (boxes, scores, numbers))
    kept = functional.batched_nms(*operands, 0.4, backend=backend)
    assert kept.tolist() == by_loops(boxes, scores, numbers.tolist(), 0.4)


@pytest.mark.parametrize("server", SERVERS)
def test_by_hand(server):
    """Two halves of each other overlap by a third; a tie goes to the first."""
    backend, device = server
    boxes = torch.tensor(
        [[0, 0, 2, 2], [1, 0, 3, 2], [10, 10, 12, 12], [0, 0, 2, 2.0]], device=device
    )
    scores = torch.tensor([0.5, 0.9, 0.1, 0.5], device=device)

    def kept(threshold):
        return functional.nms(boxes, scores, threshold, backend=backend).tolist()

    assert kept(0.3) == [1, 2] and kept(0.34) == [1, 0, 2] and kept(1.0) == [1, 0, 3, 2]


@pytest.mark.parametrize("server", SERVERS)
def test_the_threshold_is_not_rounded(server):
    """An overlap of 0.1f is more than 0.1, and one of 0.7f is not more than 0.7."""
    backend, device = server
    scores = torch.tensor([1.0, 0.5], device=device)
    for length, threshold, left in ((1, 0.1, 1), (7, 0.7, 2)):
        boxes = torch.tensor([[0, 0, 10, 1], [0, 0, length, 1.0]], device=device)
        assert len(functional.nms(boxes, scores, threshold, backend=backend)) == left


@pytest.mark.parametrize("server", SERVERS)
def test_what_is_no_overlap_does_not_suppress(server):
    """Points, NaN and infinite boxes stay, and so does what comes after them."""
    backend, device = server
    nan, inf = torch.nan, torch.inf
    boxes = torch.tensor(
        [
            [3, 3, 3, 3],
            [3, 3, 3, 3],
            [nan, 0, 5, 5],
            [0, nan, 5, 5],
            [0, 0, inf, 5],
            [-inf, -inf, inf, inf],
            [0, 0, 5, 5.0],
            [0, 0, 5, 5.0],
        ],
        device=device,
    )
    scores = torch.linspace(1, 0, 8, device=device)
    assert functional.nms(boxes, scores, 0.5, backend=backend).tolist() == [0, 1, 2, 3, 4, 5, 6]
    kept = functional.nms(boxes[4:], scores[4:], -0.5, backend=backend).tolist()
    assert kept == functional.nms(boxes[4:], scores[4:], -0.5, backend="reference").tolist()


@pytest.mark.parametrize("server", OURS)
def test_many_boxes(server):
    """Several words per row and several blocks; a float32 overlap is the reference's to the bit."""
    backend, device = server
    boxes, scores = drawn(700, spread=40.0)
    for classes in (None, torch.arange(700) % 2):
        for threshold in (0.2, 0.6):
            arguments = boxes, scores, *(() if classes is None else (classes,))
            function = functional.nms if classes is None else functional.batched_nms
            ours = function(*(t.to(device) for t in arguments), threshold, backend=backend)
            theirs = function(*arguments, threshold, backend="reference")
            assert torch.equal(ours.cpu(), theirs)


def test_the_same_boxes_with_any_number_of_threads_and_every_instruction_set():
    threads = torch.get_num_threads()
    for dtype in DTYPES:
        boxes, scores = drawn(900, spread=60.0, dtype=dtype)
        truth = functional.nms(boxes, scores, 0.5, backend="reference")
        for isa, count in itertools.product(INSTRUCTION_SETS, (1, 3)):
            with instruction_set(isa):
                torch.set_num_threads(count)
                kept = functional.nms(boxes, scores, 0.5, backend="cpu")
                torch.set_num_threads(threads)
            assert torch.equal(kept, truth)


@settings(max_examples=40, deadline=None)
@given(
    count=st.integers(0, 90),
    seed=st.integers(0, 1000),
    spread=st.floats(1, 200),
    threshold=st.floats(0, 1),
    classes=st.integers(1, 4),
    backend=st.sampled_from([server.values[0][0] for server in OURS if not server.marks[:-1]]),
)
def test_any_boxes(count, seed, spread, threshold, classes, backend):
    boxes, scores = drawn(count, seed, spread)
    numbers = torch.arange(count) % classes
    ours = functional.batched_nms(boxes, scores, numbers, threshold, backend=backend)
    theirs = functional.batched_nms(boxes, scores, numbers, threshold, backend="reference")
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("server", SERVERS)
def test_the_operator_is_registered_correctly(server):
    backend, device = server
    boxes = drawn(9)[0].to(device)
    for classes in (None, torch.arange(9, device=device)):
        torch.library.opcheck(torch.ops.pydl.nms_keep.default, (boxes, classes, 0.5, backend))


@pytest.mark.parametrize("server", SERVERS)
def test_compiles_whole(server):
    """With PyTorch told to capture shapes that depend on values."""
    backend, device = server
    boxes, scores = (t.to(device) for t in drawn(50))

    def model(boxes, scores):
        return functional.nms(boxes, scores, 0.3, backend=backend)

    with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):
        compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
        assert torch.equal(compiled(boxes, scores), model(boxes, scores))


def test_boxes_may_lie_anyhow_and_want_a_gradient():
    boxes, scores = drawn(30)
    wide = torch.zeros(30, 8)[:, ::2].copy_(boxes).requires_grad_()
    kept = functional.nms(wide, scores.requires_grad_(), 0.3)
    assert torch.equal(kept, functional.nms(boxes, scores, 0.3)) and not kept.requires_grad


BOXES, SCORES = drawn(5)
BAD = (
    ((BOXES[0], SCORES), RuntimeError, r"boxes should be a tensor \(N, 4\)"),
    ((BOXES[:, :3], SCORES), RuntimeError, r"boxes should be a tensor \(N, 4\)"),
    ((BOXES, SCORES[:4]), RuntimeError, r"scores should be a tensor \(5,\)"),
    ((BOXES, SCORES[:, None]), RuntimeError, r"scores should be a tensor \(5,\)"),
    ((BOXES, SCORES.double()), RuntimeError, "should be the same"),
    ((BOXES, SCORES.to("meta")), RuntimeError, "on the same device"),
    ((BOXES.long(), SCORES), RuntimeError, "serves float32"),
    (([BOXES], SCORES), TypeError, "argument 'boxes' must be Tensor"),
    ((BOXES, 0.5), TypeError, "argument 'scores' must be Tensor"),
)
BAD_CLASSES = (
    (torch.zeros(4, dtype=torch.long), RuntimeError, r"idxs should be a tensor \(5,\)"),
    (torch.zeros(5), RuntimeError, "idxs should be integers"),
    (torch.zeros(5, dtype=torch.long, device="meta"), RuntimeError, "on the same device"),
    ([0] * 5, TypeError, "argument 'idxs' must be Tensor"),
)


@pytest.mark.parametrize("backend", ("reference", "cpu", "cuda", None))
def test_bad_input(backend):
    if backend is not None and backends.BACKENDS[backend].devices not in ((), ("cpu",)):
        pytest.skip(f"{backend} does not serve a CPU here")
    for arguments, error, message in BAD:
        with pytest.raises(error, match=message):
            functional.nms(*arguments, 0.5, backend=backend)
    for classes, error, message in BAD_CLASSES:
        with pytest.raises(error, match=message):
            functional.batched_nms(BOXES, SCORES, classes, 0.5, backend=backend)

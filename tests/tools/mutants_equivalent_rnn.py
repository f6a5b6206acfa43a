"""Mutants of the recurrent layers that compute the same, as in mutants_equivalent.py."""

SAME = "Where both are the same it does not matter which."
_NO_SEQUENCE = "The tile too many has no sequences."
_ALL_STEPS = "The checks refuse a step without sequences."
_NOBODY_USES = "Without layer norm of c nobody uses what is computed then."
_OWN = (
    "Each thread reads back what it wrote itself, and the sum over the block has its own barriers."
)
_SPARE_SUMS = "What the threads too many add up is not stored."
_SPARE_GROUP = "What is read in its place lies in the block's shared memory; the sum is not stored."
RNN: dict[tuple[str, str, str] | tuple[str, str, str, int], str] = {
    ("rnn_step.cu", "__syncthreads();", ";", 1): _OWN,
    (
        "rnn_step.cu",
        "if (f.norm_c != nullptr) {",
        "if (true) {",
    ): "Without layer norm nobody uses the moments.",
    ("rnn_step.cu", "if (count == 0) continue;", "if (false) continue;"): _ALL_STEPS,
    ("rnn_step_backward.cu", "__syncthreads();", ";", 0): _OWN,
    ("rnn_step_backward.cu", "__syncthreads();", ";", 1): _OWN,
    ("rnn_step_backward.cu", "if (f.norm_c != nullptr) {", "if (true) {", 0): _NOBODY_USES,
    ("rnn_step_backward.cu", "if (f.norm_c != nullptr) {", "if (true) {", 3): _NOBODY_USES,
    (
        "rnn_step_backward.cu",
        "i < f.sequences * sums_a_sequence",
        "i <= f.sequences * sums_a_sequence",
    ): "The number behind the last is room in `work` that these kernels do not use.",
    ("rnn_step_backward.cu", "H > adds ?", "H >= adds ?"): SAME,
    ("rnn_step_backward.cu", "if (step.count == 0) continue;", "if (false) continue;"): _ALL_STEPS,
    (
        *("rnn_persistent_backward.cu", "if (f.grad_peephole == nullptr) return;"),
        *("if (false) return;", 0),
    ): "Every LSTM has that room, and without peepholes nobody reads the sums.",
    (
        "rnn_persistent_backward.cu",
        "H - first_unit < units ?",
        "H - first_unit <= units ?",
    ): SAME,
    (
        "rnn_persistent_backward.cu",
        "tile < step.count; tile +=",
        "tile <= step.count; tile +=",
    ): _NO_SEQUENCE,
    (
        "rnn_persistent.cu",
        "sizeof(T) < sizeof(int)",
        "sizeof(T) <= sizeof(int)",
    ): "As many bytes as an int has make one int.",
    (
        "rnn_persistent.cu",
        "first > second ? first : second",
        "first >= second ? first : second",
    ): SAME,
    ("rnn_persistent.cu", "H - first_unit < units ?", "H - first_unit <= units ?"): SAME,
    (
        "rnn_persistent.cu",
        "tile < count; tile +=",
        "tile <= count; tile +=",
    ): _NO_SEQUENCE,
    (
        "rnn_persistent.cu",
        "return e < Slice::tile * units",
        "return e <= Slice::tile * units",
    ): "The thread behind the last loads what it does not use.",
    (
        "rnn_persistent.cu",
        "gate < 4; ++gate",
        "gate <= 4; ++gate",
    ): "The next line passes over the turn too many: no cell has five gates.",
    (
        "rnn_persistent.cu",
        "tile + s < count ?",
        "tile + s <= count ?",
    ): "The row too many lies in `work` like the others, and nobody reads its sums.",
    (
        "rnn_persistent.cu",
        "e < Slice::tile * units; e +=",
        "e <= Slice::tile * units; e +=",
    ): "The next line passes over the turn too many.",
    (
        "rnn_persistent.cu",
        "if (e >= block_size) load",
        "if (true) load",
    ): "It would load the same once more.",
    ("rnn_slice.h", "if (group + i >= groups) continue;", "if (false) continue;", 0): _SPARE_GROUP,
    (
        *("rnn_slice.h", "if (group + i >= groups) continue;"),
        *("if (group + i > groups) continue;", 0),
    ): _SPARE_GROUP,
    ("rnn_slice.h", "if (part < parts(rows)) {", "if (true) {", 0): _SPARE_SUMS,
    ("rnn_slice.h", "if (part < parts(rows)) {", "if (part <= parts(rows)) {", 0): _SPARE_SUMS,
    (
        "rnn_slice.h",
        "group < groups; group +=",
        "group <= groups; group +=",
    ): "The turn too many passes over all its groups.",
    (
        "rnn_slice.h",
        "from < columns; from +=",
        "from <= columns; from +=",
    ): "The stretch too many has no columns.",
    ("rnn_slice.h", "columns - from < rnn_stretch ?", "columns - from <= rnn_stretch ?"): SAME,
    ("rnn.cu", "there < step.count ?", "there <= step.count ?"): SAME,
    ("rnn.cu", "if (all) return", "if (false) return"): "The counts that it writes say the same.",
    (
        "rnn.cu",
        "from < count; from +=",
        "from <= count; from +=",
    ): "The launch too many writes no counts.",
    ("rnn.cu", "count - from < counts_a_launch ?", "count - from <= counts_a_launch ?"): SAME,
    ("rnn_cell.cu", "&& hidden > 0)", "&& hidden >= 0)"): "The checks refuse cells of no units.",
    (
        "rnn_kernels.h",
        "if (threadIdx.x % 32 == 0) parts",
        "if (true) parts",
    ): "All lanes of a warp have the same sum.",
    (
        "rnn_product.cu",
        "if (first >= count) return",
        "if (false) return",
    ): "A warp without sequences adds up nothing and stores nothing.",
    (
        "rnn_product.cu",
        "if (first >= count) return",
        "if (first > count) return",
    ): "A warp without sequences adds up nothing and stores nothing.",
}

"""Mutants that compute the same: (file, words of the statement, what became of them) and why. Where
the file says the same several times: the whole statement, and which of them it is, from 0."""

from mutants_equivalent_rnn import RNN, SAME

_EITHER_PATH = "At the limit itself the tensor cores and the direct kernels are both right."
_AS_ONE = "The other way computes the same; the choice is one of speed."
_ANY_TILE = "Sums do not depend on the tile; the choice is one of speed."
_ALL_OFF = "Once one is off the map, so are the bin's others, which ascend or lie at one place."
_SPARE = "A box is listed with a pixel to spare on either side."
_TWICE = "Its coordinates are those of lane 0, which computes and stores the same."
_NO_ROOM = "The last condition refuses whatever reaches that far."
_NOT_FINITE = "Such a bin is of a box that is not finite, which took no pixel: its indices are -1."
_ANY_STEP = "Without one distance the pixels are found axis by axis; the choice is one of speed."
_ONCE_MORE = "The general kernel then computes and stores the same once more."
_FOUR_PERIODS = (
    "The gradient depends on no channel, so its maps are four periods and have no fifth."
)
_MORE_RUNS = "Runs are read that name no place of the chunk; the choice is one of speed."
_NO_PLACE = "The element too many is the last once more, or is given place -1, which nobody has."
_ONE_APART = "Pixels of a contiguous map are one apart."
_NOT_USED = "The row too many is loaded where there is one, and not used."
_NO_TERMS = "A thread without terms adds none, wherever its walk would begin."
EQUIVALENT: dict[tuple[str, str, str] | tuple[str, str, str, int], str] = {
    **RNN,
    ("batch_norm.cu", "momentum < A(0.5)", "momentum <= A(0.5)"): (
        "At one half either end is as near, and both ways are right."
    ),
    ("bias_act.cu", "if (served) return;", "if (false) return;", 0): _ONCE_MORE,
    ("bias_act.cu", "if (served) return;", "if (false) return;", 1): _ONCE_MORE,
    (
        "bias_act.cu",
        "if (bias != nullptr) z += A(level.at[j]);",
        "if (true) z += A(level.at[j]);",
    ): "Without a bias it adds 0, which changes nothing but the sign of a 0.",
    (
        "bias_act.cu",
        "UNROLLED for (int i = 0; i < Dense::periods; ++i) {",
        "UNROLLED for (int i = 0; i <= Dense::periods; ++i) {",
        2,
    ): _FOUR_PERIODS,
    (
        "bias_act.cu",
        "UNROLLED for (int i = 0; i < Dense::periods; ++i) {",
        "UNROLLED for (int i = 0; i <= Dense::periods; ++i) {",
        3,
    ): _FOUR_PERIODS,
    ("conv_bias_dense.cu", "grad_y.numel() > 0", "grad_y.numel() >= 0"): (
        "An empty map has one run of no pixels, whose sum is 0 as the general kernel's is."
    ),
    ("conv.cu", "x.size[0] < longest", "x.size[0] <= longest"): _EITHER_PATH,
    ("conv.cu", "x.size[1] < longest", "x.size[1] <= longest"): _EITHER_PATH,
    ("conv.cu", "y.size[1] < longest", "y.size[1] <= longest"): _EITHER_PATH,
    ("conv.cu", "x.size[axis + 2] < longest", "x.size[axis + 2] <= longest"): _EITHER_PATH,
    ("conv.cu", "y.size[axis + 2] < longest", "y.size[axis + 2] <= longest"): _EITHER_PATH,
    ("conv.cu", "padding[axis] < longest", "padding[axis] <= longest"): _EITHER_PATH,
    ("conv.cu", "stride[axis] < longest", "stride[axis] <= longest"): _EITHER_PATH,
    ("conv.cu", "dilation[axis] < longest", "dilation[axis] <= longest"): _EITHER_PATH,
    ("conv.cu", "< longest / window", "<= longest / window"): _EITHER_PATH,
    ("conv.cu", "weight.size[4] < longest", "weight.size[4] <= longest"): _EITHER_PATH,
    (
        "conv.cu",
        "window.groups > 1",
        "window.groups >= 1",
    ): "One channel in one group is depthwise too, with one channel.",
    (
        "conv.cu",
        "if (weight.size[1] == 1 && window.groups > 1) return",
        "if (false) return",
    ): "The other kernels serve one channel per group too; the choice is one of speed.",
    (
        "conv_depthwise.cu",
        "descending = p.dilation[2] < 0",
        "descending = p.dilation[2] <= 0",
    ): "Where taps are neighbours the dilation is 1 or -1.",
    (
        "conv_depthwise.cu",
        "tap = min(first_tap + i, taps - 1)",
        "tap = (first_tap + i)",
    ): "The taps too many come out as some that are there, and their sums are not stored.",
    (
        "conv_depthwise.cu",
        "if (launch_dense_depthwise(args, stream)) return;",
        "if (false) return;",
        0,
    ): _ONCE_MORE,
    (
        "conv_depthwise.cu",
        "if (launch_dense_depthwise(args, stream)) return;",
        "if (false) return;",
        1,
    ): _ONCE_MORE,
    (
        "conv_direct.cu",
        "from < count;",
        "from <= count;",
    ): "The last part is empty where the parts come out even, and an empty part adds 0.",
    (
        "conv_direct.cu",
        "i < filters_per_block; ++i) {",
        "i <= filters_per_block; ++i) {",
    ): "The line below passes over the turn too many: no block has more than filters_per_block.",
    ("conv_direct.cu", "if (threadIdx.x < terms) {", "if (true) {"): _NO_TERMS,
    ("conv_direct.cu", "if (threadIdx.x < terms) {", "if (threadIdx.x <= terms) {"): _NO_TERMS,
    (
        "conv_direct.cu",
        "term < terms; term += together * block_size",
        "term <= terms; term += together * block_size",
    ): "The turn too many loads nothing and adds zeros.",
    (
        "conv_direct.cu",
        "if (threadIdx.x == 0) grad_bias.at",
        "if (true) grad_bias.at",
    ): "All threads of the block store the same value.",
    (
        "conv_bias_dense.cu",
        "if (walk.more()) add(std::false_type{});",
        "if (true) add(std::false_type{});",
    ): "A thread without places adds zeros.",
    ("conv_bias_dense.cu", "<= 1 << 29", "< 1 << 29"): _AS_ONE,
    ("conv_few_channels.cu", "weight.size[1] <= few", "weight.size[1] < few"): _AS_ONE,
    ("conv_few_channels.cu", ">= tile_rows / 2", "> tile_rows / 2"): _AS_ONE,
    ("conv_few_channels.cu", "tile_rows) < most", "tile_rows) <= most"): _NO_ROOM,
    ("conv_few_channels.cu", "tile_columns) < most", "tile_columns) <= most"): _NO_ROOM,
    ("conv_few_channels.cu", "shared_bytes(args) <= most", "shared_bytes(args) < most"): _AS_ONE,
    (
        "conv_gemm.cu",
        "&& c < p.channels;",
        "&& c <= p.channels;",
    ): "Every chunk begins at a channel, and lies across only where channels fill whole ones.",
    (
        "conv_gemm.cu",
        "if (threadIdx.x == 0) tile_column[0]",
        "if (true) tile_column[0]",
    ): "All threads of a block store the same number.",
    ("conv_gemm.cu", "if (large) return", "if (false) return"): _ANY_TILE,
    ("conv_gemm.cu", "if (whole(1 - column, channels)) return", "if (false) return"): _AS_ONE,
    ("conv_gemm.cu", "columns > 64", "columns >= 64"): _ANY_TILE,
    ("conv_gemm.cu", ">= enough_blocks", "> enough_blocks"): _ANY_TILE,
    ("conv_gemm_weight.cu", "filters > 64", "filters >= 64"): _ANY_TILE,
    ("conv_gemm_weight.cu", "columns > 64", "columns >= 64"): _ANY_TILE,
    (
        "conv_gemm_weight.cu",
        "column < p.columns && c",
        "column <= p.columns && c",
    ): "The column behind the last reads what the first does, and is not stored.",
    (
        "conv_gemm_weight.cu",
        "if (form == Form::gather) launch",
        "if (true) launch",
    ): "It would store the same sums once more.",
    (
        "lrn.cu",
        "args.size > 2 * channels",
        "args.size >= 2 * channels",
    ): "A window of 2 C channels already holds all that one of 2 C + 1 does.",
    (
        "lrn.cu",
        "if (output.channels_last()) {",
        "if (true) {",
    ): "Either strip gives the same bits; the choice is one of speed.",
    (
        "lrn.cu",
        "if (beta == A(0.75)) return three_quarters(reciprocal_sqrt(scale));",
        "if (false) return three_quarters(reciprocal_sqrt(scale));",
    ): _AS_ONE,
    (
        "pool_window.h",
        "skipped = start < 0",
        "skipped = start <= 0",
    ): "At 0 nothing is skipped: (dilation - 1) / dilation is 0.",
    (
        "pool_window.h",
        "reach > span",
        "reach >= span",
    ): "At the span itself the first window is 0: (stride - 1) / stride is 0.",
    (
        "pool_window.h",
        "if (dilation == 1) return distance;",
        "if (false) return distance;",
    ): "The shortcut for a dilation of 1: the division by 1 finds the same tap.",
    (
        *("lrn_dense.cu", "i < strip + outside; i += vector", "i <= strip + outside; i += vector"),
    ): "The vector too many has no channel that the strip's windows reach.",
    ("lrn_dense.cu", "output.numel() > 1 << 29", "output.numel() >= 1 << 29"): _AS_ONE,
    ("pool_dense.h", "tensor->numel() > 1 << 29", "tensor->numel() >= 1 << 29"): _AS_ONE,
    ("pool_dense.h", "map.size[2] > 1", "map.size[2] >= 1"): _AS_ONE,
    ("pool_dense.h", "vector > 1 && (", "vector >= 1 && ("): _AS_ONE,
    (
        "pool_lp_dense.cu",
        "taps > 0; --taps",
        "taps >= 0; --taps",
    ): "A window of which nothing is inside is off the map, and its weight is not used.",
    ("roi.cu", "map.size[axis] <= 1 ||", "map.size[axis] < 1 ||"): _AS_ONE,
    (
        "roi.cu",
        "if (rows.bin > 0) break;",
        "if (false) break;",
    ): _ALL_OFF,
    (
        "roi.cu",
        "rows.bin > 0) break;",
        "rows.bin >= 0) break;",
    ): _ALL_OFF,
    (
        "roi.cu",
        "if (cols.bin > 0) break;",
        "if (false) break;",
    ): _ALL_OFF,
    (
        "roi.cu",
        "cols.bin > 0) break;",
        "cols.bin >= 0) break;",
    ): _ALL_OFF,
    (
        "roi.cu",
        "samples.bin > 0 && position",
        "samples.bin >= 0 && position",
    ): "Once one lies beyond the pixel, so do the bin's others, which ascend or lie at one place.",
    (
        "roi.cu",
        "if (row_weight == 0) continue;",
        "if (false) continue;",
    ): "The product of the weights is 0 too, and the next guard passes over it.",
    ("roi.cu", "return rows.bin > 0", "return rows.bin >= 0"): _NOT_FINITE,
    ("roi.cu", "&& cols.bin > 0", "&& cols.bin >= 0"): _NOT_FINITE,
    (
        "roi.cu",
        "first < count; first += block_size",
        "first <= count; first += block_size",
    ): "The turn too many lists no box.",
    (
        "roi.cu",
        "if (lane == 0) in_warp",
        "if (true) in_warp",
    ): "All lanes of the warp store the same.",
    (
        "roi.cu",
        "grad_y.numel() > 0 ?",
        "grad_y.numel() >= 0 ?",
    ): "Boxes without bins have nothing to give.",
    ("roi.cu", "low = end < start", "low = end <= start"): SAME,
    ("roi.cu", "high = end < start", "high = end <= start"): SAME,
    ("roi.cu", "high >= A(first - 2)", "high > A(first - 2)"): _SPARE,
    ("roi.cu", "low <= A(last + 1)", "low < A(last + 1)"): _SPARE,
    (
        "pool_max_dense.cu",
        "UNROLLED for (int o = 0; o < windows.count; ++o) {",
        "UNROLLED for (int o = 0; o <= windows.count; ++o) {",
        1,
    ): "The window too many begins behind the cell, whose elements are no taps of it.",
    (
        "pool_max_dense.cu",
        "if (tap < 0) continue;",
        "if (false) continue;",
    ): "A window that has not this element did not choose it: 255 is what those off the map chose, "
    "whose gradient is 0.",
    ("pool.cu", "if (launch_dense_max_forward(args, stream)) return;", "if (false) return;"): (
        _ONCE_MORE
    ),
    ("pool.cu", "if (launch_dense_max_backward(args, stream)) return;", "if (false) return;"): (
        _ONCE_MORE
    ),
    ("pool.cu", "if (launch_dense_avg_forward(args, stream)) return;", "if (false) return;"): (
        _ONCE_MORE
    ),
    ("pool.cu", "if (launch_dense_avg_backward(args, stream)) return;", "if (false) return;"): (
        _ONCE_MORE
    ),
    ("pool.cu", "taps >= 32", "taps > 32"): _AS_ONE,
    ("pool.cu", "plane <= INT32_MAX", "plane < INT32_MAX"): _AS_ONE,
    ("pool.cu", "if (are_large_bins(x, y, window))", "if (false)"): _AS_ONE,
    ("pool.cu", "if (are_large_bins(grad_x, grad_y, window))", "if (false)"): _AS_ONE,
    ("pool.cu", "if (divisor == 0 && are_large_bins(grad_x, grad_y, window))", "if (false)"): (
        _AS_ONE
    ),
    ("pool.cu", "if (divisor == 0 && are_large_bins(x, y, window))", "if (false)"): _AS_ONE,
    (
        "pool.cu",
        "if (tap_d < 0) continue;",
        "if (false) continue;",
    ): "A tap of -1 along the outermost axis makes a negative number, which is no window's index.",
    ("pool_adaptive_dense.cu", "if (zeros)", "if (true)"): _AS_ONE,
    ("pool_adaptive_dense.cu", "if (out.at[j].bits == 0)", "if (true)"): (
        "A value that is read again at its place is the same."
    ),
    ("pool_adaptive_dense.h", "together > 8", "together >= 8"): _AS_ONE,
    ("pool_adaptive_dense.h", "count >= together", "count > together"): _AS_ONE,
    (
        "pool_adaptive_dense.h",
        "UNROLLED for (int i = 0; i < together; ++i) {",
        "UNROLLED for (int i = 0; i <= together; ++i) {",
    ): "There are fewer planes, and the one too many is not asked for.",
    ("pool_adaptive_dense.h", "size[2] > 1", "size[2] >= 1"): _AS_ONE,
    ("pool_adaptive_dense.h", "its[0] > 1", "its[0] >= 1"): _AS_ONE,
    (
        "pool_adaptive_dense.h",
        "if (!many || bytes_of(1, together) > enough_shared || "
        "(channels_last && size[1] % together != 0))",
        "if (true)",
    ): _AS_ONE,
    (
        "pool_adaptive_dense.h",
        "if (wide) return load<together>(from);",
        "if (false) return load<together>(from);",
    ): _AS_ONE,
    (
        "pool_adaptive_dense.h",
        "if (wide) return store(to, values);",
        "if (false) return store(to, values);",
    ): _AS_ONE,
    ("pool_adaptive_dense.h", "> enough_shared", ">= enough_shared"): _AS_ONE,
    ("pool_adaptive_dense.h", "tensor.numel() <= 1 << 29", "tensor.numel() < 1 << 29"): _AS_ONE,
    ("pool_adaptive_dense.h", ">= enough_blocks / 2", "> enough_blocks / 2"): _AS_ONE,
    ("pool_adaptive_dense_backward.cu", "> enough_shared", ">= enough_shared"): _AS_ONE,
    (
        "pool_adaptive_dense_backward.cu",
        "min((number + 1) * band, height)",
        "(height)",
    ): "A band then asks bins below it too, of which none has a place there.",
    ("pool_adaptive_dense_backward.cu", "first < height", "first <= height"): (
        "Behind the last row nobody has a row or a place."
    ),
    ("pool_adaptive_dense.h", "> most_shared", ">= most_shared"): _AS_ONE,
    ("pool_adaptive_dense.h", "> INT32_MAX", ">= INT32_MAX"): _AS_ONE,
    ("pool_adaptive_dense.h", "< enough_blocks))", "<= enough_blocks))"): _AS_ONE,
    ("pool_adaptive.cu", "if (bins == 1 || size == 1)", "if (false)"): _AS_ONE,
    ("pool_adaptive.cu", "if (elements < 32)", "if (false)"): _AS_ONE,
    ("pool_adaptive.cu", "elements < 32", "elements <= 32"): _AS_ONE,
    ("pool_adaptive.cu", "elements < 64 ?", "elements <= 64 ?"): _AS_ONE,
    ("pool_adaptive.cu", "elements < 128 ?", "elements <= 128 ?"): _AS_ONE,
    ("pool_adaptive.cu", "elements < 256 ?", "elements <= 256 ?"): _AS_ONE,
    ("pool_adaptive.cu", "its_threads > 1", "its_threads >= 1"): _AS_ONE,
    ("pool_adaptive.cu", "its_threads < threads", "its_threads <= threads"): SAME,
    ("pool_adaptive.cu", "if (is_large && its_threads < threads)", "if (true)"): _AS_ONE,
    (
        "pool_adaptive.cu",
        "e < elements; e += together * threads",
        "e <= elements; e += together * threads",
    ): "The turn too many loads nothing: it adds zeros, or compares nothing.",
    (
        "pool_adaptive.cu",
        "its_place > place",
        "its_place >= place",
    ): "At one place both have the same value.",
    (
        "pool_adaptive.cu",
        "part > 0 || number >= count",
        "part > 0 || number > count",
    ): "The bin too many is the last one again, which is stored twice.",
    ("pool_lp.cu", "if (inside != taps) sum", "if (true) sum"): "taps / taps is 1.",
    ("pool_lp.cu", "if (inside != taps) share", "if (true) share"): "taps / taps is 1.",
    ("pool_lp.cu", "if (p == 1) return", "if (false) return"): _AS_ONE,
    ("pool_lp.cu", "if (p == 2) return", "if (false) return"): _AS_ONE,
    (
        "spatial_norm.cu",
        "first_h = max(at.h - reach.before, int64_t{0})",
        "first_h = (int64_t{0})",
    ): "The lines before are in no box of the strip, and the loop passes over them.",
    (
        "spatial_norm.cu",
        "last_h = min(at.h + strip - 1 + reach.after, values.size[3] - 1)",
        "last_h = (values.size[3] - 1)",
    ): "The lines after are in no box of the strip, and the loop passes over them.",
    ("nms.cu", "kept.x2 < other.x2", "kept.x2 <= other.x2"): SAME,
    ("nms.cu", "kept.x1 > other.x1", "kept.x1 >= other.x1"): SAME,
    ("nms.cu", "kept.y2 < other.y2", "kept.y2 <= other.y2"): SAME,
    ("nms.cu", "kept.y1 > other.y1", "kept.y1 >= other.y1"): SAME,
    ("nms.cu", "width > 0", "width >= 0"): "The width is 0 either way.",
    ("nms.cu", "height > 0", "height >= 0"): "The height is 0 either way.",
    (
        "nms.cu",
        "if (column < row) return;",
        "if (false) return;",
    ): "Nobody reads the words below the diagonal; making them costs time.",
    (
        "nms.cu",
        "against <= k",
        "against < k",
    ): "A box that suppresses itself has been chosen by then.",
    ("nms.cu", "against >= count", "against > count"): "Nobody asks about the box behind the last.",
    (
        "nms.cu",
        "if (threadIdx.x == 0) {",
        "if (true) {",
    ): "All threads of the block compute and store the same.",
    (
        "nms.cu",
        "first + bit < count; ++bit",
        "first + bit <= count; ++bit",
    ): "Nobody asks about the box behind the last, which is of the last group.",
    (
        "batch_norm_map.h",
        "if (tensor.size[axis] == 1) continue;",
        "if (false) continue;",
    ): _ANY_STEP,
    ("batch_norm_map.h", "if (span == 1) step", "if (true) step"): _ANY_STEP,
    ("batch_norm_map.h", "if (tensor.stride[axis] != step * span) {", "if (true) {"): _ANY_STEP,
    ("batch_norm_map.h", "if (step >= 0) return", "if (false) return"): _ANY_STEP,
    ("batch_norm_map.h", "step >= 0", "step > 0"): _ANY_STEP,
    (
        "batch_norm_apply.cu",
        "i < pieces; ++i",
        "i <= pieces; ++i",
    ): "The piece too many is the next warp's first, which stores the same.",
    (
        "batch_norm_apply.cu",
        "if (c != channel) {",
        "if (true) {",
    ): "The channel's numbers are made again and come out the same.",
    ("batch_norm_apply.cu", "if (inside) y.pixel", "if (true) y.pixel"): _TWICE,
    ("batch_norm_apply.cu", "if (!inside) return;", "if (false) return;"): _TWICE,
    ("batch_norm_apply.cu", "if (served) return;", "if (false) return;", 0): _ONCE_MORE,
    ("batch_norm_apply.cu", "if (served) return;", "if (false) return;", 1): _ONCE_MORE,
    ("channel_sums.h", "room < 1 ?", "room <= 1 ?"): SAME,
    ("channel_sums.h", "room < wanted ?", "room <= wanted ?"): SAME,
    ("channel_sums.h", "first < pixels() ?", "first <= pixels() ?"): SAME,
    (
        "batch_norm.cu",
        "if (!served) launch(partial_moments",
        "if (true) launch(partial_moments",
    ): _ONCE_MORE,
    (
        "batch_norm.cu",
        "if (!served) launch(partial_sums",
        "if (true) launch(partial_sums",
    ): _ONCE_MORE,
    (
        "batch_norm.cu",
        "p < at.last; p += together * at.step",
        "p <= at.last; p += together * at.step",
    ): "The turn too many loads nothing: it joins no pixels, or adds zeros.",
    (
        "batch_norm.cu",
        "run < shape.runs; run += together * warp_size",
        "run <= shape.runs; run += together * warp_size",
    ): "The turn too many joins runs of no pixels, which change nothing.",
    (
        *("unpool.cu", "const bool inside = u.channels > 1;"),
        "const bool inside = u.channels >= 1;",
    ): "A lane then has a plane's run to itself; the choice is one of speed.",
    ("unpool.cu", "min(its_run * run + run, u.elements)", "(u.elements)"): _MORE_RUNS,
    ("unpool.cu", "e < end; e += 4 * at_once", "e <= end; e += 4 * at_once"): _NO_PLACE,
    (
        *("unpool.cu", "if (its.least < first + size && its.greatest >= first) {"),
        "if (true) {",
    ): _MORE_RUNS,
    ("unpool.cu", "its.least < first + size", "its.least <= first + size"): _MORE_RUNS,
    ("unpool.cu", "max(to_run, i + 1)", "(i + 1)"): "A lane's runs ascend.",
    ("unpool.cu", "min(to_run * run, u.elements)", "(u.elements)"): _MORE_RUNS,
    ("unpool.cu", "i < end; i += 4 * blockDim.x", "i <= end; i += 4 * blockDim.x"): _NO_PLACE,
    (
        "unpool.cu",
        "if (!is_dense(grad_y, false) || !is_dense(index, false) || !is_dense(grad_x, false)) {",
        "if (true) {",
    ): _AS_ONE,
    (
        "conv_depthwise_dense.cu",
        "__launch_bounds__(strip_threads, vector > 1 ?",
        "__launch_bounds__(strip_threads, vector >= 1 ?",
    ): "The emulator has no registers to divide.",
    (
        "conv_depthwise_dense.cu",
        "vector > 1 ? p.from.pixel",
        "vector >= 1 ? p.from.pixel",
    ): _ONE_APART,
    (
        "conv_depthwise_dense.cu",
        "r < (rows - 1) * stride + kernel",
        "r <= (rows - 1) * stride + kernel",
    ): "No tap of the strip meets the row too many.",
    (
        *("conv_depthwise_dense.cu", "if (tensor.data == nullptr) return;"),
        "if (false) return;",
    ): _AS_ONE,
    ("conv_depthwise_dense.cu", "numel() <= 1 << 29", "numel() < 1 << 29"): SAME,
    ("conv_depthwise_dense.cu", "stride > (turned ? 1 : 2)", "stride >= (turned ? 1 : 2)"): _AS_ONE,
    (
        "conv_depthwise_dense.cu",
        "lanes > 1 ? p.of_x.pixel",
        "lanes >= 1 ? p.of_x.pixel",
    ): _ONE_APART,
    (
        "conv_depthwise_dense.cu",
        "lanes > 1 ? p.of_grad_y.pixel",
        "lanes >= 1 ? p.of_grad_y.pixel",
    ): _ONE_APART,
    ("conv_depthwise_dense.cu", "if (o + 1 < rows) fetch", "if (true) fetch"): _NOT_USED,
    ("conv_depthwise_dense.cu", "if (o + 1 < rows) fetch", "if (o + 1 <= rows) fetch"): _NOT_USED,
    ("conv_depthwise_dense.cu", "columns = lanes > 1", "columns = lanes >= 1"): SAME,
    ("conv_depthwise_dense.cu", "window.stride[1] > 2", "window.stride[1] >= 2"): _AS_ONE,
    ("conv_depthwise_dense.cu", "grad_weight.size[2] > 1", "grad_weight.size[2] >= 1"): _AS_ONE,
}

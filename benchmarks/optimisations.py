"""Times what optimises inference beside what else one could use: INT8, convolution, sparse weights, KV cache.

    pip install -e '.[compare]' && python benchmarks/optimisations.py
    python benchmarks/optimisations.py --budget 5              longer, finer
    python benchmarks/optimisations.py int8 cache              only these tables

Every line is one comparison: both sides interleaved in one process, on one thread, with the same weights
and fresh arguments from one generator, and outputs compared. It has the other's time over ours with its
interval (above 1 ours is faster), the noise grade, and the goal. Without torch or onnxruntime their lines are
left out.
"""

from __future__ import annotations

import argparse
import logging
import math
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import tinytorch as tt
from perfclaims import Implementation, OutputsMatch, PerformanceComparator
from tinytorch.core import inference
from tinytorch.kernels import convolution, int8
from tinytorch.kernels.convolution import Window
from tinytorch.perf.compression import SparseLinear, magnitude_prune
from tinytorch.perf.memoization import enable_kv_cache
from tinytorch.perf.quantization import QuantizedConv2d, QuantizedLinear, quantize_model

# The baselines are those of the claims.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "performance"))
from convolutions import faster_im2col
from textbook import textbook

try:
    import torch
except ImportError:
    torch = None
try:
    import onnx
    import onnxruntime
except ImportError:
    onnxruntime = None

Build = Callable[[np.random.Generator], Callable[..., Any]]
Inputs = Callable[[np.random.Generator], tuple[Any, ...]]


QUANTIZED = OutputsMatch(relative_l2=0.03)


@dataclass(frozen=True)
class Row:
    """One comparison: what it is, both sides, their arguments, and the ratio that is aimed at."""

    what: str
    theirs: Build
    ours: Build
    inputs: Inputs
    goal: float | None
    outputs: OutputsMatch | None = QUANTIZED


def matrices(*shape: int) -> Inputs:
    """Arguments: one array of normal numbers."""
    return lambda rng: (rng.standard_normal(shape, dtype=np.float32),)


def linear(n: int, rng: np.random.Generator) -> tt.Linear:
    """A square layer."""
    return tt.Linear(n, n, rng=rng)


def inferring(make: Callable[[np.random.Generator], Any]) -> Build:
    """A layer as a function from array to array."""

    def build(rng: np.random.Generator) -> Callable[..., Any]:
        layer = make(rng)

        def run(x: Any) -> Any:
            with tt.no_grad():
                return layer(x).data

        return run

    return build


def blas(n: int) -> Build:
    """The product and the bias in NumPy."""

    def build(rng: np.random.Generator) -> Callable[..., Any]:
        layer = linear(n, rng)
        weight, bias = layer.weight.data, layer.bias.data
        return lambda x: x @ weight + bias

    return build


def torch_dynamic(n: int, rng: np.random.Generator) -> Callable[..., Any]:
    """The same layer, quantized dynamically by torch."""
    layer = torch.nn.Linear(n, n)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(np.ascontiguousarray(linear(n, rng).weight.data.T)))
        layer.bias.zero_()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says that this way of quantizing will move elsewhere
        small = torch.ao.quantization.quantize_dynamic(torch.nn.Sequential(layer), {torch.nn.Linear})

    def run(x: Any) -> Any:
        with torch.inference_mode():
            return small(torch.from_numpy(x)).numpy()

    return run


@contextmanager
def only_errors_logged() -> Iterator[None]:
    """Let the root logger pass errors only; then as before."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)


def onnx_dynamic(n: int, rng: np.random.Generator) -> Callable[..., Any]:
    """The same layer, quantized dynamically by ONNX Runtime."""
    from onnx import TensorProto, helper, numpy_helper
    from onnxruntime.quantization import QuantType, quantize_dynamic

    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "layer",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, n])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, n])],
        [numpy_helper.from_array(linear(n, rng).weight.data, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    # It recommends pre-processing for each node.
    with tempfile.TemporaryDirectory() as folder, only_errors_logged():
        plain, quantized = Path(folder) / "plain.onnx", Path(folder) / "small.onnx"
        onnx.save(model, plain)
        quantize_dynamic(plain, quantized, weight_type=QuantType.QInt8, per_channel=True)
        small = quantized.read_bytes()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(small, options, providers=["CPUExecutionProvider"])
    return lambda x: session.run(None, {"x": x})[0]


def int8_rows() -> Iterator[Row]:
    """INT8 linear layers: quantizing what comes in, and floats coming out, included."""
    goals = {1: 4.0, 8: 6.0, 32: 5.0, 128: 3.8}

    def ours(n: int) -> Build:
        return inferring(lambda rng: QuantizedLinear(linear(n, rng)))

    for n in (1024, 2048):
        for batch, goal in goals.items():
            yield Row(f"INT8 {n}x{n}, batch {batch}: NumPy FP32", blas(n), ours(n), matrices(batch, n), goal)
    for n in (256, 512, 1024):
        if torch is not None:
            theirs = partial(torch_dynamic, n)
            yield Row(f"INT8 {n}x{n}, batch 1: torch dynamic INT8", theirs, ours(n), matrices(1, n), 1.0)
        if onnxruntime is not None:
            theirs = partial(onnx_dynamic, n)
            yield Row(f"INT8 {n}x{n}, batch 1: ONNX dynamic INT8", theirs, ours(n), matrices(1, n), 1.0)


# Images, channels, side, and channels out; kernels of 3x3 with a border of one.
SHAPES = (
    (32, 1, 28, 8), (32, 3, 32, 16), (32, 8, 14, 16), (32, 16, 32, 32), (8, 64, 16, 64), (1, 16, 32, 32),
)  # fmt: skip


def kernels(c: int, o: int, rng: np.random.Generator) -> tt.Conv2d:
    """A convolution."""
    return tt.Conv2d(c, o, 3, padding=1, rng=rng)


def im2col(n: int, c: int, side: int, o: int) -> Build:
    """Patches and BLAS in NumPy, in the layout that is faster for these images: that of the suites."""
    way = faster_im2col(n, c, side, o)

    def build(rng: np.random.Generator) -> Callable[..., Any]:
        conv = kernels(c, o, rng)
        return way(conv.weight.data, conv.bias.data)

    return build


def two_layouts(n: int, c: int, side: int) -> Inputs:
    """Arguments: the same images as (N, C, H, W), and with the channels last, (N, H, W, C)."""

    def inputs(rng: np.random.Generator) -> tuple[Any, ...]:
        images = rng.standard_normal((n, c, side, side), dtype=np.float32)
        return images, np.ascontiguousarray(images.transpose(0, 2, 3, 1))

    return inputs


def fused(c: int, o: int, rng: np.random.Generator) -> Callable[..., Any]:
    """The convolution of the framework, of images as (N, C, H, W)."""
    conv = kernels(c, o, rng)
    weight, bias, window = conv.weight.data, conv.bias.data, Window((3, 3), (1, 1), (1, 1))
    return lambda images, channels_last: convolution.forward(images, weight, bias, window)[0]


def in_torch(c: int, o: int, rng: np.random.Generator) -> Callable[..., Any]:
    """The same in torch, of images whose channels come last, and so do those of the result."""
    conv = kernels(c, o, rng)
    weight = torch.from_numpy(conv.weight.data).contiguous(memory_format=torch.channels_last)
    bias = torch.from_numpy(conv.bias.data)

    def run(images: Any, channels_last: Any) -> Any:
        del images
        with torch.inference_mode():
            # Views both: torch counts the axes as (N, C, H, W) wherever they lie in memory.
            turned = torch.from_numpy(channels_last).permute(0, 3, 1, 2)
            return torch.nn.functional.conv2d(turned, weight, bias, padding=1).numpy()

    return run


def conv_rows() -> Iterator[Row]:
    """Convolutions: INT8 against im2col, whose images come and go as (N, C, H, W); FP32 against torch.

    In the latter each side gets and gives the layout that it is fastest with.
    """
    for n, c, side, o in SHAPES:
        if c >= 16:
            ours = inferring(lambda rng, c=c, o=o: QuantizedConv2d(kernels(c, o, rng)))
            what = f"INT8 convolution {n} x {c} x {side} x {side} to {o}: im2col, BLAS"
            yield Row(what, im2col(n, c, side, o), ours, matrices(n, c, side, side), 4.0)
    if torch is None:
        return
    same = OutputsMatch(rtol=1e-3, atol=1e-3)
    for n, c, side, o in SHAPES:
        what = f"FP32 convolution {n} x {c} x {side} x {side} to {o}: torch"
        yield Row(what, partial(in_torch, c, o), partial(fused, c, o), two_layouts(n, c, side), 1.0, same)


def pruned(sparsity: float, rng: np.random.Generator) -> tt.Linear:
    """A layer of which this share of weights is zero."""
    layer = linear(1024, rng)
    return magnitude_prune(layer, sparsity)


def sparse_rows() -> Iterator[Row]:
    """Products with pruned weights, batch 32: against dense BLAS, and against scipy.sparse."""
    from scipy import sparse

    def dense(sparsity: float, rng: np.random.Generator) -> Callable[..., Any]:
        layer = pruned(sparsity, rng)
        weight, bias = layer.weight.data, layer.bias.data
        return lambda x: x @ weight + bias

    def scipy(sparsity: float, rng: np.random.Generator) -> Callable[..., Any]:
        layer = pruned(sparsity, rng)
        weight, bias = sparse.csr_array(layer.weight.data.T), layer.bias.data
        return lambda x: (weight @ np.ascontiguousarray(x.T)).T + bias

    same = OutputsMatch(rtol=1e-3, atol=1e-3)
    for sparsity, goal in ((0.8, 2.0), (0.9, 4.0), (0.95, 6.5)):
        ours = inferring(lambda rng, s=sparsity: SparseLinear.from_linear(pruned(s, rng)))
        name, inputs = f"1024x1024, {sparsity:.0%} zeros, batch 32", matrices(32, 1024)
        yield Row(f"sparse {name}: dense BLAS", partial(dense, sparsity), ours, inputs, goal, same)
        yield Row(f"sparse {name}: scipy.sparse", partial(scipy, sparsity), ours, inputs, 2.0, same)


# Layers, width, heads, tokens there are.
MEDIUM, LARGE = (4, 256, 8, 1024), (6, 384, 6, 4096)


def gpt(sizes: tuple[int, int, int, int], rng: np.random.Generator, longest: int = 200) -> tt.GPT:
    """A language model."""
    layers, width, heads, vocabulary = sizes
    return tt.GPT(vocabulary, width, layers, heads, max_seq_len=longest, rng=rng).eval()


def reading(sizes: tuple[int, int, int, int], way: str, rng: np.random.Generator) -> Any:
    """Read 200 tokens one after the other, as generation does; the scores after the last are returned."""
    model = gpt(sizes, rng)
    cache, steps = enable_kv_cache(model) if way == "cached" else None, inference.steps_of(model)
    ways: dict[str, Callable[[Any, int], Any]] = {
        "cached": lambda ids, n: steps.logits(ids[:, n - 1 : n], n - 1, cache, last_only=True),
        "fused": lambda ids, n: steps.logits(ids[:, :n], 0, None, last_only=True),
        "layers": lambda ids, n: model(ids[:, :n]).data[:, -1],
        "textbook": lambda ids, n: textbook(model, ids[0, :n])[-1],
    }

    def run(ids: Any) -> Any:
        if cache is not None:
            cache.begin(1)
        with tt.no_grad():
            for length in range(1, 201):
                scores = ways[way](ids, length)
        return scores.reshape(1, -1)

    return run


def step_200(sizes: tuple[int, int, int, int], small: bool, rng: np.random.Generator) -> Any:
    """The 200th token of a model with a cache."""
    model = gpt(sizes, rng)
    context = rng.integers(0, sizes[3], (1, 200))
    model = quantize_model(model) if small else model
    enable_kv_cache(model)
    with tt.no_grad():
        model(context)

    def run(ids: Any) -> Any:
        with tt.no_grad():
            return model(ids, start_pos=199).data.reshape(1, -1)

    return run


def weight_products(sizes: tuple[int, int, int, int], rng: np.random.Generator) -> Any:
    """One row times every matrix of the model, and nothing else."""
    model = gpt(sizes, rng)
    weights = [layer.weight.data for _, layer in model.named_layers() if isinstance(layer, tt.Linear)]
    rows = [rng.standard_normal((1, len(weight)), dtype=np.float32) for weight in weights]
    outs = [np.empty((1, weight.shape[1]), np.float32) for weight in weights]

    def run(ids: Any) -> Any:
        del ids
        for row, weight, out in zip(rows, weights, outs, strict=True):
            np.dot(row, weight, out=out)
        return outs[-1]

    return run


def torch_step(sizes: tuple[int, int, int, int], rng: np.random.Generator) -> Any:
    """The 200th token in torch eager: scaled dot-product attention over a cache that is allocated once."""
    model = gpt(sizes, rng)
    context = rng.integers(0, sizes[3], (1, 200))
    _, width, heads, _ = sizes
    functional = torch.nn.functional

    def tensor(parameter: Any) -> Any:
        return torch.from_numpy(parameter.data.copy())

    def matrix(layer: Any) -> tuple[Any, Any]:
        return tensor(layer.weight).T.contiguous(), tensor(layer.bias)

    def norm(layer: Any) -> tuple[Any, ...]:
        return (width,), tensor(layer.gamma), tensor(layer.beta), layer.eps

    blocks = [
        (
            norm(b.ln1), *(matrix(p) for p in (b.attention.q_proj, b.attention.k_proj, b.attention.v_proj)),
            matrix(b.attention.out_proj), norm(b.ln2), matrix(b.mlp.linear1), matrix(b.mlp.linear2),
            torch.zeros(1, heads, 200, width // heads), torch.zeros(1, heads, 200, width // heads),
        )
        for b in model.blocks
    ]  # fmt: skip
    embedding, position = tensor(model.token_embedding.weight), tensor(model.position_embedding.weight)
    final, head = norm(model.ln_f), matrix(model.lm_head)

    def step(token: Any, t: int) -> Any:
        x = embedding[token] + position[t]
        for ln1, q, k, v, out, ln2, first, second, keys, values in blocks:
            h = functional.layer_norm(x, *ln1)
            asked, key, value = (
                functional.linear(h, *p).view(1, 1, heads, -1).transpose(1, 2) for p in (q, k, v)
            )
            keys[:, :, t : t + 1], values[:, :, t : t + 1] = key, value
            a = functional.scaled_dot_product_attention(asked, keys[:, :, : t + 1], values[:, :, : t + 1])
            x = x + functional.linear(a.transpose(1, 2).reshape(1, 1, width), *out)
            h = functional.linear(functional.layer_norm(x, *ln2), *first)
            x = x + functional.linear(functional.gelu(h, approximate="tanh"), *second)
        return functional.linear(functional.layer_norm(x, *final), *head)

    with torch.inference_mode():
        for t in range(200):
            step(torch.from_numpy(context[:, t : t + 1]), t)

    def run(ids: Any) -> Any:
        with torch.inference_mode():
            return step(torch.from_numpy(ids), 199).numpy().reshape(1, -1)

    return run


def cache_rows() -> Iterator[Row]:
    """Generation with a KV cache."""
    close = OutputsMatch(rtol=1e-3, atol=1e-3)

    def prompts(length: int, sizes: tuple[int, int, int, int]) -> Inputs:
        return lambda rng: (rng.integers(0, sizes[3], (1, length)),)

    whole = prompts(200, MEDIUM)
    cached = partial(reading, MEDIUM, "cached")
    for name, way, goal in (
        ("fused recompute", "fused", 15.0),
        ("layer by layer", "layers", None),
        ("textbook NumPy", "textbook", 40.0),
    ):
        theirs = partial(reading, MEDIUM, way)
        yield Row(f"200 tokens, 4 layers of 256: {name}", theirs, cached, whole, goal, close)
    one = prompts(1, LARGE)
    # The goal is a step of at most 1.35 times its products: at least 1 / 1.35 of their speed.
    ours = partial(step_200, LARGE, False)
    yield Row(
        "step 200, 6 layers of 384: its products", partial(weight_products, LARGE), ours, one, 1 / 1.35, None
    )
    if torch is not None:
        for sizes, what in ((MEDIUM, "4 layers of 256"), (LARGE, "6 layers of 384")):
            theirs, one = partial(torch_step, sizes), prompts(1, sizes)
            yield Row(f"step 200, {what}: torch", theirs, partial(step_200, sizes, False), one, 1.05, close)
            yield Row(
                f"INT8 step 200, {what}: torch FP32", theirs, partial(step_200, sizes, True), one, 2.0,
                OutputsMatch(relative_l2=0.1),
            )  # fmt: skip


def print_sizes(_: float) -> None:
    """Bytes of pruned layers as they are stored: no clock is needed."""
    for sparsity in (0.8, 0.9, 0.95):
        dense = tt.Linear(1024, 1024, rng=np.random.default_rng(0))
        n_bytes = sum(parameter.data.nbytes for parameter in dense.parameters())
        layer = magnitude_prune(dense, sparsity)
        for values, goal in (("float32", None), ("int8", 22.0 if sparsity == 0.95 else None)):
            ratio = n_bytes / SparseLinear.from_linear(layer, values=values).stored_bytes
            met = "" if goal is None else f"  goal {goal:g}x: {'met' if ratio >= goal else 'missed'}"
            print(f"{f'1024x1024, {sparsity:.0%} zeros, {values}: dense bytes':60} {ratio:6.2f}x{met}")


# Of each kernel: its module in `tinytorch.kernels`, and what compiles it, or loads it, and tests it.
_FIRST_USE = {
    "INT8 linear": "int8: integer_kernel()",
    "INT8 weights alone": "int8: _weight_only_kernel()",
    "INT8 convolution": "int8_images: image_kernel(chosen_way()) if isinstance(chosen_way(), int) else None",
    "cached step, block": "decoding: _block_kernel()",
    "cached step, attention": "decoding: _attend_kernel('float32')",
    "cached step, INT8 attention": "decoding: _attend_kernel('int8')",
    "cached step, LayerNorm": "decoding: _normalize_kernel()",
    "cached step, GELU": "decoding: _gelu_kernel()",
    "sparse product, batch": "sparse_compiled: _batch_kernel()",
    "sparse product, a few rows": "sparse_compiled: _rows_kernel()",
    "sparse product, places of a mask": "sparse_compiled: _positions_kernel()",
    "convolution": "implicit: _correlate_kernel()",
    "convolution, gradient of weights": "implicit: _of_weight_kernel()",
    "convolution, columns": "convolution: _columns_kernel()",
    "convolution, columns added up": "convolution: _folded_kernel()",
    "pooling": "pooling: _largest_kernel()",
    "pooling, gradient": "pooling: _backward_kernel()",
    "softmax": "softmax: _masked_kernel()",
    "cross-entropy": "cross_entropy: _forward_kernel()",
    "LayerNorm": "layernorm: _forward_kernel()",
    "LayerNorm, gradient": "layernorm: _backward_kernel()",
    "GELU": "gelu: _forward_kernel()",
    "GELU, gradient": "gelu: _backward_kernel()",
    "SGD": "optimizers: _sgd_kernel()",
    "Adam": "optimizers: _adam_kernel()",
    "loops of matrix products": "loops: compile_all()",
}


def first_use_s(kernel: str) -> float:
    """Seconds from NumPy's import in a fresh interpreter to a kernel that is tested."""
    module, call = kernel.split(": ")
    script = (
        "import time, numpy; t = time.perf_counter(); "
        f"import tinytorch.kernels.{module} as m; "
        f"eval({call!r}, vars(m)); print(time.perf_counter() - t)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)  # noqa: S603
    return float(done.stdout)


def print_first_use(_: float) -> None:
    """First use of every kernel with a warm cache: the median and the ends of five, after one that warms."""
    for name, kernel in _FIRST_USE.items():
        first_use_s(kernel)
        warm = sorted(first_use_s(kernel) for _ in range(5))
        met = "met" if warm[-1] <= 0.4 else "missed"
        what = f"first use of {name}, seconds"
        print(f"{what:60} {warm[2]:6.2f} [{warm[0]:.2f}, {warm[-1]:.2f}]  goal 0.4: {met}", flush=True)


def reached(goal: float | None, result: Any) -> str:
    """Say whether the whole interval is beyond the goal, short of it, or neither."""
    if goal is None:
        return ""
    met = "met" if result.speedup_low >= goal else "missed" if result.speedup_high < goal else "open"
    return f"  goal {goal:.3g}x: {met}"


def print_rows(rows: Callable[[], Iterator[Row]], budget_s: float) -> None:
    """Measure, and print a line for each row."""
    for row in rows():
        result = PerformanceComparator(budget_s=budget_s).compare_implementations(
            Implementation("theirs", row.theirs),
            Implementation("ours", row.ours),
            inputs=row.inputs,
            outputs=row.outputs,
        )
        ratio = f"{result.speedup:6.2f}x [{result.speedup_low:.2f}, {result.speedup_high:.2f}]"
        differs = "" if row.outputs is None or result.outputs.matched else "  OUTPUTS DIFFER"
        print(
            f"{row.what:60} {ratio:24} {result.noise_grade:2}{reached(row.goal, result)}{differs}",
            flush=True,
        )


TABLES: dict[str, Callable[[float], None]] = {
    "int8": partial(print_rows, int8_rows),
    "conv": partial(print_rows, conv_rows),
    "sparse": partial(print_rows, sparse_rows),
    "sizes": print_sizes,
    "cache": partial(print_rows, cache_rows),
    "first-use": print_first_use,
}


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "tables", nargs="*", metavar="TABLE", help=f"any of {', '.join(TABLES)} (default: all)"
    )
    parser.add_argument("--budget", type=float, default=1.0, help="seconds for each comparison (default: 1)")
    options = parser.parse_args()
    unknown = [name for name in options.tables if name not in TABLES]
    if unknown:
        parser.error(f"unknown table {', '.join(unknown)}; there are {', '.join(TABLES)}")
    if not 0 < options.budget < math.inf:
        parser.error(f"--budget must be a positive number of seconds, got {options.budget:g}")
    if torch is not None:
        torch.set_num_threads(1)
    for name, library in (("torch", torch), ("onnxruntime", onnxruntime)):
        if library is None:
            print(f"{name} is not installed: its lines are left out")
    print(f"INT8 kernel: {int8.describe()}")
    print(f"{'':60} {'their time / ours':24}")
    for name in options.tables or TABLES:
        TABLES[name](options.budget)


if __name__ == "__main__":
    main()

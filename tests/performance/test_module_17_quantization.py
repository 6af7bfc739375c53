"""Module 17, INT8 post-training quantization: bytes, speed, exactness and accuracy."""

from __future__ import annotations

import tempfile
from itertools import pairwise
from pathlib import Path

import numpy as np
from performance_test_framework import (
    AccuracyDrop,
    Implementation,
    OutputsMatch,
    PerformanceTestSuite,
    SizeRatio,
    Speedup,
    Value,
)

import tinytorch as tt
from perfclaims import Experiment
from perfclaims.environment import cpu_flags
from tinytorch.datasets.digits import load_digits
from tinytorch.datasets.reference import out_of_fold
from tinytorch.kernels import int8, numba_problem
from tinytorch.kernels.convolution import Window, columns_reference
from tinytorch.perf.quantization import (
    INT8Quantizer,
    MinMaxObserver,
    PercentileObserver,
    QuantizationConfig,
    QuantizedConv2d,
    QuantizedLinear,
    quantize_model,
)

suite = PerformanceTestSuite("module_17_quantization", title="INT8 quantization")

README = "TinyTorch performance tests README, module 17"
QUANTIZED = OutputsMatch(relative_l2=0.03)
# A single row of ten outputs can be close to zero, and its error is large beside it: above 3 % for one input
# in a thousand, above 5.5 % for none of 18 thousand.
SMALL = OutputsMatch(relative_l2=0.08, label="MLP, batch 1")
MLP = (784, 512, 256, 10)
BLOCK = (1024, 4096, 1024)


def needs_int8_kernel():
    """The reason why integer products are not fast here, or None."""
    problem = numba_problem()
    if problem is not None:
        return f"needs numba, which cannot be imported ({problem})"
    flags = cpu_flags() or frozenset()
    if not flags & {"avx512_vnni", "avx_vnni", "avx2"}:
        return "needs a CPU with AVX2, AVX-VNNI or AVX-512 VNNI for its thresholds"
    return None


def by_cpu(vnni512: float, vnni256: float, avx2: float) -> float:
    """The threshold that this CPU's instructions allow."""
    flags = cpu_flags() or frozenset()
    return vnni512 if "avx512_vnni" in flags else vnni256 if "avx_vnni" in flags else avx2


def model(widths, rng):
    """Linear layers with ReLU between them."""
    layers = []
    for i, o in pairwise(widths):
        layers += [tt.Linear(i, o, rng=rng), tt.ReLU()]
    return tt.Sequential(*layers[:-1]).eval()


def forward(name, widths, convert):
    """An implementation: the model of these widths, converted, from array to array."""

    def build(rng):
        converted = convert(model(widths, rng))

        def run(x):
            with tt.no_grad():
                return converted(x).data

        return run

    return Implementation(name, build)


def file_bytes(saved) -> int:
    """Size of the file of a model."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model"
        tt.save_model(saved, path)
        return path.stat().st_size


@suite.claim(
    "quantization.weights-4x",
    "Everything that quantized layers keep is 3.8 times smaller than FP32, in memory and in the file",
    source=f"{README}: 3-4x, elsewhere 8x",
    criteria=[SizeRatio(at_least=3.8)],
    expected_s=2,
)
def weights_4x(experiment: Experiment) -> None:
    """Weights, scales, sums and bias are counted: as layers report them, as they are held, and as saved."""
    for name, widths in (("784-512-256-10", MLP), ("1024-4096-1024", BLOCK)):
        dense = model(widths, np.random.default_rng(0))
        quantized = quantize_model(dense)
        parts = [layer.memory_usage() for layer in quantized if isinstance(layer, QuantizedLinear)]
        kept = sum(part["bytes"] for part in parts)
        # The layers' own arithmetic is not taken at its word: what they hold is counted too.
        held = sum(array.nbytes for layer in quantized for array in arrays_of(layer))
        original = sum(parameter.data.nbytes for parameter in dense.parameters())
        experiment.sizes(baseline=original, optimized=max(kept, held), label=f"{name}, in memory")
        experiment.sizes(baseline=file_bytes(dense), optimized=file_bytes(quantized), label=f"{name}, saved")


def arrays_of(thing, seen=None):
    """Every array that an object holds, also inside other objects, lists and dictionaries."""
    seen = set() if seen is None else seen
    if id(thing) in seen:
        return
    seen.add(id(thing))
    if isinstance(thing, np.ndarray):
        yield thing if thing.base is None else np.asarray(thing)
    elif isinstance(thing, tt.Tensor):
        yield thing.data
    elif isinstance(thing, dict):
        for value in thing.values():
            yield from arrays_of(value, seen)
    elif isinstance(thing, list | tuple):
        for value in thing:
            yield from arrays_of(value, seen)
    elif isinstance(thing, tt.Layer):
        yield from arrays_of(vars(thing), seen)


SHAPES = [
    (f"{name}, batch {batch}", widths, batch)
    for name, widths, batches in (("MLP", MLP, (1, 32, 128)), ("block", BLOCK, (1, 8, 32, 128)))
    for batch in batches
]


@suite.claim(
    "quantization.inference-speedup",
    "INT8 inference is at least 2.2 times faster than FP32 BLAS for a 784-512-256-10 MLP and a "
    "1024-4096-1024 block, and 3.5 times for the block at batch 8 and 32",
    source=f"{README}: 2.2x, elsewhere 4x",
    criteria=[
        SMALL,
        *(OutputsMatch(relative_l2=0.03, label=label) for label, *_ in SHAPES[1:]),
        *(Speedup(at_least=by_cpu(2.2, 1.2, 1.0), label=f"MLP, batch {batch}") for batch in (1, 32, 128)),
        *(Speedup(at_least=by_cpu(2.2, 2.2, 1.2), label=f"block, batch {batch}") for batch in (1, 128)),
        *(Speedup(at_least=by_cpu(3.5, 2.2, 1.2), label=f"block, batch {batch}") for batch in (8, 32)),
    ],
    requires=[needs_int8_kernel],
    expected_s=20,
)
def inference_speedup(experiment: Experiment) -> None:
    """Float in, float out: quantising activations and de-quantising results is inside the timed call."""
    for label, widths, batch in SHAPES:
        experiment.time(
            baseline=forward("FP32", widths, lambda dense: dense),
            optimized=forward("INT8", widths, quantize_model),
            inputs=lambda rng, w=widths, b=batch: (rng.standard_normal((b, w[0]), dtype=np.float32),),
            label=label,
        )


CHANNELS = (16, 32, 64)


@suite.claim(
    "quantization.conv-speedup",
    "INT8 convolution is at least 3 times faster than im2col and BLAS from 16 channels on; with 1 and 3 "
    "channels a layer stays FP32",
    source="this project",
    criteria=[
        QUANTIZED,
        Speedup(at_least=by_cpu(3.0, 1.5, 1.0)),
        Value("layers of 1 and 3 channels that were quantized", equals=0),
    ],
    requires=[needs_int8_kernel],
    expected_s=10,
)
def conv_speedup(experiment: Experiment) -> None:
    """3x3 kernels on 28x28 images, batch 8, as many channels out as in."""
    for channels in CHANNELS:
        experiment.time(
            baseline=Implementation("im2col and BLAS", lambda rng, c=channels: im2col(convolution(c, rng))),
            optimized=Implementation(
                "INT8", lambda rng, c=channels: inference(QuantizedConv2d(convolution(c, rng)))
            ),
            inputs=lambda rng, c=channels: (rng.standard_normal((8, c, 28, 28), dtype=np.float32),),
            label=f"{channels} channels",
        )
    few = tt.Sequential(tt.Conv2d(1, 8, 3), tt.Conv2d(3, 8, 3), tt.Conv2d(16, 16, 3))
    quantized = quantize_model(few)
    experiment.value(
        "layers of 1 and 3 channels that were quantized",
        sum(isinstance(layer, QuantizedConv2d) for layer in list(quantized)[:2]),
    )


def convolution(channels, rng):
    """A convolution of seeded weights."""
    return tt.Conv2d(channels, channels, 3, padding=1, rng=rng)


def inference(layer):
    """A layer as a function from array to array."""

    def run(x):
        with tt.no_grad():
            return layer(x).data

    return run


def im2col(conv):
    """The same convolution as one product of BLAS for each image."""
    window = Window((3, 3), (1, 1), (1, 1))
    weight, bias = conv.weight.data, conv.bias.data
    matrix = weight.reshape(len(weight), -1)

    def run(x):
        patches = columns_reference(x, window).reshape(len(x), matrix.shape[1], -1)
        out = np.matmul(matrix, patches)
        out += bias[:, None]
        return out.reshape(len(x), len(weight), *x.shape[2:])

    return run


@suite.claim(
    "quantization.integer-arithmetic",
    "Integer products equal an int64 reference exactly, for random and extreme inputs",
    source=f"{README}: simulated",
    criteria=[Value("products that differ from int64", equals=0)],
    expected_s=2,
)
def integer_arithmetic(experiment: Experiment) -> None:
    """The compiled loops that layers run, and what goes into them from a layer's own weights and inputs."""
    rng = experiment.rng
    wrong = 0
    for rows, inputs, outputs in (
        (1, 1, 1),
        (3, 7, 5),
        (8, 64, 16),
        (13, 130, 83),
        (33, 1024, 96),
        (5, 4096, 40),
    ):
        weights = rng.integers(-127, 128, (inputs, outputs)).astype(np.int8)
        x = rng.integers(0, 256, (rows, inputs)).astype(np.uint8)
        x[0], weights[:, 0], weights[:, -1] = 255, 127, -127
        packed = int8.pack(weights, np.ones(outputs, np.float32), None)
        exact = x.astype(np.int64) @ weights.astype(np.int64)
        wrong += int((int8.products(x, packed, outputs) != exact).sum())
    experiment.value("products that differ from int64", wrong)


def correct(model, digits):
    """Which digits a model gets right."""
    with tt.no_grad():
        return model(digits.images).data.argmax(axis=1) == digits.labels


@suite.claim(
    "quantization.accuracy",
    "INT8 loses at most 0.5 points of accuracy for the digits MLP, and 1 point for the CNN",
    source=f"{README}: below 5 %, elsewhere below 1 %",
    criteria=[
        AccuracyDrop(at_most=0.005, label="MLP"),
        AccuracyDrop(at_most=0.01, label="CNN"),
        Value("layers that stayed FP32 beside the first convolutions", equals=0),
    ],
    expected_s=3,
)
def accuracy(experiment: Experiment) -> None:
    """All 1797 digits, each judged by a model that has not seen it, before and after, with the same weights.

    Ranges are calibrated with 256 of the digits that a model was trained on.
    """
    kept = 0
    for label, name in (("MLP", "digits-mlp"), ("CNN", "digits-cnn")):
        before, after = [], []
        for fold, (trained, held_out) in enumerate(out_of_fold(name, announce=experiment.announce)):
            flat = trained.recipe.kind == "mlp"
            seen = load_digits(fold=(fold, 5), flat=flat, side=trained.recipe.side).train.images[:256]
            config = QuantizationConfig(min_weights=0)
            small = quantize_model(trained.model, config, calibration_data=seen)
            kept += sum(not row.quantized for row in small.quantization_report) - (not flat)
            before.append(correct(trained.model, held_out))
            after.append(correct(small, held_out))
        experiment.outcomes(baseline=np.concatenate(before), optimized=np.concatenate(after), label=label)
    experiment.value("layers that stayed FP32 beside the first convolutions", kept)


@suite.claim(
    "quantization.roundtrip",
    "Quantizing and de-quantizing moves no element by more than half a step, also for constants, tiny "
    "ranges and ranges without zero",
    source=f"{README}: error below 2 % of the range, elsewhere below 0.0002",
    criteria=[Value("largest error in steps", at_most=0.5001)],
    expected_s=1,
)
def roundtrip(experiment: Experiment) -> None:
    """Symmetric and affine, one scale and one per channel; the steps are the quantizer's own."""
    rng = experiment.rng
    cases = {
        "normal": rng.standard_normal((64, 32)),
        "constant": np.full((8, 4), 0.1),
        "zeros": np.zeros((8, 4)),
        "tiny": 1e-30 * rng.standard_normal((64, 32)),
        "far from zero": 100 + rng.random((64, 32)),
        "negative": -5 - rng.random((64, 32)),
        "skewed": rng.standard_normal((64, 32)) * np.logspace(-3, 3, 32),
    }
    worst = 0.0
    for values in cases.values():
        for symmetric in (True, False):
            for per_channel in (True, False):
                quantizer = INT8Quantizer(symmetric=symmetric, per_channel=per_channel)
                x = values.astype(np.float32)
                q, scale, zero_point = quantizer.quantize_tensor(x)
                restored = quantizer.dequantize_tensor(q, scale, zero_point).data
                steps = np.abs(restored.astype(float) - x) / np.maximum(np.asarray(scale, float), 1e-300)
                # Beside the rounding to a step there is that of float32, which ranges far from zero show.
                steps -= np.abs(x) * 2.0**-23 / np.maximum(np.asarray(scale, float), 1e-300)
                worst = max(worst, float(steps.max()))
    experiment.value("largest error in steps", worst)


@suite.claim(
    "quantization.calibration",
    "With 0.01 % outliers of 30 standard deviations, percentile calibration keeps at least 3 dB more "
    "signal of the inliers than min-max",
    source=f"{README}: proper calibration",
    criteria=[Value("gain", at_least=3)],
    expected_s=2,
)
def calibration(experiment: Experiment) -> None:
    """One layer of 256 to 128; the range is that of the observers, from data that holds the outliers too."""
    rng = experiment.rng
    x = rng.standard_normal((4000, 256)).astype(np.float32)
    outliers = rng.random(x.shape) < 1e-4
    x[outliers] = 30 * np.sign(x[outliers])
    weight = rng.standard_normal((256, 128)) / 16
    inliers = ~outliers.any(axis=1)
    exact = x[inliers].astype(float) @ weight
    quality = []
    for observer in (MinMaxObserver(), PercentileObserver()):
        observer.observe(x)
        scale, zero_point = (np.asarray(part, float) for part in observer.qparams())
        q = np.clip(np.round(x[inliers] / scale) + zero_point, -128, 127)
        found = ((q - zero_point) * scale) @ weight
        quality.append(10 * np.log10(np.sum(exact**2) / np.sum((found - exact) ** 2)))
    experiment.value("gain", quality[1] - quality[0], unit="dB")


@suite.claim(
    "audit.memory-8x",
    "INT8 quantization reduces memory 8 times",
    source=f"{README}: 8x memory reduction",
    criteria=[SizeRatio(at_least=8, label="over float64"), SizeRatio(at_least=8, label="over float32")],
    status="audited",
    expected_s=1,
)
def memory_8x(experiment: Experiment) -> None:
    """True of float64, which no framework keeps weights in; scales and biases are left out."""
    layer = QuantizedLinear(tt.Linear(1024, 1024))
    n_bytes = layer.q_weight.nbytes
    experiment.sizes(baseline=8 * layer.q_weight.size, optimized=n_bytes, label="over float64")
    experiment.sizes(baseline=4 * layer.q_weight.size, optimized=n_bytes, label="over float32")


def int8_in_numpy(rng):
    """Quantized weights multiplied by NumPy in integers, as the public project did."""
    weight = rng.standard_normal((256, 256)).astype(np.float32)
    scale = np.abs(weight).max() / 127
    q_weight = np.round(weight / scale).astype(np.int8)

    def run(x):
        x_scale = np.abs(x).max() / 127
        q_x = np.round(x / x_scale).astype(np.int8)
        return (q_x.astype(np.int32) @ q_weight.astype(np.int32)) * np.float32(scale * x_scale)

    return run


def fp32_in_numpy(rng):
    """The same weights in float32."""
    weight = rng.standard_normal((256, 256)).astype(np.float32)
    return lambda x: x @ weight


@suite.claim(
    "audit.int8-numpy",
    "Quantized products in plain NumPy are faster than FP32",
    source=f"{README}: 2.2x INT8 speedup",
    criteria=[OutputsMatch(relative_l2=0.05), Speedup(at_least=1.0)],
    status="audited",
    expected_s=2,
)
def int8_numpy(experiment: Experiment) -> None:
    """NumPy multiplies integers without BLAS; in int8 itself the sums would overflow."""
    experiment.time(
        baseline=Implementation("FP32 in NumPy", fp32_in_numpy),
        optimized=Implementation("INT8 in NumPy", int8_in_numpy),
        inputs=lambda rng: (rng.standard_normal((32, 256)).astype(np.float32),),
        label="256x256, batch 32",
    )


if __name__ == "__main__":
    suite.main()

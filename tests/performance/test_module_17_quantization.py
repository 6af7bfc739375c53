"""Module 17, INT8 post-training quantization: bytes, speed, exactness and accuracy."""

from __future__ import annotations

import functools
from itertools import pairwise

import numpy as np
from convolutions import faster_im2col
from held import OBJECTS_BYTES, held_bytes, made_and_held, saved_and_loaded
from int64_reference import convolution_differences, linear_differences, outputs_of
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
MODELS = {"784-512-256-10": MLP, "1024-4096-1024": BLOCK}


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


@functools.lru_cache(maxsize=1)
def model_of(widths, seed):
    """The same, drawn once for the two sides of an instance: the INT8 side packs copies of the weights."""
    return model(widths, np.random.default_rng(seed))


def drawn(widths, rng):
    """The model that both sides of an instance get: they draw the same seed."""
    return model_of(widths, int(rng.integers(2**31)))


def perceptron_in_numpy(widths, rng):
    """The same model as one writes it in NumPy, in place where that is possible."""
    linears = [layer for layer in drawn(widths, rng) if isinstance(layer, tt.Linear)]
    weights = [(layer.weight.data, layer.bias.data) for layer in linears]

    def run(x):
        for weight, bias in weights[:-1]:
            x = x @ weight
            x += bias
            np.maximum(x, 0, out=x)
        weight, bias = weights[-1]
        x = x @ weight
        x += bias
        return x

    return run


def in_int8(dense):
    """The layers that `quantize_model` makes, without its report, which takes twice as long as they do."""
    quantized = [QuantizedLinear(layer) if isinstance(layer, tt.Linear) else layer for layer in dense]
    return tt.Sequential(*quantized).eval()


def inference(layer):
    """A layer as a function from array to array."""
    return lambda x: outputs_of(layer, x)


KEPT_BESIDE = "bytes kept beside the arrays of a model"


@suite.claim(
    "quantization.weights-4x",
    "Everything that quantized layers keep is 3.8 times smaller than FP32, in memory and in the file",
    source=f"{README}: 3-4x, elsewhere 8x",
    criteria=[QUANTIZED, SizeRatio(at_least=3.8), Value(KEPT_BESIDE, at_most=OBJECTS_BYTES, gate=True)],
    expected_s=2,
)
def weights_4x(experiment: Experiment) -> None:
    """Every array that can be reached from the model counts, wherever it is, and the whole file.

    The outputs are those of the very model that was counted, and of the one that its file gives back.
    """
    beside = 0
    for name, widths in MODELS.items():
        dense = model(widths, np.random.default_rng(0))
        quantized, held, unseen = made_and_held(lambda dense=dense: quantize_model(dense))
        beside = max(beside, unseen)
        parts = [layer.memory_usage() for layer in quantized if isinstance(layer, QuantizedLinear)]
        reported = sum(part["bytes"] for part in parts)
        original = sum(parameter.data.nbytes for parameter in dense.parameters())
        (dense_file, _), (small_file, loaded) = map(saved_and_loaded, (dense, quantized))
        x = experiment.rng.standard_normal((64, widths[0]), dtype=np.float32)
        for place, sizes, small in (
            ("in memory", (original, max(held, reported)), quantized),
            ("saved", (dense_file, small_file), loaded),
        ):
            experiment.sizes(*sizes, label=f"{name}, {place}")
            experiment.outputs(outputs_of(dense, x), outputs_of(small, x), label=f"{name}, {place}")
    experiment.value(KEPT_BESIDE, beside)


SHAPES = [
    (f"{name}, batch {batch}", widths, batch)
    for name, widths, batches in (("MLP", MLP, (1, 32, 128)), ("block", BLOCK, (1, 8, 32, 128)))
    for batch in batches
]


# How many times faster: the MLP; the block at batch 1 and 128; and at batch 8 and 32.
FASTER = by_cpu(2.2, 1.2, 1.2), by_cpu(2.2, 2.2, 1.2), by_cpu(3.5, 2.2, 1.2)


@suite.claim(
    "quantization.inference-speedup",
    "INT8 inference is at least {} times faster than FP32 BLAS for a 784-512-256-10 MLP, {} times for a "
    "1024-4096-1024 block, and {} times for the block at batch 8 and 32".format(*FASTER),
    source=f"{README}: 2.2x, elsewhere 4x",
    criteria=[
        SMALL,
        *(OutputsMatch(relative_l2=0.03, label=label) for label, *_ in SHAPES[1:]),
        *(Speedup(at_least=FASTER[0], label=f"MLP, batch {batch}") for batch in (1, 32, 128)),
        *(Speedup(at_least=FASTER[1], label=f"block, batch {batch}") for batch in (1, 128)),
        *(Speedup(at_least=FASTER[2], label=f"block, batch {batch}") for batch in (8, 32)),
    ],
    requires=[needs_int8_kernel],
    expected_s=20,
)
def inference_speedup(experiment: Experiment) -> None:
    """Float in, float out: quantising activations and de-quantising results is inside the timed call.

    The baseline is NumPy alone, with nothing of a framework around its products.
    """
    for label, widths, batch in SHAPES:
        experiment.time(
            baseline=Implementation("NumPy FP32 (BLAS)", lambda rng, w=widths: perceptron_in_numpy(w, rng)),
            optimized=Implementation("INT8", lambda rng, w=widths: inference(in_int8(drawn(w, rng)))),
            inputs=lambda rng, w=widths, b=batch: (rng.standard_normal((b, w[0]), dtype=np.float32),),
            label=label,
        )


CHANNELS = (16, 32, 64)
CONVOLVED = by_cpu(3.0, 1.5, 1.0)


@suite.claim(
    "quantization.conv-speedup",
    f"INT8 convolution is at least {CONVOLVED} times faster than im2col and BLAS, in the better of two "
    "layouts, from 16 channels on; with 1 and 3 channels a layer stays FP32",
    source="this project",
    criteria=[
        QUANTIZED,
        Speedup(at_least=CONVOLVED),
        Value("layers of 1 and 3 channels that were quantized", equals=0),
    ],
    requires=[needs_int8_kernel],
    expected_s=10,
)
def conv_speedup(experiment: Experiment) -> None:
    """3x3 kernels on 28x28 images, batch 8, as many channels out as in."""
    for channels in CHANNELS:
        fastest = faster_im2col(8, channels, 28, channels)
        experiment.time(
            baseline=Implementation(
                fastest.__name__, lambda rng, way=fastest, c=channels: in_numpy(way, convolution(c, rng))
            ),
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


def in_numpy(way, layer):
    """The same convolution, of copies of its weights."""
    return way(layer.weight.data.copy(), layer.bias.data.copy())


@suite.claim(
    "quantization.integer-arithmetic",
    "Integer products, and the layers that are made of them, equal an int64 reference exactly, for random "
    "and extreme inputs",
    source=f"{README}: simulated",
    criteria=[Value("products that differ from int64", equals=0), Value("outputs that differ", equals=0)],
    expected_s=2,
)
def integer_arithmetic(experiment: Experiment) -> None:
    """The compiled loops that layers run, and whole layers, whose weights and inputs are whole numbers."""
    rng = experiment.rng
    wrong = layers = 0
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
        layers += linear_differences(rng, rows, max(inputs, 2), outputs)
    for images, channels, side, outputs in ((1, 1, 4, 1), (3, 5, 6, 11), (2, 16, 9, 8), (2, 64, 8, 16)):
        layers += convolution_differences(rng, images, channels, side, outputs)
    experiment.value("products that differ from int64", wrong)
    experiment.value("outputs that differ", layers)


STAYED = "layers that stayed FP32 beside the first convolutions"


def layers_of(model, *kinds):
    """How many layers of these kinds a model has."""
    return sum(isinstance(layer, kinds) for _, layer in model.named_layers())


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
        Value(STAYED, equals=0),
        # Scales, biases, padding and the CNN's first convolution take the rest: 3.46 for both.
        SizeRatio(at_least=3, gate=True),
    ],
    expected_s=3,
)
def accuracy(experiment: Experiment) -> None:
    """All 1797 digits, each judged by a model that has not seen it, before and after, with the same weights.

    Ranges are calibrated with 256 of the digits that a model was trained on. Layers and bytes are counted in
    the very models that are judged, whatever these report of themselves.
    """
    kept, sizes = 0, {}
    for label, name in (("MLP", "digits-mlp"), ("CNN", "digits-cnn")):
        before, after = [], []
        for fold, (trained, held_out) in enumerate(out_of_fold(name, announce=experiment.announce)):
            flat = trained.recipe.kind == "mlp"
            seen = load_digits(fold=(fold, 5), flat=flat, side=trained.recipe.side).train.images[:256]
            config = QuantizationConfig(min_weights=0)
            small = quantize_model(trained.model, config, calibration_data=seen)
            kept += layers_of(trained.model, tt.Linear, tt.Conv2d) - (not flat)
            kept -= layers_of(small, QuantizedLinear, QuantizedConv2d)
            sizes[label, fold] = held_bytes(trained.model), held_bytes(small)
            before.append(correct(trained.model, held_out))
            after.append(correct(small, held_out))
        experiment.outcomes(baseline=np.concatenate(before), optimized=np.concatenate(after), label=label)
    experiment.value(STAYED, kept)
    for (label, fold), (before, after) in sizes.items():
        experiment.sizes(before, after, label=f"{label}, fold {fold + 1}")


@suite.claim(
    "quantization.roundtrip",
    "Quantizing and de-quantizing moves no element by more than half a step, a step is the range over 255 or "
    "max|w| over 127, also for constants, tiny ranges and ranges without zero",
    source=f"{README}: error below 2 % of the range, elsewhere below 0.0002",
    criteria=[
        Value("largest error in steps", at_most=0.5001),
        Value("largest scale in steps", at_most=1.0001),
    ],
    expected_s=1,
)
def roundtrip(experiment: Experiment) -> None:
    """Symmetric and affine, one scale and one per channel, by quantizer and in layers.

    The steps are those that the range allows, whatever the quantizer says: coarser ones would be found out.
    """
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
    found = []
    for values in cases.values():
        x = values.astype(np.float32)
        for per_channel in (True, False):
            for symmetric in (True, False):
                quantizer = INT8Quantizer(symmetric=symmetric, per_channel=per_channel)
                q, scale, zero_point = quantizer.quantize_tensor(x)
                restored = quantizer.dequantize_tensor(q, scale, zero_point).data
                found.append(error_and_scale(x, restored, scale, steps_of(x, symmetric, per_channel)))
            step = steps_of(x, True, per_channel)
            for q, scale in quantized_weights(x, QuantizationConfig(per_channel=per_channel)):
                found.append(error_and_scale(x, q * np.asarray(scale, float), scale, step))
    experiment.value("largest error in steps", max(error for error, _ in found))
    experiment.value("largest scale in steps", max(scale for _, scale in found))


def quantized_weights(x, config):
    """Bytes, laid out as `x` is, and scale of both layers with the weights `x`; each column is an output."""
    inputs, outputs = x.shape
    linear, kernels = tt.Linear(inputs, outputs), tt.Conv2d(inputs // 4, outputs, 2)
    linear.weight.data[...] = x
    kernels.weight.data[...] = x.T.reshape(kernels.weight.shape)
    columns, images = QuantizedLinear(linear, config), QuantizedConv2d(kernels, config)
    yield columns.q_weight, columns.scale
    yield images.q_weight.reshape(outputs, inputs).T, images.scale


def steps_of(x, symmetric, per_channel):
    """The step that ranges allow: of each column or of all, symmetric or of the elements and zero."""
    axis = 0 if per_channel else None
    high, low = np.maximum(x.max(axis=axis), 0).astype(float), np.minimum(x.min(axis=axis), 0).astype(float)
    return np.maximum(high, -low) / 127 if symmetric else (high - low) / 255


def error_and_scale(x, restored, scale, step):
    """The largest error and the largest scale, in steps; where all is zero any scale will do."""
    steps = np.maximum(np.broadcast_to(step, x.shape[1]), 1e-300)
    # Beside the rounding to a step there is that of float32, which ranges far from zero show.
    error = np.abs(restored.astype(float) - x) - np.abs(x) * 2.0**-23
    scales = np.where(steps > 1e-300, np.asarray(scale, float).reshape(-1), 0)
    return float((error / steps).max()), float((scales / steps).max())


@suite.claim(
    "quantization.calibration",
    "With 0.01 % outliers of 30 standard deviations, percentile calibration of a layer keeps at least 3 dB "
    "more signal of the inliers than min-max",
    source=f"{README}: proper calibration",
    criteria=[Value("gain", at_least=3)],
    expected_s=2,
)
def calibration(experiment: Experiment) -> None:
    """A linear layer and a convolution, quantized whole; what they are calibrated with holds the outliers."""
    rng = experiment.rng
    linear = tt.Linear(256, 128, rng=rng)
    linear.weight.data[...] = rng.standard_normal((256, 128)) / 16
    experiment.value("gain", gain_db(rng, QuantizedLinear, linear, (4000, 256)), unit="dB", label="linear")
    kernels = tt.Conv2d(16, 32, 3, padding=1, rng=rng)
    gained = gain_db(rng, QuantizedConv2d, kernels, (1000, 16, 8, 8))
    experiment.value("gain", gained, unit="dB", label="convolution")


def gain_db(rng, quantize, layer, shape):
    """How much more signal of rows or images without outliers percentile calibration keeps than min-max."""
    x = rng.standard_normal(shape, dtype=np.float32)
    outliers = rng.random(shape) < 1e-4
    x[outliers] = 30 * np.sign(x[outliers])
    inliers = x[~outliers.reshape(len(x), -1).any(axis=1)]
    exact = outputs_of(layer, inliers).astype(float)
    quality = []
    for observer in (MinMaxObserver(), PercentileObserver()):
        quantized = quantize(layer)
        quantized.calibrate(x, observer)
        error = outputs_of(quantized, inliers) - exact
        quality.append(10 * np.log10(np.sum(exact**2) / np.sum(error**2)))
    return quality[1] - quality[0]


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

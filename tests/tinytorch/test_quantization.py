"""INT8 quantization: ranges by hand, layers against their FP32 originals, models, files and refusals."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import tinytorch as tt
from tinytorch.kernels import int8, int8_images
from tinytorch.kernels.int8_images import PackedKernels
from tinytorch.perf.quantization import (
    INT8Quantizer,
    MinMaxObserver,
    MovingAverageObserver,
    MSEObserver,
    PercentileObserver,
    QuantizationConfig,
    QuantizedConv2d,
    QuantizedLinear,
    layers,
    quantize_model,
)
from tinytorch.perf.quantization import model as model_module

floats = st.floats(-(2.0**100), 2.0**100, width=32)


def relative(found, expected):
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


def mlp(rng=None):
    rng = rng or np.random.default_rng(0)
    return tt.Sequential(
        tt.Linear(64, 48, rng=rng), tt.ReLU(), tt.Dropout(0.5), tt.Linear(48, 40, rng=rng), tt.ReLU(),
        tt.Linear(40, 10, rng=rng),
    )  # fmt: skip


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


# Tensors


@given(
    hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=4, max_side=6), elements=floats),
    st.booleans(),
    st.booleans(),
)
@settings(deadline=None)
def test_no_element_moves_by_more_than_half_a_step(x, symmetric, per_channel):
    quantizer = INT8Quantizer(symmetric=symmetric, per_channel=per_channel)
    q, scale, zero_point = quantizer.quantize_tensor(x)
    assert q.dtype == np.int8
    assert q.shape == x.shape
    restored = quantizer.dequantize_tensor(q, scale, zero_point).data.astype(float)
    allowed = 0.5 * np.asarray(scale, float) + np.abs(x) * 2.0**-22
    assert (np.abs(restored - x) <= allowed * (1 + 1e-6)).all()


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("value", [0.0, 0.1, -3.0, 1e-30, 1e-42, 1e30])
def test_constants_survive(value, symmetric):
    quantizer = INT8Quantizer(symmetric=symmetric)
    x = np.full((3, 4), value, np.float32)
    restored = quantizer.dequantize_tensor(*quantizer.quantize_tensor(x)).data
    np.testing.assert_allclose(restored, x, rtol=0.01, atol=1e-38)


def test_an_affine_range_uses_all_of_int8_and_holds_zero():
    q, scale, zero_point = INT8Quantizer(symmetric=False).quantize_tensor([0.0, 127.5, 255.0])
    assert (scale, zero_point) == (1.0, -128)
    assert q.tolist() == [-128, 0, 127]
    q, scale, zero_point = INT8Quantizer(symmetric=False).quantize_tensor([100.0, 200.0])
    assert scale == pytest.approx(200 / 255)
    assert (0 - zero_point) * scale == pytest.approx(100.4, abs=0.01)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("value", [3.0, -0.5, 0.0])
def test_a_single_number_is_a_tensor_too(value, symmetric):
    quantizer = INT8Quantizer(symmetric=symmetric)
    q, scale, zero_point = quantizer.quantize_tensor(value)
    assert (q.shape, q.dtype) == ((), np.int8)
    restored = quantizer.dequantize_tensor(q, scale, zero_point)
    assert restored.shape == ()
    assert restored.item() == pytest.approx(value, rel=1e-6)


@pytest.mark.parametrize("symmetric", [True, False])
def test_the_largest_numbers_stay_finite(symmetric):
    quantizer, most = INT8Quantizer(symmetric=symmetric), np.finfo(np.float32).max
    x = np.array([3.4e38, -3.4e38, 1e38, most, -most], np.float32)
    q, scale, zero_point = quantizer.quantize_tensor(x)
    restored = quantizer.dequantize_tensor(q, scale, zero_point).data
    assert (np.abs(restored.astype(float) - x) <= 0.5001 * scale).all()
    near = quantizer.quantize_tensor(x[:3])
    assert np.isfinite(quantizer.dequantize_tensor(*near).data).all()
    with np.errstate(invalid="ignore"):  # a scale that is none is not made plausible
        assert not np.isfinite(quantizer.dequantize_tensor(q, np.inf, zero_point).data).any()


def test_channels_are_columns_of_weights_and_kernels_of_convolutions():
    _, scale, _ = INT8Quantizer(per_channel=True).quantize_tensor([[1.0, -254.0], [-127.0, 2.0]])
    assert scale.tolist() == [1.0, 2.0]
    kernels = np.ones((3, 2, 1, 1), np.float32) * np.float32([127, 254, 0])[:, None, None, None]
    q, scale, zero_point = INT8Quantizer(per_channel=True).quantize_tensor(kernels)
    assert scale.reshape(-1).tolist() == [1.0, 2.0, 1.0]
    restored = INT8Quantizer().dequantize_tensor(q, scale.reshape(-1), zero_point.reshape(-1))
    np.testing.assert_array_equal(restored.data, kernels)


@pytest.mark.parametrize("bad", [[np.nan, 1.0], [np.inf], []])
def test_tensors_without_a_range_are_refused(bad):
    with pytest.raises(ValueError, match="`x` must"):
        INT8Quantizer().quantize_tensor(bad)


def test_wrong_scales_are_refused():
    with pytest.raises(ValueError, match="must broadcast"):
        INT8Quantizer().dequantize_tensor(np.zeros((2, 3), np.int8), np.ones(4), 0)
    with pytest.raises(ValueError, match="must hold integers"):
        INT8Quantizer().dequantize_tensor(np.zeros((2, 3)), 1.0, 0)
    with pytest.raises(ValueError, match="two or more axes"):
        INT8Quantizer(per_channel=True).quantize_tensor([1.0])
    with pytest.raises(ValueError, match="needs per_channel"):
        INT8Quantizer(axis=1)


# Observers


def test_min_max_covers_everything_seen():
    observer = MinMaxObserver()
    observer.observe([0.0, 1.0])
    observer.observe([-54.0, 201.0])
    assert observer.qparams() == (1.0, -74)
    observer = MinMaxObserver(symmetric=True)
    observer.observe([-254.0, 1.0])
    assert observer.qparams() == (2.0, 0)


def test_a_moving_average_moves_by_its_share():
    observer = MovingAverageObserver(momentum=0.75)
    for high in (100.0, 200.0, 400.0):
        observer.observe([0.0, high])
    expected = 0.75 * (0.75 * 100 + 0.25 * 200) + 0.25 * 400
    assert observer.qparams()[0] == pytest.approx(expected / 255)


def test_percentiles_cut_off_outliers_and_min_max_does_not():
    x = np.append(np.linspace(-1, 1, 99_990), np.full(10, 1000)).astype(np.float32)
    ranges = []
    for observer in (PercentileObserver(), MinMaxObserver()):
        observer.observe(x)
        ranges.append(observer.qparams()[0] * 255)
    assert ranges[0] == pytest.approx(2, rel=0.01)
    assert ranges[1] == pytest.approx(1001, rel=0.01)


def test_percentiles_of_more_than_is_kept_are_those_of_a_sample():
    observer, rng = PercentileObserver(percentile=99), np.random.default_rng(0)
    for _ in range(6):
        observer.observe(rng.random(500_000, np.float32))
    assert observer.qparams()[0] * 255 == pytest.approx(0.99, abs=0.002)
    assert sum(len(values) for values, _ in observer.kept) <= 2 << 20


def test_the_smallest_error_is_below_that_of_min_max():
    x = np.random.default_rng(0).standard_t(3, 20_000).astype(np.float32)
    errors = []
    for observer in (MSEObserver(), MinMaxObserver()):
        observer.observe(x)
        scale, zero_point = observer.qparams()
        q = np.clip(np.round(x / scale) + zero_point, -128, 127)
        errors.append(np.mean(((q - zero_point) * scale - x) ** 2))
    assert errors[0] < 0.97 * errors[1]


@pytest.mark.parametrize("kind", [MinMaxObserver, MovingAverageObserver, PercentileObserver, MSEObserver])
def test_observers_want_something_to_see(kind):
    with pytest.raises(ValueError, match="has seen nothing"):
        kind().qparams()
    for bad in ([], [np.nan]):
        with pytest.raises(ValueError, match="`x` must"):
            kind().observe(bad)


# Layers


@pytest.mark.parametrize("shape", [(1, 130), (7, 130), (2, 3, 130), (130,), (0, 130)])
def test_a_quantized_linear_layer_is_close_to_its_original(shape):
    linear = tt.Linear(130, 37, rng=np.random.default_rng(1))
    linear.bias.data[...] = normal(37)
    x = normal(*shape)
    found, expected = QuantizedLinear(linear)(x), linear(x)
    assert found.shape == expected.shape
    if expected.size:
        assert relative(found.data, expected.data) < 0.02


def test_a_quantized_linear_layer_is_exact_where_nothing_is_rounded():
    linear = tt.Linear(8, 5, bias=False)
    linear.weight.data[...] = np.random.default_rng(0).integers(-127, 128, (8, 5))
    linear.weight.data[0] = 127
    x = np.random.default_rng(1).integers(0, 256, (4, 8)).astype(np.float32)
    x[:, 0], x[:, 1] = 0, 255
    np.testing.assert_array_equal(QuantizedLinear(linear)(x).data, linear(x).data)


@pytest.mark.parametrize("options", [{}, {"stride": 2, "padding": 1}, {"bias": False, "padding": (0, 2)}])
def test_a_quantized_convolution_is_close_to_its_original(options):
    conv = tt.Conv2d(18, 11, 3, **options, rng=np.random.default_rng(1))
    x = normal(3, 18, 9, 12)
    found, expected = QuantizedConv2d(conv)(x), conv(x)
    assert found.shape == expected.shape
    assert relative(found.data, expected.data) < 0.02


def test_scales_are_those_of_the_largest_weight():
    linear = tt.Linear(3, 2)
    linear.weight.data[...] = [[1, -2], [0.5, 127], [-127, 254]]
    layer = QuantizedLinear(linear)
    assert layer.scale.tolist() == [1.0, 2.0]
    assert layer.q_weight.tolist() == [[1, -1], [0, 64], [-127, 127]]
    assert layer.q_weight.dtype == np.int8
    assert layer.zero_point == 0
    one = QuantizedLinear(linear, QuantizationConfig(per_channel=False))
    assert one.scale == 2.0
    assert one.q_weight.tolist() == [[0, -1], [0, 64], [-64, 127]]


def test_channels_of_their_own_keep_small_outputs_precise():
    linear = tt.Linear(64, 2, bias=False, rng=np.random.default_rng(0))
    linear.weight.data[:, 0] *= 1e-3
    x = normal(50, 64)
    expected = linear(x).data[:, 0]
    errors = [
        relative(QuantizedLinear(linear, QuantizationConfig(per_channel=each))(x).data[:, 0], expected)
        for each in (True, False)
    ]
    assert errors[0] < 0.02
    assert errors[1] > 0.2


def test_a_fixed_range_clips_and_a_dynamic_one_does_not():
    linear = tt.Linear(16, 4, rng=np.random.default_rng(0))
    fixed = QuantizedLinear(linear, calibration_data=normal(100, 16))
    large = 100 * normal(5, 16, seed=1)
    assert relative(QuantizedLinear(linear)(large).data, linear(large).data) < 0.02
    assert relative(fixed(large).data, linear(large).data) > 0.5
    fixed.calibrate([tt.Tensor(large), tt.Tensor(normal(3, 16))])
    assert relative(fixed(large).data, linear(large).data) < 0.02


class Fixed:
    """An observer of one answer."""

    def __init__(self, scale, zero_point):
        self.answer = (scale, zero_point)

    def observe(self, x):
        pass

    def qparams(self):
        return self.answer


@pytest.mark.parametrize("scale", [0.0, -1.0, np.nan, np.inf, 1e-40, 1e300])
def test_a_scale_that_float32_cannot_invert_is_refused_and_changes_nothing(scale):
    layer = QuantizedLinear(tt.Linear(8, 4), calibration_data=normal(5, 8))
    before = layer.activation_scale, layer.activation_zero
    with pytest.raises(ValueError, match="`observer` must find a finite scale"):
        layer.calibrate(normal(5, 8), Fixed(scale, 0))
    assert (layer.activation_scale, layer.activation_zero) == before


@pytest.mark.parametrize("zero_point", [-129, 128, 0.5, np.nan])
def test_a_zero_point_that_is_no_byte_is_refused(zero_point):
    with pytest.raises(ValueError, match="`observer` must find a zero point that is whole, -128 to 127"):
        quantize_model(mlp(), QuantizationConfig(observer=lambda: Fixed(1.0, zero_point)), normal(5, 64))


@pytest.mark.parametrize("zero_point", [-128, 127])
def test_the_ends_of_the_bytes_are_zero_points_too(zero_point):
    linear = tt.Linear(8, 4, rng=np.random.default_rng(0))
    layer, x = QuantizedLinear(linear), np.abs(normal(5, 8)) * (1 if zero_point < 0 else -1)
    layer.calibrate(x, Fixed(np.abs(x).max() / 255, zero_point))
    assert relative(layer(x).data, linear(x).data) < 0.02


@pytest.mark.parametrize("options", [{}, {"stride": 2, "padding": 1}, {"bias": False, "padding": (0, 2)}])
@pytest.mark.parametrize("static", [True, False])
def test_without_integer_instructions_a_convolution_computes_in_floats(monkeypatch, options, static):
    conv, x = tt.Conv2d(18, 11, 3, **options, rng=np.random.default_rng(1)), normal(4, 18, 9, 12)
    layer = QuantizedConv2d(conv, calibration_data=0.5 * x if static else None)
    x[2, 3, 4, 5] = np.nan
    monkeypatch.setattr(int8, "chosen_way", lambda: "weight-only")

    def never(*_):
        raise AssertionError("the reference ran")

    monkeypatch.setattr(layers.int8_images, "forward", never)
    found = layer(x).data
    monkeypatch.undo()
    expected = int8_images.forward_reference(
        x,
        PackedKernels(layer.blocks, layer.scales, layer.sums, layer.all_bias),
        18,
        layer.window,
        layer._fixed,
    )
    assert np.isnan(found[2]).all()
    others = [0, 1, 3]
    if static:  # rounded and clipped alike
        np.testing.assert_allclose(found[others], expected[others], rtol=1e-4, atol=1e-4)
    else:  # not rounded at all
        assert 0 < relative(found[others], expected[others]) < 0.02
        assert relative(found[others], conv(x[others]).data) < 0.01


def test_what_lies_far_beyond_a_fixed_range_is_clipped_in_floats_too(monkeypatch):
    layer, x = QuantizedConv2d(tt.Conv2d(16, 3, 3, rng=np.random.default_rng(0))), normal(1, 16, 4, 4)
    layer.calibrate(x, Fixed(1e-30, 0))
    expected = layer(1e30 * x).data
    monkeypatch.setattr(layers, "in_floats", lambda: True)
    np.testing.assert_allclose(layer(1e30 * x).data, expected, rtol=1e-4)


def test_the_report_says_what_convolutions_do_without_integer_instructions(monkeypatch):
    conv = tt.Sequential(tt.Conv2d(16, 4, 3))
    said = "convolutions compute in FP32 with weights read as INT8"
    monkeypatch.setattr(model_module, "in_floats", lambda: False)
    assert said not in quantize_model(conv).quantization_report.kernel
    monkeypatch.setattr(model_module, "in_floats", lambda: True)
    assert said in quantize_model(conv).quantization_report.kernel
    assert said not in quantize_model(mlp()).quantization_report.kernel


def test_nothing_is_kept_in_float_but_scales_and_bias():
    layer = QuantizedLinear(tt.Linear(512, 256))
    kept = {name: value for name, value in vars(layer).items() if isinstance(value, np.ndarray)}
    assert sum(value.size for value in kept.values() if value.dtype.kind == "f") == 2 * 256
    usage = layer.memory_usage()
    assert usage["bytes"] == sum(value.nbytes for value in kept.values())
    assert usage["fp32_bytes"] == 4 * (512 * 256 + 256)
    assert usage["ratio"] == usage["fp32_bytes"] / usage["bytes"] > 3.9


def test_later_changes_of_the_original_are_not_seen():
    linear = tt.Linear(8, 8, rng=np.random.default_rng(0))
    layer, x = QuantizedLinear(linear), normal(2, 8)
    before = layer(x).data
    linear.weight.data[...] = 0
    layer.q_weight[...] = 0
    np.testing.assert_array_equal(layer(x).data, before)


def test_there_is_no_gradient_and_it_says_so():
    layer = QuantizedLinear(tt.Linear(8, 8))
    out = layer(tt.Tensor(normal(2, 8), requires_grad=True))
    with pytest.raises(RuntimeError, match="no gradient: train the model before it is quantized"):
        out.sum().backward()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_rows_and_images_that_are_not_finite_stay_so(bad):
    x = normal(4, 32)
    x[2, 5] = bad
    out = QuantizedLinear(tt.Linear(32, 9))(x).data
    np.testing.assert_array_equal(np.isfinite(out).all(axis=1), [True, True, False, True])
    images = normal(3, 16, 5, 5)
    images[1, 2, 3, 4] = bad
    out = QuantizedConv2d(tt.Conv2d(16, 3, 3))(images).data
    np.testing.assert_array_equal(np.isfinite(out).all(axis=(1, 2, 3)), [True, False, True])


def test_wrong_shapes_and_weights_are_refused():
    layer = QuantizedLinear(tt.Linear(8, 4))
    with pytest.raises(ValueError, match=r"expects shape \(\.\.\., 8\), got \(2, 7\)"):
        layer(np.zeros((2, 7)))
    with pytest.raises(ValueError, match=r"expects shape \(\.\.\., 8\)"):
        layer.calibrate(np.zeros((2, 7)))
    conv = QuantizedConv2d(tt.Conv2d(16, 4, 3))
    for shape in ((1, 15, 5, 5), (16, 5, 5), (0, 16, 5, 5)):
        with pytest.raises(ValueError, match="expects shape"):
            conv(np.zeros(shape))
    with pytest.raises(ValueError, match="no smaller than its kernel"):
        conv(np.zeros((1, 16, 2, 5)))
    linear = tt.Linear(8, 4)
    linear.weight.data[1, 1] = np.nan
    with pytest.raises(ValueError, match="`weight` must be finite"):
        QuantizedLinear(linear)
    with pytest.raises(ValueError, match="must be a Linear layer, got ReLU"):
        QuantizedLinear(tt.ReLU())


# Models


def test_a_quantized_model_is_a_copy_that_computes_almost_the_same():
    model, x = mlp(), normal(20, 64)
    model.train()
    before = {name: array.copy() for name, array in model.state_dict().items()}
    quantized = quantize_model(model)
    assert [type(layer).__name__ for layer in quantized] == [
        "QuantizedLinear", "ReLU", "Dropout", "QuantizedLinear", "ReLU", "Linear",
    ]  # fmt: skip
    assert model.training
    assert not quantized.training
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, before[name])
    assert relative(quantized(x).data, model.eval()(x).data) < 0.03
    model.layers[5].weight.data[...] = 0
    assert np.abs(quantized(x).data).max() > 0


def test_the_report_says_which_layers_and_why():
    report = quantize_model(mlp(), calibration_data=normal(50, 64)).quantization_report
    assert [row.quantized for row in report] == [True, True, False]
    assert "400 weights, fewer than 1024" in report["layers.5"].reason
    first = report["layers.0"]
    assert first.fp32_bytes == 4 * (64 * 48 + 48)
    assert first.n_bytes == 64 * 48 + 3 * 4 * 48
    assert 40 < first.weight_sqnr_db < 55
    assert 30 < first.output_sqnr_db < 50
    assert first.clipped == 0
    assert str(report).count("int8") == 2
    cut = QuantizationConfig(observer=lambda: PercentileObserver(percentile=95))
    assert 0.05 < quantize_model(mlp(), cut, normal(50, 64)).quantization_report["layers.0"].clipped < 0.15


@pytest.mark.parametrize(
    ("inputs", "outputs", "note"),
    [
        (64, 128, "too small to be faster: about as fast as FP32 or slower"),
        (128, 10, "too small to be faster: about as fast as FP32 or slower"),
        (4096, 10, "10 outputs are too few to be faster: slower beyond batch 1"),
        (128, 128, "smaller; at batch 1 about as fast as FP32"),
        (256, 256, ""),
    ],
)
def test_the_report_says_which_layers_are_too_small_to_be_faster(inputs, outputs, note):
    reason = quantize_model(tt.Linear(inputs, outputs)).quantization_report[""].reason
    assert note in reason
    assert bool(note) == bool(reason)


def test_convolutions_of_few_channels_stay_fp32():
    model = tt.Sequential(
        tt.Conv2d(3, 16, 3), tt.ReLU(), tt.Conv2d(16, 8, 3), tt.Flatten(), tt.Linear(128, 10)
    )
    quantized = quantize_model(model)
    assert isinstance(quantized[0], tt.Conv2d)
    assert isinstance(quantized[2], QuantizedConv2d)
    assert "3 input channels, fewer than 16" in quantized.quantization_report["layers.0"].reason
    x = normal(4, 3, 8, 8)
    assert relative(quantized(x).data, model(x).data) < 0.03


def test_layers_can_be_left_out_by_name():
    model = tt.GPT(70, 64, 2, 4, max_seq_len=16)
    quantized = quantize_model(model, QuantizationConfig(skip=("lm_head", "*.attention.*")))
    kinds = {row.name: row.quantized for row in quantized.quantization_report}
    assert not kinds["lm_head"]
    assert not kinds["blocks.1.attention.v_proj"]
    assert kinds["blocks.0.mlp.linear1"]
    with pytest.raises(ValueError, match=r"`skip` names 'head', which fits no"):
        quantize_model(model, QuantizationConfig(skip=("head",)))


def test_a_language_model_can_be_quantized():
    model = tt.GPT(70, 64, 2, 4, max_seq_len=16, rng=np.random.default_rng(0))
    quantized = quantize_model(model, calibration_data=np.arange(24).reshape(2, 12))
    ids = np.arange(16)[None]
    assert relative(quantized(ids).data, model(ids).data) < 0.05
    assert quantized.generate(ids[:, :4], 5, temperature=0).shape == (1, 9)


class Looking(tt.Layer):
    """Looks at its layer while it computes."""

    def __init__(self):
        self.inner = tt.Linear(64, 48, rng=np.random.default_rng(0))

    def forward(self, x):
        return self.inner(x) * (1 / self.inner.in_features)


def test_a_model_may_look_at_its_layers_while_it_is_calibrated():
    model, x = Looking(), normal(20, 64)
    quantized = quantize_model(model, calibration_data=x)
    assert quantized.inner.activation_scale == pytest.approx(np.ptp(x) / 255, rel=1e-5)
    assert relative(quantized(x).data, model(x).data) < 0.02


def test_gradients_stay_with_the_original():
    model = mlp().eval()
    model(normal(3, 64)).sum().backward()
    quantized = quantize_model(model)
    assert all(p.grad is not None for p in model.parameters())
    assert quantized[5].weight.grad is None


def test_calibration_sees_only_its_own_data():
    model = mlp()
    fixed = quantize_model(model, calibration_data=0.01 * normal(50, 64))
    assert fixed[0].activation_scale == pytest.approx(np.ptp(0.01 * normal(50, 64)) / 255, rel=1e-5)
    dynamic = quantize_model(model, QuantizationConfig(activations="dynamic"), calibration_data=normal(5, 64))
    assert dynamic[0].activation_scale is None


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "empty list"),
        (np.zeros((0, 64)), "must hold inputs"),
        (np.zeros((3, 63)), r"does not fit the model.*\(\.\.\., 64\)"),
        (np.full((3, 64), np.nan), "must be finite"),
        ("data", "must hold real numbers"),
        (
            tt.DataLoader(tt.TensorDataset(np.zeros((3, 64)), np.zeros(3)), 2),
            r"object data in a DataLoader: pass a Tensor, an array or a list of them, such as \[x for x",
        ),
        ([np.zeros((3, 64)), np.zeros((3, 1))], "does not fit the model"),
    ],
)
@pytest.mark.parametrize("activations", ["static", "dynamic"])
def test_calibration_data_that_does_not_fit_is_refused(data, message, activations):
    with pytest.raises(ValueError, match=message):
        quantize_model(mlp(), QuantizationConfig(activations=activations), calibration_data=data)


@pytest.mark.parametrize(
    "model", [tt.Sequential(tt.ReLU()), tt.Sequential(tt.Linear(4, 4)), tt.Conv2d(3, 8, 3)]
)
def test_a_model_with_nothing_to_quantize_is_refused(model):
    with pytest.raises(ValueError, match=r"nothing in .* can be quantized"):
        quantize_model(model)
    with pytest.raises(ValueError, match=r"nothing in .* can be quantized"):
        quantize_model(quantize_model(mlp(), QuantizationConfig(min_weights=0)))


@pytest.mark.parametrize(
    "options",
    [{"activations": "int4"}, {"observer": "none"}, {"skip": "lm_head"}, {"min_weights": -1}],
)
def test_wrong_configurations_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        QuantizationConfig(**options)
    for make in (quantize_model, lambda model, config: QuantizedLinear(model[0], config)):
        with pytest.raises(ValueError, match=r"`config` must be a QuantizationConfig, got ndarray; data is"):
            make(mlp(), normal(5, 64))
    with pytest.raises(
        ValueError, match=r"`observer` must make objects with observe\(x\) and qparams\(\), got"
    ):
        quantize_model(mlp(), QuantizationConfig(observer=lambda: 3), normal(5, 64))
    named = "`observer` must be 'minmax', 'moving-average', 'percentile', 'mse', or a class or function that"
    for observer in ("max", MinMaxObserver()):
        with pytest.raises(ValueError, match=f"{named} makes observers, got "):
            QuantizationConfig(observer=observer)
    with pytest.raises(ValueError, match="needs `calibration_data`"):
        quantize_model(mlp(), QuantizationConfig(activations="static"))


def test_a_saved_model_is_small_and_computes_the_same_bits(tmp_path):
    rng = np.random.default_rng(0)
    model = tt.Sequential(
        tt.Conv2d(16, 64, 3, padding=1, rng=rng), tt.ReLU(), tt.Flatten(), tt.Linear(64 * 64, 128, rng=rng)
    )
    quantized, x = quantize_model(model, calibration_data=normal(8, 16, 8, 8)), normal(3, 16, 8, 8)
    tt.save_model(model, tmp_path / "dense")
    tt.save_model(quantized, tmp_path / "small")
    assert (tmp_path / "dense").stat().st_size > 3.9 * (tmp_path / "small").stat().st_size
    loaded = tt.load_model(tmp_path / "small")
    assert isinstance(loaded[0], QuantizedConv2d)
    assert loaded[3].panels.dtype == np.int8
    np.testing.assert_array_equal(loaded(x).data, quantized(x).data)
    into = tt.load_model(tmp_path / "small", model)  # its float layers are replaced
    np.testing.assert_array_equal(into(x).data, quantized(x).data)


def test_digits_are_recognised_as_well_as_before():
    from tinytorch.datasets.digits import load_digits
    from tinytorch.datasets.reference import reference_model

    split = load_digits(flat=True)
    model = reference_model("digits-mlp").model
    quantized = quantize_model(model, QuantizationConfig(min_weights=0), split.train.images[:256])
    before, after = (net(split.test.images).data.argmax(axis=1) for net in (model, quantized))
    assert np.mean(before == after) > 0.99
    assert (after == split.test.labels).mean() > 0.96


def test_a_kernel_of_26_levels_would_be_noticed():
    linear, x = tt.Linear(256, 64, rng=np.random.default_rng(0)), normal(32, 256)
    coarse = QuantizedLinear(linear)
    coarse.panels = (coarse.panels // 10 * 10).astype(np.int8)
    assert (
        relative(coarse(x).data, linear(x).data)
        > 0.03
        > relative(QuantizedLinear(linear)(x).data, linear(x).data)
    )


class Forked(tt.Layer):
    """Two branches, of which the data decides."""

    def __init__(self):
        rng = np.random.default_rng(0)
        self.near, self.far = tt.Linear(64, 32, rng=rng), tt.Linear(64, 32, rng=rng)

    def forward(self, x):
        return self.far(x) if x.data.max() > 100 else self.near(x)


def test_a_layer_that_calibration_data_did_not_reach_is_noted():
    quantized = quantize_model(Forked(), calibration_data=normal(8, 64))
    reached, missed = quantized.quantization_report.layers
    assert quantized.near.activation_scale is not None
    assert quantized.far.activation_scale is None
    assert "did not reach" not in reached.reason
    assert missed.reason.endswith("; calibration data did not reach it: ranges of each row or image")
    for config, data in ((QuantizationConfig(activations="dynamic"), normal(8, 64)), (None, None)):
        rows = quantize_model(Forked(), config, data).quantization_report.layers
        assert not any("did not reach" in row.reason for row in rows)


def test_the_kernel_that_runs_is_named():
    assert int8.describe().split(":")[0] in {"vnni512", "vnni256", "avx2", "neon", "weight-only", "reference"}

"""The roof is where the machine puts it, and operations lie under it by their intensity."""

import numpy as np
import pytest

import tinytorch as tt
from tinytorch.core.tensor import Tensor
from tinytorch.perf.compression import magnitude_prune, sparsify
from tinytorch.perf.memoization import enable_kv_cache
from tinytorch.perf.profiling import Machine, MemoryProfiler, Profiler, Row, measure_machine
from tinytorch.perf.profiling import machine as module
from tinytorch.perf.profiling.roofline import roofline
from tinytorch.perf.quantization import QuantizationConfig, quantize_model

MACHINE = Machine(peak_gflops=100, bandwidth_gb_s=10)


def row(name, flops, n_bytes, self_ms):
    return Row(name, "operation", 1, self_ms, self_ms, n_bytes, flops, 0)


def test_the_roof_rises_with_memory_and_is_flat_above_the_ridge():
    assert MACHINE.ridge == 10
    assert [MACHINE.attainable_gflops(x) for x in (0.1, 5, 10, 50)] == [1, 50, 100, 100]


def test_operations_lie_under_the_roof_by_their_intensity():
    rows = [row("product", 10**9, 10**7, 20), row("sum", 10**6, 4 * 10**6, 2), row("view", 0, 0, 1)]
    found = roofline(rows, MACHINE)
    assert found.machine is MACHINE
    product, total = found.points
    assert (product.name, product.intensity, product.gflops) == ("product", 100, 50)
    assert (product.attainable_gflops, product.bound) == (100, "arithmetic")
    assert (total.name, total.intensity, total.gflops) == ("sum", 0.25, 0.5)
    assert (total.attainable_gflops, total.bound) == (2.5, "memory")
    assert found.memory_bound == ("sum",)


def test_the_report_names_the_machine_and_every_operation():
    text = roofline([row("sum", 10**6, 4 * 10**6, 2)], MACHINE).report()
    assert "peak 100.0 GFLOP/s, memory 10.0 GB/s, ridge at 10.0 FLOP/byte" in text
    assert text.splitlines()[-1].split() == ["sum", "0.25", "0.50", "2.50", "20%", "memory"]
    assert "no operations with FLOPs were recorded" in roofline([], MACHINE).report()


def test_a_large_product_is_bound_by_arithmetic_and_an_addition_by_memory():
    x = Tensor(np.ones((256, 256)))
    with tt.no_grad(), Profiler() as p:
        x @ x + x
    bounds = {point.name: point.bound for point in p.roofline(MACHINE).points}
    assert bounds == {"matmul": "arithmetic", "add": "memory"}
    intensities = {point.name: point.intensity for point in p.roofline(MACHINE).points}
    assert intensities == pytest.approx({"matmul": 2 * 256 / 12, "add": 1 / 12})


def test_the_machine_is_measured_by_a_product_and_a_stream(monkeypatch):
    monkeypatch.setattr(module, "_PEAK_SIZE", 128)
    monkeypatch.setattr(module, "_STREAM_ELEMENTS", 1 << 16)
    seconds = iter([0, 0.5, 1, 1.25, 2, 2.5] * 10)
    monkeypatch.setattr(module, "perf_counter", lambda: next(seconds))
    monkeypatch.setattr(module, "_ROUNDS", 3)
    machine = measure_machine()
    assert machine.peak_gflops == pytest.approx(2 * 128**3 / 0.25 / 1e9)
    assert machine.bandwidth_gb_s == pytest.approx(3 * 4 * (1 << 16) / 0.25 / 1e9)


def test_the_machine_is_not_measured_while_memory_is_traced():
    with MemoryProfiler(), pytest.raises(RuntimeError, match="cannot run inside `with MemoryProfiler"):
        measure_machine()


VOCAB, WIDTH, LAYERS, HEADS = 40, 64, 2, 4


def gpt():
    return tt.GPT(VOCAB, WIDTH, LAYERS, HEADS, max_seq_len=32, rng=np.random.default_rng(0)).eval()


def fused(model, ids, start=0):
    """What is recorded of one pass over `ids`, after `start` tokens that are not observed."""
    with tt.no_grad():
        if start:
            model(np.zeros((len(ids), start), int))
        with Profiler() as p:
            model(ids, start_pos=start)
    rows = p.by_operation()
    assert {row.name for row in rows} == {"fused_step", "GPT"}  # GPT is the time outside of operations
    return next(row for row in rows if row.name == "fused_step"), p.roofline(MACHINE).points[0]


def moved(batch, new, *, matrices=None, vector=4 * WIDTH, earlier=0, kept=None):
    """The closed form: ids and scores, rows of embeddings, weights, keys and values of LAYERS layers."""
    ids_and_scores = 8 * batch * new + 4 * batch * new * VOCAB
    embeddings = 4 * WIDTH * (batch * new + new)
    of_block = 4 * (4 * (WIDTH * WIDTH + WIDTH) + 8 * WIDTH * WIDTH + 5 * WIDTH)
    weights = LAYERS * of_block + 4 * (WIDTH * VOCAB + VOCAB) if matrices is None else matrices
    norms = 4 * 2 * WIDTH * (2 * LAYERS + 1)
    cache = 2 * LAYERS * batch * vector * (earlier + (new if kept is None else kept))
    return ids_and_scores + embeddings + weights + norms + cache


@pytest.mark.parametrize(
    ("batch", "new", "earlier"), [(1, 1, 0), (1, 1, 20), (3, 1, 7), (2, 5, 9), (1, 32, 0)]
)
def test_a_fused_pass_reads_weights_once_and_keys_and_values_of_what_came_before(batch, new, earlier):
    model = gpt()
    enable_kv_cache(model, batch_size=batch)
    row, _ = fused(model, np.zeros((batch, new), int), earlier)
    assert row.bytes == moved(batch, new, earlier=earlier)


def test_a_window_and_an_int8_cache_read_less():
    model, one = gpt(), np.zeros((1, 1), int)
    enable_kv_cache(model, window=6)
    assert fused(model, one, 20)[0].bytes == moved(1, 1, earlier=5)  # the sixth is that of the token itself
    assert fused(model, np.zeros((1, 8), int), 20)[0].bytes == moved(1, 8, earlier=6, kept=6)
    enable_kv_cache(model, dtype="int8")
    assert fused(model, one, 20)[0].bytes == moved(1, 1, vector=WIDTH + 4 * HEADS, earlier=20)


def test_packed_and_sparse_weights_count_as_they_are_stored_and_only_once():
    one = np.zeros((1, 1), int)
    small = quantize_model(gpt(), QuantizationConfig(min_weights=0))
    kinds = [layer for _, layer in small.named_layers() if hasattr(layer, "memory_usage")]
    assert len(kinds) == 6 * LAYERS + 1
    enable_kv_cache(small)
    held = int(sum(layer.memory_usage()["bytes"] for layer in kinds))
    assert fused(small, one, 4)[0].bytes == moved(1, 1, matrices=held, earlier=4)
    sparse = sparsify(magnitude_prune(gpt(), 0.9))
    enable_kv_cache(sparse)
    held = sum(layer.stored_bytes for _, layer in sparse.named_layers() if hasattr(layer, "stored_bytes"))
    assert fused(sparse, one, 4)[0].bytes == moved(1, 1, matrices=held, earlier=4)


def test_a_step_for_one_token_is_bound_by_memory_and_a_pass_over_many_is_not():
    model = gpt()
    enable_kv_cache(model)
    row, point = fused(model, np.zeros((1, 1), int), 8)
    assert point.bound == "memory"
    assert point.intensity == pytest.approx(row.flops / moved(1, 1, earlier=8))
    assert 0.4 < point.intensity < 0.6  # two operations for the four bytes of each weight
    assert fused(model, np.zeros((1, 32), int))[1].bound == "arithmetic"


def test_bytes_can_be_read_after_the_model_is_gone():
    model = gpt()
    with Profiler() as p:
        model.generate(np.zeros((1, 3), int), 1, temperature=0)
    del model
    scores_of_one = 4 * VOCAB * (3 - 1)
    assert sum(row.bytes for row in p.by_operation()) == moved(1, 3, kept=0) - scores_of_one


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_the_picture_is_drawn_into_a_file(tmp_path, suffix):
    path = tmp_path / f"roof.{suffix}"
    roofline([row("product", 10**9, 10**7, 20), row("sum", 10**6, 4 * 10**6, 2)], MACHINE).plot(path)
    start = path.read_bytes()[:400]
    assert start.startswith(b"\x89PNG") if suffix == "png" else b"<svg" in start


def test_the_picture_has_the_roof_and_the_operations_where_they_belong():
    from matplotlib.figure import Figure

    axes = Figure().add_subplot()
    roofline([row("sum", 10**6, 4 * 10**6, 2)], MACHINE)._draw(axes)
    x, y = axes.lines[0].get_data()
    np.testing.assert_allclose(y, np.minimum(100, 10 * x))
    assert axes.lines[1].get_xdata()[0] == 10
    np.testing.assert_allclose(axes.collections[0].get_offsets(), [[0.25, 0.5]])
    assert [text.get_text() for text in axes.texts] == ["sum"]


def test_an_empty_picture_still_shows_the_machine(tmp_path):
    roofline([], MACHINE).plot(tmp_path / "roof.png")
    assert (tmp_path / "roof.png").stat().st_size > 1000


def test_the_picture_needs_a_folder_and_a_format_that_is_known(tmp_path):
    empty = roofline([], MACHINE)
    with pytest.raises(ValueError, match="`path` must lie in a folder that exists"):
        empty.plot(tmp_path / "missing" / "roof.png")
    with pytest.raises(ValueError, match=r"`path` must end in one of .*png"):
        empty.plot(tmp_path / "roof.doc")

"""The roof is where the machine puts it, and operations lie under it by their intensity."""

import numpy as np
import pytest

import tinytorch as tt
from tinytorch.core.tensor import Tensor
from tinytorch.perf.profiling import Machine, MemoryProfiler, Profiler, Row, measure_machine
from tinytorch.perf.profiling import machine as module
from tinytorch.perf.profiling.roofline import roofline

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

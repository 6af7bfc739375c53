"""The state of the process while timing, and that all of it is put back."""

import gc
import os
import subprocess
import sys
import textwrap
import threading
from contextlib import nullcontext
from pathlib import Path

import pytest
from threadpoolctl import threadpool_info

import perfclaims
from perfclaims.conditions import available_cpus, collect_if_piled_up, measuring

pins = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs CPU affinity")


class Stopped(BaseException):
    """Like KeyboardInterrupt, which pytest would take for its own."""


def state():
    pools = sorted((pool["filepath"], pool["num_threads"]) for pool in threadpool_info())
    affinity = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    return gc.isenabled(), gc.get_freeze_count() > 0, affinity, pools


@pytest.mark.parametrize("threads", [1, 2, "all"])
@pytest.mark.parametrize("error", [None, ValueError, Stopped, KeyboardInterrupt])
def test_everything_is_put_back_also_after_an_exception(threads, error):
    before = state()
    with nullcontext() if error is None else pytest.raises(error), measuring(threads):
        collecting = state()[0]
        if error is not None:
            raise error
    assert state() == before
    assert not collecting


def test_an_exception_while_setting_up_pins_again_and_then_goes_on():
    before = state()
    with measuring(1) as conditions:
        pinned = state()
        with pytest.raises(Stopped), conditions.setting_up():
            raise Stopped
        assert state() == pinned
    assert state() == before


@pytest.mark.parametrize("enabled", [True, False])
def test_the_collector_is_as_it_was_whatever_the_measured_code_did(enabled):
    (gc.enable if enabled else gc.disable)()
    try:
        for meddle in (gc.enable, gc.disable):
            with measuring(1):
                assert not gc.isenabled()
                meddle()
            assert gc.isenabled() == enabled
    finally:
        gc.enable()


def test_what_the_caller_froze_stays_frozen():
    with measuring(1):
        assert gc.get_freeze_count() > 0
    assert gc.get_freeze_count() == 0
    gc.freeze()
    try:
        with measuring(1):
            pass
        assert gc.get_freeze_count() > 0
    finally:
        gc.unfreeze()


def test_garbage_is_collected_between_passes_once_it_piles_up():
    class Node:
        pass

    with measuring(1):
        collect_if_piled_up()
        gc.collect()
        nodes = [Node() for _ in range(3)]
        for node in nodes:
            node.me = node
        del nodes, node
        collect_if_piled_up()
        assert sum(isinstance(o, Node) for o in gc.get_objects()) == 3
        piled = [[] for _ in range(30_000)]
        collect_if_piled_up()
        assert sum(isinstance(o, Node) for o in gc.get_objects()) == 0
        del piled


def test_measuring_may_be_nested_and_repeated():
    before = state()
    for _ in range(3):
        with measuring(1) as outer:
            inside = state()
            with measuring("all"), measuring(1) as inner:
                assert inner.cpu == outer.cpu
            assert state() == inside
            with outer.setting_up(), measuring(1):
                pass
            assert state() == inside
        assert state() == before


@pins
def test_one_thread_is_pinned_to_one_allowed_cpu_and_more_are_not():
    allowed = os.sched_getaffinity(0)
    with measuring(1) as conditions:
        assert os.sched_getaffinity(0) == {conditions.cpu}
        assert conditions.cpu in allowed
    for threads in (2, "all"):
        with measuring(threads) as conditions:
            assert os.sched_getaffinity(0) == allowed
            assert conditions.cpu is None


@pins
def test_building_sees_all_cpus():
    allowed = os.sched_getaffinity(0)
    with measuring(1) as conditions:
        with conditions.setting_up():
            assert os.sched_getaffinity(0) == allowed
            assert available_cpus() == len(allowed)
        assert os.sched_getaffinity(0) == {conditions.cpu}


@pins
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc")
def test_other_threads_are_pinned_too_and_get_their_own_cpus_back():
    stop, started = threading.Event(), []

    def wait():
        started.append(threading.get_native_id())
        stop.wait(20)

    def start():
        thread = threading.Thread(target=wait)
        thread.start()
        while len(started) < len(threads) + 1:
            pass
        threads.append(thread)
        return started[-1]

    threads = []
    allowed = os.sched_getaffinity(0)
    try:
        before = start()
        one_cpu = {min(allowed)}
        os.sched_setaffinity(before, one_cpu)
        with measuring(1) as conditions:
            assert os.sched_getaffinity(before) == {conditions.cpu}
            during = start()
            with conditions.setting_up():
                assert os.sched_getaffinity(before) == one_cpu
                assert os.sched_getaffinity(during) == allowed
                building = start()
            assert os.sched_getaffinity(building) == os.sched_getaffinity(during) == {conditions.cpu}
        assert os.sched_getaffinity(before) == one_cpu
        assert os.sched_getaffinity(during) == os.sched_getaffinity(building) == allowed
    finally:
        stop.set()
        for thread in threads:
            thread.join()


@pins
def test_where_pinning_is_forbidden_nothing_is_pinned(monkeypatch):
    def forbidden(thread, cpus):
        raise PermissionError

    monkeypatch.setattr(os, "sched_setaffinity", forbidden)
    with measuring(1) as conditions:
        assert conditions.cpu is None


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="nothing to take away")
def test_where_pinning_is_unknown_nothing_is_pinned(monkeypatch):
    monkeypatch.delattr(os, "sched_setaffinity")
    with measuring(1) as conditions, conditions.setting_up():
        assert conditions.cpu is None


def test_blas_has_the_threads_that_were_asked_for():
    import numpy as np

    np.ones((2, 2)) @ np.ones((2, 2))
    cpus = available_cpus()
    for threads, expected in ((1, 1), (2, 2), ("all", cpus)):
        with measuring(threads):
            assert {pool["num_threads"] for pool in threadpool_info()} == {expected}


def in_a_fresh_process(code):
    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, "PYTHONPATH": str(Path(perfclaims.__file__).parent.parent)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_a_library_that_is_loaded_while_building_is_limited_too_and_afterwards_as_it_would_be():
    in_a_fresh_process(
        """
        import sys
        from threadpoolctl import threadpool_info
        from perfclaims.conditions import available_cpus, measuring

        def threads(of):
            return {p["num_threads"] for p in threadpool_info() if of in p["filepath"]}

        with measuring(1) as conditions:
            assert not threads("scipy.libs")
            with conditions.setting_up():
                import scipy.linalg
            assert threads("scipy.libs") == {1}, threads("scipy.libs")
        assert threads("scipy.libs") == {available_cpus()}, threads("scipy.libs")
        """
    )


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="about the GNU C library")
def test_large_arrays_do_not_all_stand_at_one_offset_within_a_page():
    code = """
        import numpy as np
        from contextlib import nullcontext
        from perfclaims.conditions import measuring

        with {state}:
            pads, arrays = [], []
            for size in range(10, 5_000, 500):
                pads.append(bytearray(size))
                arrays.append(np.empty(40_000))
            print(len({{array.ctypes.data % 4096 for array in arrays}}))
        """
    if int(in_a_fresh_process(code.format(state="nullcontext()"))) > 1:
        pytest.skip("another allocator, or settings of its own")
    assert int(in_a_fresh_process(code.format(state="measuring(1)"))) > 3


def test_numba_that_is_imported_while_building_counts_all_cpus_and_runs_on_one():
    pytest.importorskip("numba")
    in_a_fresh_process(
        """
        from perfclaims.conditions import available_cpus, measuring

        cpus = available_cpus()
        with measuring(1) as conditions:
            with conditions.setting_up():
                import numba
            assert numba.get_num_threads() == 1
        assert numba.get_num_threads() == numba.config.NUMBA_NUM_THREADS == cpus
        with measuring("all"):
            assert numba.get_num_threads() == cpus
        with measuring(1):
            assert numba.get_num_threads() == 1
        assert numba.get_num_threads() == cpus
        """
    )


def test_a_tracer_is_told():
    before = sys.getprofile()
    with measuring(1) as conditions:
        quiet = conditions.warnings() if sys.gettrace() is None and before is None else []
        sys.setprofile(lambda *args: None)
        try:
            (warning,) = conditions.warnings()
        finally:
            sys.setprofile(before)
    assert quiet == []
    assert "profiler or coverage tool is active" in warning


def test_threads_that_were_started_and_go_on_are_told_to_a_claim_of_one_thread():
    stop = threading.Event()
    for threads in (1, "all"):
        thread = threading.Thread(target=stop.wait, args=(20,))
        with measuring(threads) as conditions:
            thread.start()
            warnings = conditions.warnings()
        stop.set()
        thread.join()
        stop.clear()
        assert [w.startswith("1 thread was started and not ended") for w in warnings] == [True] * (
            threads == 1
        )

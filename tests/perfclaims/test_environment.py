"""The truth is planted: fake /proc files, fake systems, fresh git repositories, snapshots made by hand."""

import dataclasses
import getpass
import json
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest

from perfclaims import activity, environment
from perfclaims.activity import Activity, Snapshot, activity_between, busy_warning, take_snapshot
from perfclaims.environment import (
    CodeRevision,
    code_revision,
    cpu_flags,
    describe_environment,
    missing_cpu_flags,
)

KEYS = {
    *("python", "numpy", "blas", "threads", "cpu", "memory", "os", "load", "libraries", "clock"),
}
GARBAGE = "\x00\ufffd::\n:\n\n flags\n cpu cpu\n" * 3
X86_CPUINFO = """\
processor\t: 0
model name\t: Example(R) CPU @ 2.60GHz
flags\t\t: fpu avx2 avx512_vnni

processor\t: 1
model name\t: Example(R) CPU @ 2.60GHz
flags\t\t: fpu avx2
"""
ARM_CPUINFO = """\
processor\t: 0
Features\t: fp asimd asimddp
CPU implementer\t: 0x41
CPU part\t: 0xd40
"""


def strings_of(document):
    if isinstance(document, dict):
        for key, value in document.items():
            yield from strings_of(key)
            yield from strings_of(value)
    elif isinstance(document, list):
        for value in document:
            yield from strings_of(value)
    elif isinstance(document, str):
        yield document


@pytest.fixture
def linux(monkeypatch):
    monkeypatch.setattr(platform, "system", lambda: "Linux")


@pytest.fixture(params=["Darwin", "Windows"])
def elsewhere(request, monkeypatch):
    """A system without /proc, affinity, load averages or the resource module, where no library answers."""
    monkeypatch.setattr(platform, "system", lambda: request.param)
    monkeypatch.setattr(platform, "processor", lambda: "")
    monkeypatch.setattr(environment, "_output_of", lambda *command: None)
    monkeypatch.setattr(activity, "resource", None)
    for name in ("sched_getaffinity", "getloadavg", "sysconf"):
        monkeypatch.delattr(os, name, raising=False)
    for name in ("psutil", "threadpoolctl"):
        monkeypatch.setitem(sys.modules, name, None)
    return {}.get


@pytest.fixture
def fresh_flags():
    cpu_flags.cache_clear()
    yield
    cpu_flags.cache_clear()


# What the machine is


def test_description_has_the_agreed_keys_and_is_strict_json():
    document = describe_environment()
    assert set(document) == KEYS
    assert json.loads(json.dumps(document, allow_nan=False)) == document


def test_description_tells_what_the_interpreter_itself_knows():
    document = describe_environment()
    assert platform.python_version() in document["python"]
    assert "Python" in document["python"]
    assert document["cpu"]["cores"]["logical"] == os.cpu_count()
    assert document["os"]["machine"] == platform.machine()
    assert document["libraries"]["numba"] == __import__("numba").__version__
    assert document["clock"]["smallest_step_ns"] > 0
    assert 0 < document["memory"]["available_bytes"] <= document["memory"]["total_bytes"]


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="no affinity on this system")
def test_allowed_cores_are_those_of_the_affinity_set(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 5, 9})
    assert describe_environment()["cpu"]["cores"]["allowed"] == 3


def test_description_names_neither_user_nor_host_nor_home():
    user, host, home = getpass.getuser(), socket.gethostname(), str(Path.home())
    for text in strings_of(describe_environment()):
        assert len(home) < 2 or home not in text
        assert not re.search(rf"(?<!\w){re.escape(host)}(?!\w)", text)
        if len(user) > 2 and re.search(r"[/\\]", text):
            assert not re.search(rf"(?<!\w){re.escape(user)}(?!\w)", text)


def test_paths_of_libraries_and_odd_thread_settings_stay_out(monkeypatch):
    threadpoolctl = pytest.importorskip("threadpoolctl")
    pool = {
        "user_api": "blas",
        "internal_api": "openblas",
        "prefix": "libopenblas",
        "filepath": "/home/somebody/lib/libopenblas.so",
        "version": "0.3",
        "num_threads": 7,
    }
    monkeypatch.setattr(threadpoolctl, "threadpool_info", lambda: [pool, {**pool, "user_api": "openmp"}])
    monkeypatch.setenv("OMP_NUM_THREADS", "4,2")
    monkeypatch.setenv("MKL_NUM_THREADS", "/home/somebody")
    document = describe_environment()
    assert "somebody" not in json.dumps(document)
    assert [blas["version"] for blas in document["blas"]] == ["0.3"]
    assert (document["threads"]["blas"], document["threads"]["openmp"]) == (7, 7)
    assert document["threads"]["variables"] == {"OMP_NUM_THREADS": "4,2"}


def test_without_a_blas_that_answers_the_build_of_numpy_does(monkeypatch):
    threadpoolctl = pytest.importorskip("threadpoolctl")
    monkeypatch.setattr(threadpoolctl, "threadpool_info", list)
    document = describe_environment()
    assert document["blas"][0]["name"]
    assert document["threads"]["blas"] is None


@pytest.mark.parametrize("content", [None, "", GARBAGE])
def test_unreadable_proc_files_leave_nulls(linux, content):
    document = describe_environment(lambda name: content)
    assert document["cpu"]["model"] is None
    assert document["cpu"]["flags"] is None
    assert set(document) == KEYS


def test_other_systems_get_the_same_keys_with_nulls(elsewhere):
    document = describe_environment(elsewhere)
    assert set(document) == KEYS
    assert document["cpu"]["model"] is None
    assert document["cpu"]["flags"] is None
    assert document["cpu"]["cores"]["allowed"] is None
    assert document["cpu"]["cores"]["physical"] is None
    assert document["memory"] == {"total_bytes": None, "available_bytes": None}
    assert document["load"] == {"average": None}
    assert document["threads"]["blas"] is None
    json.dumps(document, allow_nan=False)


def test_a_library_that_fails_when_asked_leaves_nulls(monkeypatch):
    psutil = pytest.importorskip("psutil")

    def fail(*args, **kwargs):
        raise KeyError("MemAvailable")

    monkeypatch.setattr(psutil, "virtual_memory", fail)
    monkeypatch.setattr(psutil, "cpu_count", fail)
    document = describe_environment()
    assert document["memory"] == {"total_bytes": None, "available_bytes": None}
    assert document["cpu"]["cores"]["physical"] is None


@pytest.mark.parametrize(("readings", "step"), [([5, 5, 12, 12, 15], 3), ([5, 5, 5, 5, 5], None)])
def test_smallest_step_of_the_clock_is_the_smallest_seen_above_zero(monkeypatch, readings, step):
    monkeypatch.setattr(environment, "_CLOCK_READINGS", 5)
    monkeypatch.setattr(time, "perf_counter_ns", iter(readings).__next__)
    assert environment.describe_environment()["clock"]["smallest_step_ns"] == step


def test_a_missing_library_is_null(monkeypatch):
    from importlib import metadata

    def version(name):
        if name == "numba":
            raise metadata.PackageNotFoundError(name)
        return "9.9"

    monkeypatch.setattr(metadata, "version", version)
    libraries = describe_environment()["libraries"]
    assert libraries["numba"] is None
    assert libraries["scipy"] == "9.9"


# CPU flags


def test_flags_are_those_that_every_core_has(linux):
    cpu = describe_environment({"cpuinfo": X86_CPUINFO}.get)["cpu"]
    assert cpu["flags"] == ["avx2", "fpu"]
    assert cpu["model"] == "Example(R) CPU @ 2.60GHz"


def test_arm_features_are_flags_and_numbers_name_the_model(linux):
    cpu = describe_environment({"cpuinfo": ARM_CPUINFO}.get)["cpu"]
    assert cpu["flags"] == ["asimd", "asimddp", "fp"]
    assert cpu["model"] == "implementer 0x41, part 0xd40"


@pytest.mark.parametrize(("machine", "flags"), [("arm64", frozenset({"asimd", "asimddp"})), ("x86_64", None)])
def test_apple_silicon_is_read_through_sysctl(monkeypatch, fresh_flags, machine, flags):
    said = "hw.optional.AdvSIMD: 1\nhw.optional.arm.FEAT_DotProd: 1\nhw.optional.arm.FEAT_I8MM: 0\n"
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(environment, "_output_of", lambda *command: said)
    assert cpu_flags() == flags


def test_flags_are_read_once(monkeypatch, fresh_flags):
    first = cpu_flags()
    monkeypatch.setattr(environment, "_flags", lambda read: frozenset({"other"}))
    assert cpu_flags() is first


def test_missing_flags_come_in_the_order_asked_for(monkeypatch):
    monkeypatch.setattr(environment, "cpu_flags", lambda: frozenset({"avx2", "fma"}))
    assert missing_cpu_flags(["sve", "avx2", "amx_int8"]) == ("sve", "amx_int8")
    assert missing_cpu_flags(flag for flag in ("avx2", "fma")) == ()


def test_unknown_flags_are_neither_present_nor_missing(monkeypatch):
    monkeypatch.setattr(environment, "cpu_flags", lambda: None)
    assert missing_cpu_flags(("avx2",)) is None
    assert missing_cpu_flags(()) == ()


def test_a_single_string_is_not_taken_for_flags():
    with pytest.raises(ValueError, match=r"`required` must hold names .* write \('avx2',\)"):
        missing_cpu_flags("avx2")


# Code revision


@pytest.fixture
def repository(tmp_path, monkeypatch):
    if shutil.which("git") is None:
        pytest.skip("no git on this machine")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    root = tmp_path / "repository"
    (root / "suites").mkdir(parents=True)
    (root / "suites" / "claims.py").write_text("first = 1\n")
    (root / ".gitignore").write_text("ignored.py\n")
    git(root, "init", "--quiet")
    git(root, "add", ".")
    git(root, "commit", "--quiet", "--message=first")
    return root


def git(root, *arguments):
    identity = ("-c", "user.name=tester", "-c", "user.email=tester@example.org")
    return subprocess.run(
        ["git", "-C", str(root), *identity, *arguments], check=True, capture_output=True, text=True
    ).stdout.strip()


def test_revision_of_a_file_and_of_a_folder_is_the_commit_of_its_repository(repository):
    expected = CodeRevision(git(repository, "rev-parse", "HEAD"), dirty=False)
    assert code_revision(repository / "suites" / "claims.py") == expected
    assert code_revision(repository / "suites") == expected


@pytest.mark.parametrize(
    ("file", "dirty"),
    [
        ("suites/claims.py", True),
        (".gitignore", True),
        ("new module.py", True),
        ("suites/deep/er/new.py", True),
        ("ignored.py", False),
        ("notes.txt", False),
    ],
)
def test_changes_and_new_python_files_make_it_dirty(repository, file, dirty):
    changed = repository / file
    changed.parent.mkdir(parents=True, exist_ok=True)
    with changed.open("a") as stream:
        stream.write("ignored.py\n")
    assert code_revision(repository / "suites").dirty is dirty


@pytest.mark.parametrize("command", [("rm", "suites/claims.py"), ("mv", "suites/claims.py", "moved.py")])
def test_staged_removals_and_renames_make_it_dirty(repository, command):
    git(repository, *command)
    assert code_revision(repository).dirty


def test_settings_that_hide_untracked_files_do_not_hide_them_here(repository):
    git(repository, "config", "status.showUntrackedFiles", "no")
    (repository / "new.py").touch()
    assert code_revision(repository).dirty


def test_variables_of_a_git_hook_do_not_lead_to_another_repository(repository, tmp_path, monkeypatch):
    other = tmp_path / "other"
    other.mkdir()
    git(other, "init", "--quiet")
    git(other, "commit", "--quiet", "--allow-empty", "--message=other")
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(other))
    found = code_revision(repository)
    monkeypatch.delenv("GIT_DIR")
    monkeypatch.delenv("GIT_WORK_TREE")
    assert found.commit == git(repository, "rev-parse", "HEAD")


def test_asking_leaves_the_index_as_it_was(repository):
    index = repository / ".git" / "index"
    os.utime(repository / "suites" / "claims.py", (1, 1))  # git would refresh its cache of this time
    before = index.read_bytes()
    code_revision(repository)
    assert index.read_bytes() == before


def test_there_is_no_revision_outside_a_repository_or_before_its_first_commit(repository, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    assert code_revision(empty) is None
    git(empty, "init", "--quiet")
    assert code_revision(empty) is None
    assert code_revision(tmp_path / "absent" / "file.py") is None
    assert code_revision(Path("null\0byte") / "file.py") is None


def test_there_is_no_revision_without_git_or_when_it_hangs(repository, monkeypatch):
    def hang(command, *, timeout, **options):
        raise subprocess.TimeoutExpired(command, timeout)

    with monkeypatch.context() as patch:
        patch.setattr(subprocess, "run", hang)
        assert code_revision(repository) is None
    monkeypatch.setenv("PATH", "")
    assert code_revision(repository) is None


# Snapshots


def stat(*, user=0, nice=0, system=0, idle=0, iowait=0, irq=0, softirq=0, steal=0, guest=0):
    ticks = (user, nice, system, idle, iowait, irq, softirq, steal, guest, 0)
    return {"stat": f"cpu  {' '.join(map(str, ticks))}\ncpu0 1 2 3\n"}.get


@pytest.mark.skipif(not hasattr(os, "sysconf"), reason="no tick length on this system")
def test_snapshot_sums_busy_ticks_and_keeps_steal_idle_and_guests_apart(monkeypatch):
    monkeypatch.setattr(os, "sysconf", {"SC_CLK_TCK": 100}.__getitem__)
    snapshot = take_snapshot(
        stat(user=100, nice=20, system=3, idle=5000, iowait=700, irq=40, softirq=5, steal=60, guest=90)
    )
    assert snapshot.busy_s == pytest.approx(1.68)
    assert snapshot.steal_s == pytest.approx(0.6)


@pytest.mark.parametrize(
    "content", [None, "", GARBAGE, "cpu 1 2 3\n", "cpu 1 2 3 4 5 6 7 -8\n", "cpu0 1 2 3 4 5 6 7 8\n"]
)
def test_snapshot_without_a_readable_stat_knows_nothing_of_the_machine(content):
    snapshot = take_snapshot(lambda name: content)
    assert (snapshot.busy_s, snapshot.steal_s) == (None, None)


def test_a_stat_file_of_zeros_counts_nothing():
    assert take_snapshot(stat()).busy_s is None


def test_snapshot_elsewhere_has_only_the_clocks(elsewhere):
    snapshot = take_snapshot(elsewhere)
    assert snapshot.wall_ns > 0
    assert snapshot.involuntary_switches is None
    assert snapshot.load_average is None
    assert activity_between(snapshot, take_snapshot(elsewhere)).other_cpu is None


def test_real_snapshots_move_forward():
    before = take_snapshot()
    sum(range(100_000))
    after = take_snapshot()
    assert after.wall_ns > before.wall_ns
    assert after.cpu_ns > before.cpu_ns


def test_snapshot_reads_the_clocks_and_switches_of_this_process(monkeypatch):
    usage = types.SimpleNamespace(ru_nvcsw=11, ru_nivcsw=22)
    monkeypatch.setattr(
        activity, "resource", types.SimpleNamespace(RUSAGE_SELF=0, getrusage={0: usage}.__getitem__)
    )
    monkeypatch.setattr(time, "perf_counter_ns", lambda: 33)
    monkeypatch.setattr(time, "process_time_ns", lambda: 44)
    snapshot = take_snapshot()
    assert (snapshot.voluntary_switches, snapshot.involuntary_switches) == (11, 22)
    assert (snapshot.wall_ns, snapshot.cpu_ns) == (33, 44)


def test_proc_files_that_cannot_be_read_are_none(tmp_path):
    assert activity.read_proc("no-such-file") is None
    assert activity.read_proc(".") is None
    odd = tmp_path / "odd"
    odd.write_bytes(b"\xff cpu")
    assert activity.read_proc(str(odd)) == "\ufffd cpu"


# Activity


BEFORE = Snapshot(
    wall_ns=1_000_000_000,
    cpu_ns=500_000_000,
    busy_s=100.0,
    steal_s=5.0,
    voluntary_switches=3,
    involuntary_switches=10,
    load_average=9.0,
    cores=2,
)


def later(**changes):
    """Two seconds later, with this process busy all the time and alone."""
    alone = {"wall_ns": 3_000_000_000, "cpu_ns": 2_500_000_000, "busy_s": 102.0, "load_average": 1.0}
    return dataclasses.replace(BEFORE, **(alone | changes))


def test_a_process_alone_on_the_machine():
    assert activity_between(BEFORE, later()) == Activity(
        duration_s=2.0,
        cpu_share=1.0,
        other_cpu=0.0,
        steal_share=0.0,
        involuntary_switches_per_s=0.0,
        load_average=1.0,
        cores=2,
    )


def test_rates_are_those_planted():
    found = activity_between(
        BEFORE, later(cpu_ns=2_300_000_000, busy_s=103.0, steal_s=6.0, involuntary_switches=110)
    )
    assert found.cpu_share == pytest.approx(0.9)
    assert found.other_cpu == pytest.approx(0.6)  # 3.0 s busy less 1.8 s own, in 2 s
    assert found.steal_share == pytest.approx(0.25)  # 1 s withheld of the 4 s asked for
    assert found.involuntary_switches_per_s == pytest.approx(50.0)


def test_ticks_that_lag_behind_the_own_time_are_no_negative_activity():
    assert activity_between(BEFORE, later(busy_s=101.98)).other_cpu == 0.0


def test_what_one_snapshot_lacks_the_activity_lacks():
    found = activity_between(
        dataclasses.replace(BEFORE, busy_s=None, involuntary_switches=None), later(load_average=None)
    )
    assert (found.other_cpu, found.steal_share, found.involuntary_switches_per_s) == (None, None, None)
    assert found.load_average is None
    assert found.cpu_share == 1.0


def test_no_time_has_no_rates_and_stays_strict_json():
    found = activity_between(BEFORE, BEFORE)
    assert found.duration_s == 0.0
    assert (found.cpu_share, found.other_cpu) == (None, None)
    json.dumps(dataclasses.asdict(found), allow_nan=False)


def test_swapped_snapshots_are_refused():
    with pytest.raises(ValueError, match=r"`after` must be the later snapshot, got one taken 2 s earlier"):
        activity_between(later(), BEFORE)


# Warnings

QUIET = Activity(1.0, cpu_share=0.999, other_cpu=0.05, steal_share=0.0, cores=2)


def warned(threads=1, **changes):
    return busy_warning(dataclasses.replace(QUIET, **changes), threads=threads)


def test_a_quiet_machine_is_not_warned_about():
    assert warned() is None


def test_a_competitor_on_the_same_core_is_described_with_what_it_cost():
    assert warned(other_cpu=0.8, cpu_share=0.86) == (
        "the machine was busy: other programs kept 0.8 of 2 cores busy "
        "and this process lost 14% of its time; rerun on an idle machine"
    )


def test_all_three_signs_make_one_sentence():
    assert warned(other_cpu=1.0, cpu_share=0.5, steal_share=0.2) == (
        "the machine was busy: other programs kept 1.0 of 2 cores busy, the hypervisor withheld 20% "
        "of the CPU time and this process lost 50% of its time; rerun on an idle machine"
    )


@pytest.mark.parametrize(
    ("changes", "loud"),
    [
        ({"other_cpu": 0.5}, False),
        ({"other_cpu": 0.51}, True),
        ({"cpu_share": 0.901}, False),
        ({"cpu_share": 0.899}, True),
        ({"steal_share": 0.02, "duration_s": 100.0}, False),
        ({"steal_share": 0.021, "duration_s": 100.0}, True),
        ({"other_cpu": 3.0, "duration_s": 0.049}, False),
        ({"other_cpu": 3.0, "duration_s": 0.051}, True),
        ({"other_cpu": None, "steal_share": None}, False),
        ({"cpu_share": None, "other_cpu": None, "steal_share": None}, False),
    ],
)
def test_limits_of_a_busy_machine(changes, loud):
    assert (warned(**changes) is not None) is loud


def test_without_a_count_of_cores_none_is_mentioned():
    assert "other programs kept 0.8 cores busy" in warned(other_cpu=0.8, cores=None)


def test_time_lost_without_competitors_leaves_room_for_code_that_waits():
    assert "unless the measured code sleeps" in warned(cpu_share=0.3)


@pytest.mark.parametrize("threads", [2, "all"])
def test_lost_time_is_no_sign_when_several_threads_wait_for_each_other(threads):
    assert warned(cpu_share=0.5, threads=threads) is None
    assert "lost" not in warned(cpu_share=0.5, other_cpu=0.9, threads=threads)


def test_one_stray_tick_of_steal_is_not_a_thief():
    busy_s, tick = 0.1, 0.01
    assert warned(duration_s=busy_s, other_cpu=0.0, steal_share=tick / (busy_s + tick)) is None
    assert "withheld" in warned(duration_s=busy_s, other_cpu=0.0, steal_share=3 * tick / (busy_s + 3 * tick))

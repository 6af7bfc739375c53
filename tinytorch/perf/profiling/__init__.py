"""Profiling: time, memory and floating-point operations of code, of layers and of operations."""

from tinytorch.perf.profiling.decorator import profile as profile
from tinytorch.perf.profiling.flops import FLOPCount as FLOPCount
from tinytorch.perf.profiling.flops import FLOPCounter as FLOPCounter
from tinytorch.perf.profiling.flops import count_flops as count_flops
from tinytorch.perf.profiling.formulas import Work as Work
from tinytorch.perf.profiling.machine import Machine as Machine
from tinytorch.perf.profiling.machine import measure_machine as measure_machine
from tinytorch.perf.profiling.memory import MemoryProfiler as MemoryProfiler
from tinytorch.perf.profiling.memory import MemoryTracker as MemoryTracker
from tinytorch.perf.profiling.memory import Snapshot as Snapshot
from tinytorch.perf.profiling.profiler import Profiler as Profiler
from tinytorch.perf.profiling.roofline import Roofline as Roofline
from tinytorch.perf.profiling.rows import Row as Row
from tinytorch.perf.profiling.timer import Timer as Timer

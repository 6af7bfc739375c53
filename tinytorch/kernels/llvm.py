"""What code that is written for LLVM directly has in common.

Addresses are plain integers and nothing is checked: whoever calls has to. This module imports numba, so
import it only where a kernel is compiled.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import cgutils
from numba.extending import intrinsic as numba_intrinsic

# Numba has no types for these, and a wrong one for its decorator.
cg: Any = cgutils
intrinsic: Any = numba_intrinsic

BYTE, SHORT, INT, LONG = (ir.IntType(bits) for bits in (8, 16, 32, 64))
FLOAT = ir.FloatType()


def load(b: ir.IRBuilder, kind: ir.Type, address: Any, alignment: int = 4) -> Any:
    """Load a number or a vector."""
    value = b.load(b.inttoptr(address, kind.as_pointer()))
    value.align = alignment
    return value


def store(b: ir.IRBuilder, value: Any, address: Any) -> None:
    """Store a number or a vector of four-byte numbers."""
    b.store(value, b.inttoptr(address, value.type.as_pointer())).align = 4


def splat(b: ir.IRBuilder, kind: Any, number: Any) -> Any:
    """Return a vector that holds `number` in every lane."""
    undefined = ir.Constant(kind, ir.Undefined)
    one = b.insert_element(undefined, number, INT(0))
    return b.shuffle_vector(one, undefined, ir.Constant(ir.VectorType(INT, kind.count), None))


def function(b: ir.IRBuilder, name: str, result: ir.Type, arguments: list[ir.Type]) -> Any:
    """Return one of LLVM's own functions."""
    return cg.get_or_insert_function(b.module, ir.FunctionType(result, arguments), name)


def multiply_add(b: ir.IRBuilder, kind: Any) -> Callable[[Any, Any, Any], Any]:
    """Return `x * y + z` for vectors: fused where the processor can, otherwise a product and a sum."""
    fused = function(b, f"llvm.fmuladd.v{kind.count}f32", kind, [kind] * 3)
    return lambda x, y, z: b.call(fused, [x, y, z])

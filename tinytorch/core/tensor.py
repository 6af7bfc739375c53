"""The tensor: an array of 32-bit floats with NumPy's arithmetic and broadcasting rules."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from tinytorch.kernels import FloatArray, float32_array, product_error

Axis = int | tuple[int, ...] | None


class Tensor:
    """An array of float32 numbers of any shape.

    `data` is a writable ndarray that belongs to this tensor, and `grad` is None or an ndarray of the
    same shape.

    Args:
        data: a number, nested lists, an array or a Tensor; it is copied, and integers become float32.
        requires_grad: whether a gradient is wanted for this tensor.

    Raises:
        ValueError: `data` is ragged or holds anything but real numbers.
    """

    __array_ufunc__ = None  # lets `array + tensor` come to __radd__ rather than to NumPy

    def __init__(self, data: Any, requires_grad: bool = False) -> None:
        self.data: FloatArray = np.array(float32_array(data, "data"), order="C")
        self.grad: FloatArray | None = None
        self.requires_grad = requires_grad

    @property
    def shape(self) -> tuple[int, ...]:
        """The length of every axis."""
        return self.data.shape

    @property
    def size(self) -> int:
        """The number of elements."""
        return self.data.size

    @property
    def dtype(self) -> np.dtype[np.float32]:
        """The type of the elements, always float32."""
        return self.data.dtype

    def numpy(self) -> FloatArray:
        """Return the array itself, not a copy."""
        return self.data

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        return np.array(self.data, dtype=dtype, copy=copy)

    def __add__(self, other: Any) -> Tensor:
        return _elementwise(np.add, self, other)

    def __radd__(self, other: Any) -> Tensor:
        return _elementwise(np.add, other, self)

    def __sub__(self, other: Any) -> Tensor:
        return _elementwise(np.subtract, self, other)

    def __rsub__(self, other: Any) -> Tensor:
        return _elementwise(np.subtract, other, self)

    def __mul__(self, other: Any) -> Tensor:
        return _elementwise(np.multiply, self, other)

    def __rmul__(self, other: Any) -> Tensor:
        return _elementwise(np.multiply, other, self)

    def __truediv__(self, other: Any) -> Tensor:
        return _elementwise(np.divide, self, other)

    def __rtruediv__(self, other: Any) -> Tensor:
        return _elementwise(np.divide, other, self)

    def __neg__(self) -> Tensor:
        return wrap(-self.data)

    def __matmul__(self, other: Any) -> Tensor:
        return _product(self, other)

    def __rmatmul__(self, other: Any) -> Tensor:
        return _product(other, self)

    def matmul(self, other: Any) -> Tensor:
        """Multiply `self @ other`, shapes (..., m, k) and (..., k, n) to (..., m, n).

        Leading axes broadcast as in NumPy, and so do vectors.

        Raises:
            ValueError: the inner sizes differ, the batch shapes do not broadcast, or one side is a number.
        """
        return _product(self, other)

    @property
    def T(self) -> Tensor:  # noqa: N802 - NumPy's name
        """The last two axes swapped."""
        return self.transpose()

    def transpose(self, dim0: int | None = None, dim1: int | None = None) -> Tensor:
        """Swap two axes, the last two unless both are named; the result shares memory with this tensor.

        With no axes named, a tensor of fewer than two axes stays as it is.

        Raises:
            ValueError: only one axis is named, or an axis that does not exist.
        """
        if dim0 is None and dim1 is None:
            return wrap(self.data if self.data.ndim < 2 else self.data.swapaxes(-2, -1))
        if dim0 is None or dim1 is None:
            raise ValueError(f"`dim0` and `dim1` must be given together, got {dim0} and {dim1}")
        return wrap(self.data.swapaxes(dim0, dim1))

    def reshape(self, *shape: int | tuple[int, ...]) -> Tensor:
        """Return the elements in another shape, given as numbers or as one tuple; one may be -1."""
        return wrap(self.data.reshape(*shape))

    def sum(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        """Add up all elements, or those along `axis`."""
        return wrap(self.data.sum(axis=axis, keepdims=keepdims))

    def mean(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        """Average all elements, or those along `axis`."""
        return wrap(self.data.mean(axis=axis, keepdims=keepdims))

    def max(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        """Return the largest of all elements, or of those along `axis`."""
        return wrap(self.data.max(axis=axis, keepdims=keepdims))

    def __getitem__(self, key: Any) -> Tensor:
        return wrap(self.data[key])

    def __len__(self) -> int:
        return len(self.data)

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self)))

    def __float__(self) -> float:
        return float(self.data.item())

    def __repr__(self) -> str:
        name = type(self).__name__
        numbers = np.array2string(self.data, separator=", ", prefix=f"{name}(")
        return f"{name}({numbers}, requires_grad=True)" if self.requires_grad else f"{name}({numbers})"


class Parameter(Tensor):
    """A tensor that training adjusts: one that requires a gradient."""

    def __init__(self, data: Any) -> None:
        super().__init__(data, requires_grad=True)


def wrap(array: Any) -> Tensor:
    """Put a float32 result of NumPy into a tensor, without the copy and the checks of `Tensor(array)`."""
    tensor = Tensor.__new__(Tensor)
    tensor.data = np.asarray(array)  # a sum over all axes is a NumPy scalar, not an array
    tensor.grad = None
    tensor.requires_grad = False
    return tensor


def array_of(data: Any, name: str) -> FloatArray:
    """Return the array of a Tensor, or any other `data` as a float32 array.

    Raises:
        ValueError: `data`, called `name` in the message, is ragged or holds anything but real numbers.
    """
    return data.data if isinstance(data, Tensor) else float32_array(data, name)


def _elementwise(operation: Callable[[Any, Any], Any], left: Any, right: Any) -> Tensor:
    return wrap(operation(_operand(left), _operand(right)))


def _operand(value: Any) -> Any:
    # A Python number takes the type of the array beside it; np.float64 would not, but is a float too.
    return float(value) if isinstance(value, int | float) else array_of(value, "operand")


def _product(left: Any, right: Any) -> Tensor:
    a, b = array_of(left, "left operand"), array_of(right, "right operand")
    try:
        return wrap(np.matmul(a, b))
    except ValueError:
        raise product_error(a.shape, b.shape) from None

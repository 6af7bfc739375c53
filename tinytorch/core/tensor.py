"""The tensor: an array of 32-bit floats that knows how it was computed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from typing import Any

import numpy as np

from tinytorch.core import derivatives
from tinytorch.core.autograd import Array, Node, Watch, backward, recording
from tinytorch.core.derivatives import Axis, Rule
from tinytorch.kernels import FloatArray, float32_array, product_error
from tinytorch.kernels.memory import keep_freed_memory

# Every operation makes new arrays, and almost all of them are as large as some that were just freed.
keep_freed_memory()

#: runs operations and layers and takes notes, or is None; for this thread, or this asynchronous task. Set by
#: `tinytorch.perf.profiling`.
OBSERVER: ContextVar[Any] = ContextVar("observer", default=None)


class Tensor:
    """An array of float32 numbers of any shape, and what is needed to differentiate it.

    Operations follow NumPy: the same names, the same broadcasting. Their results share memory with
    their inputs where NumPy's do (`reshape`, `transpose`, slices). Comparisons give tensors of booleans,
    which index as masks do.

    Args:
        data: a number, nested lists, an array or a Tensor; it is copied, and integers become float32.
        requires_grad: whether `backward()` shall leave a gradient here.

    Attributes:
        grad: None, or the gradient as an ndarray of the same shape. Gradients add up until
            `zero_grad()`. Any buffer of that shape may be assigned.
        requires_grad: true also for what is computed from a tensor that requires a gradient.

    Raises:
        ValueError: `data` is ragged or holds anything but real numbers.
    """

    __array_ufunc__ = None  # lets `array + tensor` come to __radd__ rather than to NumPy
    __slots__ = ("__weakref__", "_array", "_node", "_source", "_watch", "grad", "requires_grad")

    def __init__(self, data: Any, requires_grad: bool = False) -> None:
        self._array: FloatArray = np.array(float32_array(data, "data"), order="C")
        self._node: Node | None = None
        self._source: Tensor | None = None  # the tensor whose memory this one shares
        self._watch: Watch | None = None
        self.grad: Any = None
        self.requires_grad = requires_grad

    @property
    def data(self) -> FloatArray:
        """The ndarray itself: what is written into it, the next operation sees.

        A tensor that a result was computed from must not change before `backward()` on that result;
        if it did, `backward()` raises RuntimeError.
        """
        tensor: Tensor | None = self
        while tensor is not None:
            if tensor._watch is not None:
                tensor._watch.touched()
            tensor = tensor._source
        return self._array

    @data.setter
    def data(self, value: Any) -> None:
        self._array = float32_array(value, "data")
        self._source = self._watch = None  # graphs keep the array that was here

    @property
    def shape(self) -> tuple[int, ...]:
        """The length of every axis."""
        return self._array.shape

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return self._array.ndim

    @property
    def size(self) -> int:
        """The number of elements."""
        return self._array.size

    @property
    def dtype(self) -> np.dtype[np.float32]:
        """The type of the elements: float32, or bool after a comparison."""
        return self._array.dtype

    def numpy(self) -> FloatArray:
        """Return the array itself, not a copy."""
        return self.data

    def item(self) -> float:
        """Return the only element as a Python number.

        Raises:
            ValueError: there is not exactly one element.
        """
        if self.size != 1:
            raise ValueError(f"item() needs a tensor of one element, got shape {self.shape}")
        return float(self._array.item())

    def tolist(self) -> Any:
        """Return the elements as nested lists of Python numbers."""
        return self._array.tolist()

    def detach(self) -> Tensor:
        """Return the same data, sharing memory, without its history."""
        detached = wrap(self._array)
        detached._source = self
        return detached

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        return np.array(self.data, dtype=dtype, copy=copy)

    # --- gradients

    def backward(self, gradient: Any = None, retain_graph: bool = False) -> None:
        """Add to the `grad` of every tensor that this one was computed from.

        Args:
            gradient: the derivative of something with respect to this tensor, in its shape; 1 where
                this tensor is a single number.
            retain_graph: allow a further `backward()` through the same operations.

        Raises:
            ValueError: `gradient` is missing or has another shape.
            RuntimeError: nothing here requires a gradient, the operations were differentiated before,
                or a tensor they need changed in place since.
        """
        if not self.requires_grad:
            raise RuntimeError(
                "backward() needs a result that was computed from a tensor with requires_grad=True, and not "
                "under no_grad()"
            )
        start = self._start(gradient)
        if self._node is None:
            self.accumulate(start, owned=False)
        else:
            backward(self._node, start, retain_graph)

    def zero_grad(self) -> None:
        """Forget the gradient."""
        self.grad = None

    def accumulate(self, gradient: Array, owned: bool) -> None:
        """Add to `grad`; an `owned` array may be kept as it is, any other is copied."""
        if self.grad is not None:
            self.grad = np.add(self.grad, gradient, dtype=self._array.dtype)
        elif owned and gradient.dtype == self._array.dtype:
            self.grad = gradient
        else:
            self.grad = np.array(gradient, self._array.dtype, order="C")

    def _start(self, gradient: Any) -> Array:
        if gradient is None:
            if self.size != 1:
                raise ValueError(
                    f"backward() on shape {self.shape} needs `gradient`, an array of that shape: only a "
                    "single number has a gradient by itself"
                )
            return np.ones(self.shape, self._array.dtype)
        start = gradient.data if isinstance(gradient, Tensor) else np.asarray(gradient, self._array.dtype)
        if start.shape != self.shape:
            raise ValueError(f"`gradient` must have the shape {self.shape} of this tensor, got {start.shape}")
        return start

    # --- arithmetic

    def __add__(self, other: Any) -> Tensor:
        return apply(derivatives.add, self, _operand(other))

    def __radd__(self, other: Any) -> Tensor:
        return apply(derivatives.add, _operand(other), self)

    def __sub__(self, other: Any) -> Tensor:
        return apply(derivatives.subtract, self, _operand(other))

    def __rsub__(self, other: Any) -> Tensor:
        return apply(derivatives.subtract, _operand(other), self)

    def __mul__(self, other: Any) -> Tensor:
        return apply(derivatives.multiply, self, _operand(other))

    def __rmul__(self, other: Any) -> Tensor:
        return apply(derivatives.multiply, _operand(other), self)

    def __truediv__(self, other: Any) -> Tensor:
        return apply(derivatives.divide, self, _operand(other))

    def __rtruediv__(self, other: Any) -> Tensor:
        return apply(derivatives.divide, _operand(other), self)

    def __neg__(self) -> Tensor:
        return apply(derivatives.negative, self)

    def __pow__(self, exponent: float) -> Tensor:
        if not isinstance(exponent, int | float | np.integer | np.floating):
            raise ValueError(
                f"`exponent` must be a number, got {type(exponent).__name__}: use (y * x.log()).exp()"
            )
        return apply(derivatives.power, self, float(exponent))

    def __matmul__(self, other: Any) -> Tensor:
        return _product(self, as_tensor(other, "right operand"))

    def __rmatmul__(self, other: Any) -> Tensor:
        return _product(as_tensor(other, "left operand"), self)

    def matmul(self, other: Any) -> Tensor:
        """Multiply `self @ other`, shapes (..., m, k) and (..., k, n) to (..., m, n).

        Leading axes broadcast as in NumPy, and so do vectors.

        Raises:
            ValueError: the inner sizes differ, the batch shapes do not broadcast, or one side is a number.
        """
        return _product(self, as_tensor(other, "right operand"))

    def __abs__(self) -> Tensor:
        return self.abs()

    def exp(self) -> Tensor:
        """Return e to the power of each element."""
        return apply(derivatives.exp, self)

    def log(self) -> Tensor:
        """Return the natural logarithm of each element."""
        return apply(derivatives.log, self)

    def sqrt(self) -> Tensor:
        """Return the square root of each element."""
        return apply(derivatives.sqrt, self)

    def abs(self) -> Tensor:
        """Return the absolute value of each element."""
        return apply(derivatives.absolute, self)

    def clip(self, low: float | None = None, high: float | None = None) -> Tensor:
        """Hold each element between `low` and `high`; None is no bound.

        Raises:
            ValueError: no bound at all, or `low` above `high`.
        """
        if low is None and high is None:
            raise ValueError("clip() needs `low`, `high` or both, got neither")
        if low is not None and high is not None and low > high:
            raise ValueError(f"`low` must not be above `high`, got {low} and {high}")
        return apply(derivatives.clip, self, low, high)

    # --- comparisons

    def __eq__(self, other: object) -> Any:
        return wrap(np.equal(self._array, _values(other)))

    def __ne__(self, other: object) -> Any:
        return wrap(np.not_equal(self._array, _values(other)))

    def __lt__(self, other: Any) -> Tensor:
        return wrap(np.less(self._array, _values(other)))

    def __le__(self, other: Any) -> Tensor:
        return wrap(np.less_equal(self._array, _values(other)))

    def __gt__(self, other: Any) -> Tensor:
        return wrap(np.greater(self._array, _values(other)))

    def __ge__(self, other: Any) -> Tensor:
        return wrap(np.greater_equal(self._array, _values(other)))

    __hash__ = object.__hash__

    def __bool__(self) -> bool:
        if self.size != 1:
            raise ValueError(
                f"a tensor of shape {self.shape} is neither true nor false: use .all() or .any() of .numpy()"
            )
        return bool(self._array.item())

    # --- shapes

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
        axes = list(range(self.ndim))
        if dim0 is None and dim1 is None:
            axes[-2:] = reversed(axes[-2:])
        elif dim0 is None or dim1 is None:
            raise ValueError(f"`dim0` and `dim1` must be given together, got {dim0} and {dim1}")
        else:
            first, second = self._axis(dim0, "dim0"), self._axis(dim1, "dim1")
            axes[first], axes[second] = axes[second], axes[first]
        return apply(derivatives.permute, self, tuple(axes))

    def permute(self, *axes: int | Sequence[int]) -> Tensor:
        """Put the axes into the given order, all of them named once; the result shares memory.

        Raises:
            ValueError: an axis is missing, repeated or does not exist.
        """
        given = _flat(axes)
        order = tuple(self._axis(axis, "axes") for axis in given)
        if sorted(order) != list(range(self.ndim)):
            raise ValueError(f"`axes` must name each of the {self.ndim} axes once, got {given}")
        return apply(derivatives.permute, self, order)

    def reshape(self, *shape: int | Sequence[int]) -> Tensor:
        """Return the elements in another shape, given as numbers or as one tuple; one may be -1.

        Raises:
            ValueError: the shape holds another number of elements.
        """
        target = _flat(shape)
        try:
            return apply(derivatives.reshape, self, target)
        except ValueError:
            raise ValueError(
                f"cannot reshape {self.size} elements of shape {self.shape} into {target}"
            ) from None

    def __getitem__(self, key: Any) -> Tensor:
        return apply(derivatives.getitem, self, _index(key))

    def __len__(self) -> int:
        return len(self._array)

    def __iter__(self) -> Iterator[Tensor]:
        return (self[index] for index in range(len(self._array)))

    # --- reductions

    def sum(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        """Add up all elements, or those along `axis`, a number or a tuple of them."""
        return apply(derivatives.sum_, _counting(self), axis, keepdims)

    def mean(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        """Average all elements, or those along `axis`."""
        return apply(derivatives.mean, _counting(self), axis, keepdims)

    def max(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        """Return the largest of all elements, or of those along `axis`."""
        return apply(derivatives.max_, self, axis, keepdims)

    def min(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        """Return the smallest of all elements, or of those along `axis`."""
        return apply(derivatives.min_, self, axis, keepdims)

    def argmax(self, axis: int | None = None) -> Any:
        """Return the index of the largest element along `axis`, or in the flattened tensor, as integers."""
        return self._array.argmax(axis=axis)

    def __float__(self) -> float:
        return self.item()

    def __repr__(self) -> str:
        name = type(self).__name__
        numbers = np.array2string(self._array, separator=", ", prefix=f"{name}(")
        return f"{name}({numbers}, requires_grad=True)" if self.requires_grad else f"{name}({numbers})"

    def _axis(self, axis: int, name: str) -> int:
        if not -self.ndim <= axis < self.ndim:
            raise ValueError(f"`{name}` must name one of {self.ndim} axes, got {axis} for shape {self.shape}")
        return axis % self.ndim


Variable = Tensor


class Parameter(Tensor):
    """A tensor that training adjusts: one that requires a gradient."""

    __slots__ = ()

    def __init__(self, data: Any) -> None:
        super().__init__(data, requires_grad=True)


def apply(rule: Rule, *inputs: Any, **options: Any) -> Tensor:
    """Run one operation: the only way in which tensors are computed from tensors.

    Args:
        rule: see `derivatives`.
        inputs: what the rule takes; the Tensors among them are differentiated.
        options: passed on to the rule.
    """
    observer = OBSERVER.get()
    if not recording():  # half of what follows has nothing to do then
        given = [x._array if isinstance(x, Tensor) else x for x in inputs]
        out = (rule(*given, **options) if observer is None else observer.operation(rule, given, options))[0]
        result = wrap(out)
        if out.base is not None:
            result._source = _source_of(out, inputs)
        return result
    arrays: list[Any] = []
    parents: list[Tensor | Node | None] = []
    wanted = False
    for x in inputs:
        if isinstance(x, Tensor):
            arrays.append(x._array)
            parents.append((x._node or x) if x.requires_grad else None)
            wanted = wanted or x.requires_grad
        else:
            arrays.append(x)
            parents.append(None)
    out, vjps = rule(*arrays, **options) if observer is None else observer.operation(rule, arrays, options)
    result = wrap(out)
    if out.base is not None:
        result._source = _source_of(out, inputs)
    if wanted:
        watches = [_watched(x) for x in inputs if isinstance(x, Tensor)]
        result._node = Node(rule.__name__, result._array.shape, vjps, parents, watches)
        differentiating = getattr(observer, "differentiating", None)
        if differentiating is not None:
            result._node.through = differentiating()
        result.requires_grad = True
    return result


def wrap(array: Any) -> Tensor:
    """Put a result of NumPy into a tensor, without the copy and the checks of `Tensor(array)`."""
    tensor = Tensor.__new__(Tensor)
    # A sum over all axes is a scalar.
    tensor._array = array if type(array) is np.ndarray else np.asarray(array)
    tensor._node = None
    tensor._source = None
    tensor._watch = None
    tensor.grad = None
    tensor.requires_grad = False
    return tensor


def as_tensor(value: Any, name: str) -> Tensor:
    """Return a Tensor as it is, and anything else, called `name` in errors, as a new one.

    Raises:
        ValueError: `value` is ragged or holds anything but real numbers.
    """
    return value if isinstance(value, Tensor) else wrap(float32_array(value, name))


def array_of(data: Any, name: str) -> FloatArray:
    """Return the array of a Tensor, or any other `data` as a float32 array.

    Raises:
        ValueError: `data`, called `name` in the message, is ragged or holds anything but real numbers.
    """
    return data.data if isinstance(data, Tensor) else float32_array(data, name)


def concatenate(tensors: Sequence[Any], axis: int = 0) -> Tensor:
    """Put tensors one after the other along an existing axis.

    Raises:
        ValueError: there are none, or their other axes differ.
    """
    parts = [as_tensor(item, "tensors") for item in tensors]
    if not parts:
        raise ValueError("`tensors` must hold at least one tensor, got none")
    shapes = [part.shape for part in parts]
    along = parts[0]._axis(axis, "axis")
    if len({shape[:along] + shape[along + 1 :] for shape in shapes}) > 1:
        raise ValueError(
            f"`tensors` must agree in all axes but {axis}, got shapes {', '.join(map(str, shapes))}"
        )
    return apply(derivatives.concatenate, *parts, axis=along)


def _watched(tensor: Tensor) -> Watch:
    watch = tensor._watch
    if watch is None or watch.checksum is not None:  # handed out since: it may have changed before now
        watch = tensor._watch = Watch(tensor._array)
    return watch


def _source_of(out: Array, inputs: tuple[Any, ...]) -> Tensor | None:
    """Return the tensor that `out` is a view of, if it is."""
    for x in inputs:
        if isinstance(x, Tensor) and (
            x._array is out.base or (x._array.base is not None and x._array.base is out.base)
        ):
            return x
    return None


def _operand(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value
    # A Python number takes the type of the array beside it; np.float64 would not, but is a float too.
    return float(value) if isinstance(value, int | float) else float32_array(value, "operand")


def _values(value: Any) -> Any:
    return value._array if isinstance(value, Tensor) else _operand(value)


def _counting(tensor: Tensor) -> Tensor:
    """Return a tensor of booleans as zeros and ones, any other as it is."""
    return wrap(tensor._array.astype(np.float32)) if tensor._array.dtype == bool else tensor


def _product(left: Tensor, right: Tensor) -> Tensor:
    try:
        return apply(derivatives.matmul, left, right)
    except ValueError:
        raise product_error(left.shape, right.shape) from None


def _flat(numbers: tuple[Any, ...]) -> tuple[int, ...]:
    """Return `1, 2` and `(1, 2)` alike as a tuple."""
    return tuple(numbers[0]) if len(numbers) == 1 and isinstance(numbers[0], tuple | list) else numbers


def _index(key: Any) -> Any:
    if isinstance(key, tuple):
        return tuple(_index(item) for item in key)
    if not isinstance(key, Tensor):
        return np.asarray(key) if isinstance(key, list) else key
    if key._array.dtype == bool:
        return key._array
    from tinytorch.core.checks import whole_numbers

    return whole_numbers(key, "index")

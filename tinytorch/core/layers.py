"""Layers: the base class, and those that know nothing of images or text."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from tinytorch.core.autograd import Array, Vjp, Vjps
from tinytorch.core.chains import link, through
from tinytorch.core.checks import fraction, positive, positive_int
from tinytorch.core.random import generator, spawned
from tinytorch.core.tensor import OBSERVER, Parameter, Tensor, apply, as_tensor
from tinytorch.kernels import FloatArray, layernorm
from tinytorch.kernels.products import product


class Layer:
    """Base class: a function of tensors with parameters.

    Parameters, layers, and lists or tuples of layers that are attributes belong to the layer, in the
    order in which they were assigned; nothing has to be registered. A subclass defines `forward`.

    Attributes:
        training: whether layers such as Dropout behave as they do in training; see `train`.
        buffers: names of the attributes that are arrays which training changes without a gradient.
    """

    buffers: tuple[str, ...] = ()
    training: bool = True

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        """Compute the output; see `forward`."""
        observer = OBSERVER.get()
        if observer is None:
            return self.forward(*args, **kwargs)
        result: Tensor = observer.layer(self, args, kwargs)
        return result

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """Compute the output; subclasses say of what."""
        raise NotImplementedError(f"{type(self).__name__} must define forward()")

    def children(self) -> Iterator[tuple[str, Layer]]:
        """Yield the layers directly inside this one, with their names ("blocks.0" in a list)."""
        for name, value in vars(self).items():
            if isinstance(value, Layer):
                yield name, value
            elif isinstance(value, list | tuple):
                yield from ((f"{name}.{i}", item) for i, item in enumerate(value) if isinstance(item, Layer))

    def named_layers(self, prefix: str = "") -> Iterator[tuple[str, Layer]]:
        """Yield this layer and all inside it, each once, with dotted names; this one is called ""."""
        return _walk(self, prefix, set())

    def named_parameters(self) -> list[tuple[str, Parameter]]:
        """Return every parameter once, also one that several layers share, with its dotted name."""
        named: dict[int, tuple[str, Parameter]] = {}
        for path, layer in self.named_layers():
            for name, value in vars(layer).items():
                if isinstance(value, Parameter):
                    named.setdefault(id(value), (_join(path, name), value))
        return list(named.values())

    def parameters(self) -> list[Parameter]:
        """Return every parameter once."""
        return [parameter for _, parameter in self.named_parameters()]

    def zero_grad(self) -> None:
        """Forget the gradients of all parameters."""
        for parameter in self.parameters():
            parameter.zero_grad()

    def train(self, mode: bool = True) -> Self:
        """Put this layer and all inside it into training mode, and return it."""
        for _, layer in self.named_layers():
            layer.training = mode
        return self

    def eval(self) -> Self:
        """Put this layer and all inside it into evaluation mode, and return it."""
        return self.train(False)

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """Return copies of all parameters and buffers, and of weights that are stored otherwise, by name."""
        return {name: array.copy() for name, array in self._state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Copy out of what `state_dict` returned.

        Raises:
            ValueError: names, shapes or types differ, or a layer has no use for its arrays; then nothing was
                changed.
        """
        for change in self.state_changes(state):
            change()

    def state_changes(self, state: Mapping[str, Any]) -> list[Callable[[], None]]:
        """Return what `load_state_dict` has to do, after all checks; it raises what that does."""
        own = dict(self._state())
        _check_names(own, state)
        loaded = {name: _fitting(name, state[name], array) for name, array in own.items()}
        changes: list[Callable[[], None]] = [
            functools.partial(_overwrite, p.data, loaded[name]) for name, p in self.named_parameters()
        ]
        for path, layer in self.named_layers():
            if names := layer.own_state():
                arrays = {name: loaded[_join(path, name)] for name in names}
                try:
                    changes.append(layer.own_changes(arrays))
                except ValueError as error:
                    raise ValueError(f"`state` does not fit {path or layer!r}: {error}") from error
        return changes

    def own_state(self) -> dict[str, NDArray[Any]]:
        """Return the arrays that belong to the state of this very layer beside parameters: its buffers."""
        return {name: getattr(self, name) for name in self.buffers}

    def own_changes(self, state: Mapping[str, NDArray[Any]]) -> Callable[[], None]:
        """Return what puts arrays of the names, shapes and types of `own_state` into the layer.

        Raises:
            ValueError: the layer has no use for them; a subclass says why.
        """
        targets = self.own_state()

        def change() -> None:
            for name, array in targets.items():
                array[...] = state[name]

        return change

    def _state(self) -> Iterator[tuple[str, NDArray[Any]]]:
        yield from ((name, parameter.data) for name, parameter in self.named_parameters())
        for path, layer in self.named_layers():
            yield from ((_join(path, name), array) for name, array in layer.own_state().items())

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class Linear(Layer):
    """`y = x @ weight + bias`.

    Args:
        in_features: length of the last axis of the input.
        out_features: length of the last axis of the output.
        bias: whether there is one; it starts at zero.
        rng: for the weights, which are uniform within sqrt(6 / (in + out)) of zero (Glorot and Bengio 2010).

    Attributes:
        weight: shape (in_features, out_features).
        bias: shape (out_features,), or None.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        rng: np.random.Generator | None = None,
    ) -> None:
        self.in_features = positive_int(in_features, "in_features")
        self.out_features = positive_int(out_features, "out_features")
        bound = np.sqrt(6 / (self.in_features + self.out_features))
        self.weight = Parameter(generator(rng).uniform(-bound, bound, (self.in_features, self.out_features)))
        self.bias = Parameter(np.zeros(self.out_features)) if bias else None

    def forward(self, x: Any) -> Tensor:
        """Map (..., in_features) to (..., out_features).

        Raises:
            ValueError: the last axis of `x` has another length.
        """
        inputs = as_tensor(x, "x")
        if inputs.shape[-1:] != (self.in_features,):
            raise ValueError(f"{self!r} expects shape (..., {self.in_features}), got {inputs.shape}")
        if self.bias is None:
            return apply(linear, inputs, self.weight)
        return apply(linear, inputs, self.weight, self.bias)

    def __repr__(self) -> str:
        return f"Linear({self.in_features}, {self.out_features})"


def linear(x: Array, weight: Array, bias: Array | None = None) -> tuple[Array, tuple[Vjp, ...]]:
    """Rule of `x @ weight + bias`: (..., in), (in, out) and (out,) to (..., out)."""
    if x.ndim != 2:  # a matrix goes to BLAS as one product, a stack as many
        out, vjps = linear(x.reshape(-1, x.shape[-1]), weight, bias)
        shaped = out.reshape(*x.shape[:-1], weight.shape[1])
        return shaped, tuple(
            _of_rows(vjp, out.shape, x.shape if i == 0 else None) for i, vjp in enumerate(vjps)
        )
    out = product(x, weight)
    if bias is None:
        return out, (lambda g: g @ weight.T, lambda g: x.T @ g)
    out += bias
    return out, (lambda g: g @ weight.T, lambda g: x.T @ g, lambda g: _ones(len(g), g.dtype.char) @ g)


def _linked(layer: Linear, x: FloatArray, _: bool) -> FloatArray | None:
    if x.ndim != 2 or x.shape[1] != layer.in_features:
        return None
    out: FloatArray = product(x, layer.weight._array)
    if layer.bias is not None:
        out += layer.bias._array
    return out


link(Linear, _linked)


@functools.lru_cache(maxsize=64)
def _ones(length: int, kind: str) -> Array:
    """Return ones, whose product with a matrix adds up its rows: quicker than `sum(axis=0)`, 2 to 4 times."""
    return np.ones(length, kind)


def _of_rows(vjp: Vjp, rows: tuple[int, ...], shape: tuple[int, ...] | None) -> Vjp:
    """Return `vjp`, which takes a matrix of rows, for gradients of more axes."""
    if shape is None:
        return lambda g: vjp(g.reshape(rows))
    return lambda g: vjp(g.reshape(rows)).reshape(shape)


class Sequential(Layer):
    """Layers one after the other; an iterable of layers is taken as well."""

    def __init__(self, *layers: Any) -> None:
        given = layers[0] if len(layers) == 1 and isinstance(layers[0], list | tuple) else layers
        for index, layer in enumerate(given):
            if not callable(layer):
                raise ValueError(f"`layers` must hold layers, got {layer!r} at position {index}")
        self.layers = list(given)

    def forward(self, x: Any) -> Any:
        """Hand `x` through every layer."""
        result = through(self.layers, x)
        if result is not None:
            return result
        for layer in self.layers:
            x = layer(x)
        return x

    def __len__(self) -> int:
        return len(self.layers)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.layers)

    def __getitem__(self, index: int) -> Any:
        return self.layers[index]

    def __repr__(self) -> str:
        return f"Sequential({', '.join(map(repr, self.layers))})"


class Flatten(Layer):
    """(N, ...) to (N, features)."""

    def forward(self, x: Any) -> Tensor:
        """Put all axes but the first into one.

        Raises:
            ValueError: `x` is a single number.
        """
        inputs = as_tensor(x, "x")
        if inputs.ndim == 0:
            raise ValueError("Flatten() expects shape (N, ...), got ()")
        return inputs.reshape(inputs.shape[0], int(np.prod(inputs.shape[1:])))


class Dropout(Layer):
    """Sets a share of the elements to zero in training, and scales the others up by 1 / (1 - p).

    In evaluation it passes its input on: the expected value is the same.

    Args:
        p: the share, at least 0 and below 1.
        rng: for its seed; the layer draws from a generator of its own.
    """

    def __init__(self, p: float = 0.5, *, rng: np.random.Generator | None = None) -> None:
        self.p = fraction(p, "p")
        self.rng = spawned(rng)

    def forward(self, x: Any) -> Tensor:
        """Keep the shape of `x`."""
        inputs = as_tensor(x, "x")
        if not self.training or self.p == 0:
            return inputs
        kept = self.rng.random(inputs.shape, np.float32) >= self.p
        return inputs * (kept * np.float32(1 / (1 - self.p)))

    def __repr__(self) -> str:
        return f"Dropout({self.p})"


link(Dropout, lambda layer, x, _: None if layer.training and layer.p else x)


class LayerNorm(Layer):
    """Normalises the last axis to mean 0 and variance 1, then scales and shifts it.

    `y = (x - mean) / sqrt(variance + eps) * gamma + beta` (Ba, Kiros and Hinton 2016).

    Args:
        normalized_shape: length of the last axis.
        eps: added to the variance.

    Attributes:
        gamma: shape (normalized_shape,), ones at first.
        beta: shape (normalized_shape,), zeros at first.
    """

    def __init__(self, normalized_shape: int, eps: float = 1e-5) -> None:
        self.normalized_shape = positive_int(normalized_shape, "normalized_shape")
        self.eps = positive(eps, "eps")
        self.gamma = Parameter(np.ones(self.normalized_shape))
        self.beta = Parameter(np.zeros(self.normalized_shape))

    def forward(self, x: Any) -> Tensor:
        """Keep the shape (..., normalized_shape) of `x`.

        Raises:
            ValueError: the last axis of `x` has another length.
        """
        inputs = as_tensor(x, "x")
        if inputs.shape[-1:] != (self.normalized_shape,):
            raise ValueError(f"{self!r} expects shape (..., {self.normalized_shape}), got {inputs.shape}")
        return apply(layer_norm, inputs, self.gamma, self.beta, eps=self.eps)

    def __repr__(self) -> str:
        return f"LayerNorm({self.normalized_shape})"


def layer_norm(x: Array, gamma: Array, beta: Array, eps: float) -> tuple[Array, Vjps]:
    """Rule of `LayerNorm`, whose three gradients share their work."""
    out, *saved = layernorm.forward(x, gamma, beta, eps)
    return out, lambda g: layernorm.backward(g, *saved)


def _walk(layer: Layer, path: str, seen: set[int]) -> Iterator[tuple[str, Layer]]:
    if id(layer) not in seen:
        seen.add(id(layer))
        yield path, layer
        for name, child in layer.children():
            yield from _walk(child, _join(path, name), seen)


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _overwrite(target: NDArray[Any], values: NDArray[Any]) -> None:
    target[...] = values


def _fitting(name: str, given: Any, own: NDArray[Any]) -> NDArray[Any]:
    """Return an array of a state as that of the layer is: integers are never rounded or wrapped to fit."""
    try:
        array = np.asarray(given)
    except ValueError as error:
        raise ValueError(f"`{name}` must have shape {own.shape}, got rows of different lengths") from error
    if array.shape != own.shape:
        raise ValueError(f"`{name}` must have shape {own.shape}, got {array.shape}")
    kinds = "biuf" if own.dtype.kind == "f" else own.dtype.kind
    if array.dtype.kind not in kinds or (own.dtype.kind != "f" and array.dtype != own.dtype):
        raise ValueError(f"`{name}` must hold {own.dtype} numbers, got {array.dtype}")
    return array.astype(own.dtype, copy=False)


def _check_names(own: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    missing, unknown = [[n for n in a if n not in b] for a, b in ((own, given), (given, own))]
    if missing or unknown:
        parts = [f"lacks {', '.join(missing)}"] * bool(missing) + [
            f"has {', '.join(unknown)} too many"
        ] * bool(unknown)
        raise ValueError(f"`state` must be that of a model of the same layers, but it {' and '.join(parts)}")

"""Gradients against central differences in float64, by random projection.

For a function with Jacobian J, the numbers <v, J^T u> and <u, J v> are equal for all u and v. The first
comes from the derivative under test, the second from two evaluations; random u and v see every entry
of J at once.
"""

import numpy as np

from tinytorch.core.tensor import wrap

STEP = 1e-6


def check_rule(rule, *arrays, rtol=1e-5, **options):
    """Check the vector-Jacobian products of a rule; what is not an array of floats is passed on."""
    values = [_double(array) for array in arrays]
    rng = np.random.default_rng(0)
    out, vjps = rule(*values, **options)
    given = rng.standard_normal(out.shape)
    before = given.copy()
    found = vjps(given) if callable(vjps) else [vjp and vjp(given) for vjp in vjps]
    assert np.array_equal(given, before), "a rule must not write into the gradient that it is given"
    for index, value in enumerate(values):
        if not _differentiable(value):
            continue

        direction = rng.standard_normal(value.shape)

        def along(step, index=index, value=value, direction=direction):
            moved = [value + step * direction if i == index else v for i, v in enumerate(values)]
            return rule(*moved, **options)[0]

        _compare(np.sum(found[index] * direction), np.sum(given * _difference(along)), rtol, given, index)


def check_layer(function, *arrays, parameters=(), rtol=1e-5):
    """Check gradients that `backward()` leaves in tensors of `arrays` and in `parameters`, in float64."""
    inputs = [wrap(_double(array)) for array in arrays]
    for parameter in parameters:
        parameter._array = parameter._array.astype(float)
    tensors = [t for t in (*inputs, *parameters) if _differentiable(t._array)]
    for tensor in tensors:
        tensor.requires_grad, tensor.grad = True, None
    rng = np.random.default_rng(0)
    out = function(*inputs)
    assert out._array.dtype == float, "something on the way computes in another precision"
    given = rng.standard_normal(out.shape)
    out.backward(given)
    for index, tensor in enumerate(tensors):
        direction = rng.standard_normal(tensor.shape)
        centre = tensor._array

        def along(step, tensor=tensor, centre=centre, direction=direction):
            tensor._array = centre + step * direction
            return function(*inputs)._array

        difference = _difference(along)
        tensor._array = centre
        assert tensor.grad is not None, f"no gradient reached tensor {index}"
        assert tensor.grad.shape == tensor.shape
        _compare(np.sum(tensor.grad * direction), np.sum(given * difference), rtol, given, index)


def _difference(along):
    return (along(STEP) - along(-STEP)) / (2 * STEP)


def _compare(found, expected, rtol, given, index):
    assert np.isclose(found, expected, rtol=rtol, atol=rtol * np.sqrt(given.size)), (
        f"input {index}: {found} by the rule, {expected} by differences"
    )


def _double(value):
    return value.astype(float) if _differentiable(value) else value


def _differentiable(value):
    return isinstance(value, np.ndarray) and value.dtype.kind == "f"

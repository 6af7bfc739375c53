"""Knowledge distillation: a small model learns from the scores of a large one (Hinton et al. 2015)."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinytorch.core.activations import LogSoftmax
from tinytorch.core.autograd import no_grad
from tinytorch.core.checks import positive
from tinytorch.core.layers import Layer
from tinytorch.core.losses import CrossEntropyLoss
from tinytorch.core.tensor import Tensor, array_of, as_tensor
from tinytorch.core.training import evaluating
from tinytorch.kernels.softmax import log_softmax
from tinytorch.perf.compression.pruning import checked_sparsity


def distillation_loss(
    student_logits: Any, teacher_logits: Any, labels: Any, temperature: float = 3.0, alpha: float = 0.7
) -> Tensor:
    """Return `alpha T^2 KL(teacher || student) + (1 - alpha) cross-entropy(student, labels)`.

    Both distributions of the first term are softmax(logits / T), and T^2 keeps its gradients as large as
    those of the second. The teacher gets no gradient.

    Args:
        student_logits: shape (..., classes).
        teacher_logits: the same shape.
        labels: whole numbers of shape (...).
        temperature: T, positive; higher ones show more of what the teacher thinks of wrong classes.
        alpha: the weight of the teacher, 0 to 1.

    Returns:
        A single number, the mean over examples.

    Raises:
        ValueError: shapes do not fit, or a number lies outside.
    """
    heat, share = positive(temperature, "temperature"), checked_sparsity(alpha, "alpha")
    student, teacher = as_tensor(student_logits, "student_logits"), array_of(teacher_logits, "teacher_logits")
    if student.shape != teacher.shape:
        raise ValueError(
            f"`teacher_logits` must have the shape {student.shape} of `student_logits`, got {teacher.shape}"
        )
    hard = CrossEntropyLoss()(student, labels)
    wanted = log_softmax(np.ascontiguousarray(teacher / np.float32(heat)))
    soft = np.exp(wanted)
    entropy = float((soft * wanted).sum())
    examples = student.size // student.shape[-1]
    across: Tensor = (LogSoftmax()(student / heat) * soft).sum()
    return (entropy - across) * (share * heat * heat / examples) + hard * (1 - share)


class KnowledgeDistillation:
    """A teacher, a student, and the loss that the student is trained with.

    Args:
        teacher_model: is only asked, in evaluation mode and without a tape.
        student_model: what is trained.
        temperature: see `distillation_loss`.
        alpha: see `distillation_loss`.
    """

    def __init__(
        self, teacher_model: Layer, student_model: Layer, temperature: float = 3.0, alpha: float = 0.7
    ) -> None:
        self.teacher_model = teacher_model
        self.student_model = student_model
        self.temperature = positive(temperature, "temperature")
        self.alpha = checked_sparsity(alpha, "alpha")

    def distillation_loss(self, student_logits: Any, teacher_logits: Any, true_labels: Any) -> Tensor:
        """Return the loss of given logits; see the function of that name."""
        return distillation_loss(student_logits, teacher_logits, true_labels, self.temperature, self.alpha)

    def loss(self, x: Any, labels: Any) -> Tensor:
        """Return the loss of the student on a batch, to call `backward()` on."""
        with evaluating(self.teacher_model), no_grad():
            wanted = self.teacher_model(x)
        return self.distillation_loss(self.student_model(x), wanted, labels)

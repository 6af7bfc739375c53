"""Times whole training steps (forward, backward, update) of tinytorch against torch eager on the CPU.

    pip install -e '.[compare]' && python benchmarks/training_steps.py
    python benchmarks/training_steps.py --budget 5        longer, finer
    python benchmarks/training_steps.py mlp-small cnn     only these

Both sides run interleaved in one process, on one thread, with the same architecture, the same weights to
start with and fresh batches from one generator; before timing, the losses of the first three steps must
agree. The table has torch's time over tinytorch's, with its interval: above 1 tinytorch is faster. Without
torch, tinytorch's own times are printed.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import tinytorch as tt
from perfclaims import Implementation, PerformanceComparator, ScientificTimer

try:
    import torch
    from torch import nn
except ImportError:
    torch = None

Step = Callable[..., Any]


@dataclass(frozen=True)
class Case:
    """One model: how to build it on either side, what its batches are, and the goal."""

    name: str
    what: str
    goal: float
    ours: Callable[[np.random.Generator], Any]
    theirs: Callable[[], Any]
    batch: Callable[[np.random.Generator], tuple[Any, Any]]
    adam: bool = False


def mlp(*widths: int) -> tuple[Callable[..., Any], Callable[[], Any]]:
    """A multilayer perceptron with ReLU between its layers."""

    def ours(rng: np.random.Generator) -> Any:
        layers: list[Any] = []
        for i, o in itertools.pairwise(widths):
            layers += [tt.Linear(i, o, rng=rng), tt.ReLU()]
        return tt.Sequential(*layers[:-1])

    def theirs() -> Any:
        layers: list[Any] = []
        for i, o in itertools.pairwise(widths):
            layers += [nn.Linear(i, o), nn.ReLU()]
        return nn.Sequential(*layers[:-1])

    return ours, theirs


def cnn() -> tuple[Callable[..., Any], Callable[[], Any]]:
    """Two 3x3 convolutions of 8 and 16 channels on 28x28, each with ReLU and pooling, and a linear layer."""

    def ours(rng: np.random.Generator) -> Any:
        return tt.Sequential(
            tt.Conv2d(1, 8, 3, padding=1, rng=rng), tt.ReLU(), tt.MaxPool2d(2),
            tt.Conv2d(8, 16, 3, padding=1, rng=rng), tt.ReLU(), tt.MaxPool2d(2),
            tt.Flatten(), tt.Linear(16 * 7 * 7, 10, rng=rng),
        )  # fmt: skip

    def theirs() -> Any:
        return nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(16 * 7 * 7, 10),
        )  # fmt: skip

    return ours, theirs


def gpt(
    vocab: int, dim: int, depth: int, heads: int, length: int
) -> tuple[Callable[..., Any], Callable[[], Any]]:
    """A pre-norm transformer with causal attention."""

    def ours(rng: np.random.Generator) -> Any:
        return tt.GPT(vocab, dim, depth, heads, length, rng=rng)

    def theirs() -> Any:
        return _torch_gpt(vocab, dim, depth, heads, length)

    return ours, theirs


def _torch_gpt(vocab: int, dim: int, depth: int, heads: int, length: int) -> Any:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.ln1, self.ln2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
            self.q_proj, self.k_proj, self.v_proj, self.out_proj = (nn.Linear(dim, dim) for _ in range(4))
            self.linear1, self.linear2 = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)

        def forward(self, x: Any) -> Any:
            h = self.ln1(x)
            q, k, v = (
                p(h).unflatten(-1, (heads, dim // heads)).transpose(1, 2)
                for p in (self.q_proj, self.k_proj, self.v_proj)
            )
            a = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.out_proj(a.transpose(1, 2).flatten(-2))
            return x + self.linear2(nn.functional.gelu(self.linear1(self.ln2(x)), approximate="tanh"))

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.token_embedding, self.position_embedding = (
                nn.Embedding(vocab, dim),
                nn.Embedding(length, dim),
            )
            self.blocks = nn.ModuleList(Block() for _ in range(depth))
            self.ln_f, self.lm_head = nn.LayerNorm(dim), nn.Linear(dim, vocab)

        def forward(self, tokens: Any) -> Any:
            x = self.token_embedding(tokens) + self.position_embedding.weight[: tokens.shape[1]]
            for block in self.blocks:
                x = block(x)
            return self.lm_head(self.ln_f(x))

    return Model()


def images(count: int, *shape: int) -> Callable[[np.random.Generator], tuple[Any, Any]]:
    """Batches of random images with random labels."""
    return lambda rng: (rng.standard_normal((count, *shape), np.float32), rng.integers(0, 10, count))


def sequences(count: int, length: int, vocab: int) -> Callable[[np.random.Generator], tuple[Any, Any]]:
    """Batches of random tokens, each labelled with the next."""

    def batch(rng: np.random.Generator) -> tuple[Any, Any]:
        tokens = rng.integers(0, vocab, (count, length + 1))
        return np.ascontiguousarray(tokens[:, :-1]), np.ascontiguousarray(tokens[:, 1:])

    return batch


CASES = (
    Case("mlp-small", "MLP 64-128-64-10, batch 32", 2.0, *mlp(64, 128, 64, 10), images(32, 64)),
    Case("mlp-large", "MLP 784-256-128-10, batch 64", 1.2, *mlp(784, 256, 128, 10), images(64, 784)),
    Case("cnn", "CNN 28x28, 8 and 16 channels, batch 32", 1.0, *cnn(), images(32, 1, 28, 28)),
    Case(
        "gpt-2", "transformer, 2 layers, d=64, T=32, batch 8", 1.0,
        *gpt(64, 64, 2, 4, 32), sequences(8, 32, 64), adam=True,
    ),
    Case(
        "gpt-4", "transformer, 4 layers, d=128, V=1000, T=64, batch 8", 0.8,
        *gpt(1000, 128, 4, 4, 64), sequences(8, 64, 1000), adam=True,
    ),
)  # fmt: skip


def our_step(case: Case, rng: np.random.Generator) -> Step:
    """A training step of tinytorch on a model of its own."""
    model = case.ours(rng)
    optimizer = tt.AdamW(model.parameters(), lr=1e-3) if case.adam else tt.SGD(model.parameters(), lr=0.01)
    loss_of = tt.CrossEntropyLoss()

    def step(x: Any, labels: Any) -> Any:
        optimizer.zero_grad()
        logits = model(x)
        loss = loss_of(logits, labels)
        loss.backward()
        optimizer.step()
        return loss.data

    return step


def their_step(case: Case, rng: np.random.Generator) -> Step:
    """The same in torch, from the same weights."""
    model = case.theirs()
    with torch.no_grad():
        ours = dict(case.ours(rng).named_parameters())
        for target, source in zip(model.parameters(), _in_order(model, ours), strict=True):
            target.copy_(torch.from_numpy(source))
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=1e-3) if case.adam else torch.optim.SGD(parameters, lr=0.01)

    def step(x: Any, labels: Any) -> Any:
        optimizer.zero_grad(set_to_none=True)
        logits = model(torch.from_numpy(x))
        classes = logits.shape[-1]
        loss = nn.functional.cross_entropy(logits.reshape(-1, classes), torch.from_numpy(labels).reshape(-1))
        loss.backward()
        optimizer.step()
        return loss.detach().numpy()

    return step


def _in_order(model: Any, ours: dict[str, Any]) -> list[Any]:
    """Our weights in torch's order and layout: linear layers are (out, in) there."""
    linear = {f"{name}.weight" for name, part in model.named_modules() if isinstance(part, nn.Linear)}
    arrays = []
    for name, _ in model.named_parameters():
        array = ours[_our_name(name, ours)].data
        arrays.append(np.ascontiguousarray(array.T if name in linear else array))
    return arrays


def _our_name(name: str, ours: dict[str, Any]) -> str:
    short = (
        name.replace("ln1.weight", "ln1.gamma")
        .replace("ln2.weight", "ln2.gamma")
        .replace("ln_f.weight", "ln_f.gamma")
    )
    short = (
        short.replace("ln1.bias", "ln1.beta")
        .replace("ln2.bias", "ln2.beta")
        .replace("ln_f.bias", "ln_f.beta")
    )
    for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
        short = short.replace(f".{part}", f".attention.{part}")
    for part in ("linear1", "linear2"):
        short = short.replace(f".{part}", f".mlp.{part}")
    return short if short in ours else f"layers.{short}"


def compare(case: Case, budget_s: float) -> str:
    """Return the line of the table for one model."""
    if torch is None:
        step, batch = our_step(case, np.random.default_rng(0)), case.batch(np.random.default_rng(1))
        measured = ScientificTimer(budget_s=budget_s).measure_function(step, batch)
        return f"{case.what:55} {measured.median_time_ms:8.3f} ms"
    _check(case)
    result = PerformanceComparator(budget_s=budget_s).compare_implementations(
        Implementation("torch", lambda rng: their_step(case, rng)),
        Implementation("tinytorch", lambda rng: our_step(case, rng)),
        inputs=case.batch,
        outputs=None,
    )
    times = f"{result.baseline.median_time_ms:8.3f} {result.optimized.median_time_ms:8.3f} ms"
    ratio = f"{result.speedup:5.2f}x [{result.speedup_low:.2f}, {result.speedup_high:.2f}]"
    met = (
        "met" if result.speedup_low >= case.goal else "missed" if result.speedup_high < case.goal else "open"
    )
    return f"{case.what:55} {times}  {ratio:22} {result.noise_grade:2}  goal {case.goal:.1f}x: {met}"


def _check(case: Case) -> None:
    steps = [make(case, np.random.default_rng(0)) for make in (our_step, their_step)]
    rng = np.random.default_rng(1)
    for number in range(3):
        batch = case.batch(rng)
        ours, theirs = (float(step(*batch)) for step in steps)
        if abs(ours - theirs) > 1e-3 * abs(theirs):
            sys.exit(
                f"{case.name}: the losses of step {number} differ, {ours} and {theirs}: nothing was timed"
            )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [case.name for case in CASES]
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"any of {', '.join(names)} (default: all)")
    parser.add_argument("--budget", type=float, default=2.0, help="seconds for each comparison (default: 2)")
    options = parser.parse_args()
    unknown = [name for name in options.cases if name not in names]
    if unknown:
        parser.error(f"unknown case {', '.join(unknown)}; there are {', '.join(names)}")
    if torch is None:
        print("torch is not installed: tinytorch alone")
    else:
        torch.set_num_threads(1)
        print(f"{'':55} {'torch':>8} {'ours':>8}     torch's time / ours")
    for case in CASES:
        if not options.cases or case.name in options.cases:
            print(compare(case, options.budget), flush=True)


if __name__ == "__main__":
    main()

"""Running a GPT without recording anything: fused steps, with a cache of keys and values or without.

This is what `generate` runs, and `forward` under `no_grad` where a cache is enabled. Without a cache every
token costs a pass over all positions, though only the last position meets the head; that pass is as fused
as a cached step is, because it is what caching is measured against.
"""

from __future__ import annotations

from tinytorch.core.inference.caches import cached as cached
from tinytorch.core.inference.caches import continued as continued
from tinytorch.core.inference.caches import disable as disable
from tinytorch.core.inference.caches import enable as enable
from tinytorch.core.inference.caches import generating as generating
from tinytorch.core.inference.caches import set_aside as set_aside
from tinytorch.core.inference.caches import steps_of as steps_of
from tinytorch.core.inference.steps import Steps as Steps
from tinytorch.core.inference.steps import fused_step as fused_step

"""KV cache: what attention computed for earlier positions is kept, so each new token costs one position.

`enable_kv_cache(model)` lets `GPT.generate`, and `GPT.forward` under `no_grad`, keep keys and values of all
layers. Weights stay live: a change of them is seen by the next step, but not by what the cache holds already;
`cache.reset()` forgets it. Quantized layers are packed together when the cache is enabled, and again after
their arrays were replaced or their ranges calibrated; bytes that are changed in place are seen when it is
enabled anew. A copy of a model has no cache.
"""

from tinytorch.perf.memoization.attention import CachedMultiHeadAttention as CachedMultiHeadAttention
from tinytorch.perf.memoization.cache import KVCache as KVCache
from tinytorch.perf.memoization.enabling import disable_kv_cache as disable_kv_cache
from tinytorch.perf.memoization.enabling import enable_kv_cache as enable_kv_cache

"""INT8 post-training quantization: bytes for weights and activations, and integer products of them.

Weights are symmetric, with one scale for each output channel; activations are unsigned bytes with a zero
point, whose range is that of each row or image as it comes ("dynamic") or was calibrated ("static").
Layers pack their weights once, when they are made; a change of the original layer is not seen after that.
"""

from tinytorch.perf.quantization.config import QuantizationConfig as QuantizationConfig
from tinytorch.perf.quantization.layers import QuantizedConv2d as QuantizedConv2d
from tinytorch.perf.quantization.layers import QuantizedLinear as QuantizedLinear
from tinytorch.perf.quantization.model import quantize_model as quantize_model
from tinytorch.perf.quantization.observers import MinMaxObserver as MinMaxObserver
from tinytorch.perf.quantization.observers import MovingAverageObserver as MovingAverageObserver
from tinytorch.perf.quantization.observers import MSEObserver as MSEObserver
from tinytorch.perf.quantization.observers import Observer as Observer
from tinytorch.perf.quantization.observers import PercentileObserver as PercentileObserver
from tinytorch.perf.quantization.quantizer import INT8Quantizer as INT8Quantizer
from tinytorch.perf.quantization.report import LayerReport as LayerReport
from tinytorch.perf.quantization.report import QuantizationReport as QuantizationReport

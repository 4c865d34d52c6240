"""autoawq's quantizer with two things mended: its scale search on a CPU, and a check of every layer's output.

On a CPU autoawq 0.2.9 quantizes the wrong weights, silently. Its search keeps "copies" of the weights by `tensor.cpu()`, which
on a CPU is the tensor itself; the first trial scales it in place, and the layer goes on with W * s0 though the norm before it
was never divided by s0 (awq/quantize/quantizer.py, `_compute_best_scale`). A 135M model's label logits fell from 30 to 5.
"""

from __future__ import annotations

from typing import Any

import torch
from awq.quantize.quantizer import AwqQuantizer

from zoo.errors import ZooError

# A 4-bit layer is off by some 5 to 20 % of what it adds to the residual stream; a broken one by about all of it or more.
LARGEST_LAYER_ERROR = 0.8


class CheckedQuantizer(AwqQuantizer):
    """`AwqQuantizer` that leaves weights as they were after its search and measures each layer it quantizes.

    `layer_errors`: a layer's ||output with quantized weights - output|| / ||output - input|| on the calibration tokens.
    """

    layer_errors: list[float]

    def _compute_best_scale(
        self, x: Any, w_mean: Any, x_mean: Any, module2inspect: torch.nn.Module, *arguments: Any, **options: Any
    ) -> Any:
        handle = module2inspect.register_state_dict_post_hook(_copy_tensors)
        try:
            return super()._compute_best_scale(x, w_mean, x_mean, module2inspect, *arguments, **options)
        finally:
            handle.remove()

    def _get_input_feat(self, layer: torch.nn.Module, named_linears: dict[str, torch.nn.Linear]) -> Any:
        self._layer_input = self.inps
        return super()._get_input_feat(layer, named_linears)  # leaves the layer's own output in self.inps

    def _apply_quant(self, module: torch.nn.Module, named_linears: dict[str, torch.nn.Linear]) -> None:
        self._check_layer(module, named_linears)
        super()._apply_quant(module, named_linears)

    @torch.no_grad()
    def _check_layer(self, module: torch.nn.Module, named_linears: dict[str, torch.nn.Linear]) -> None:
        """Run one calibration block with the weights that will be stored, and compare with the layer as it was."""
        place, device = next(module.parameters()).device, self._layer_input.device
        module.to(device)  # on a GPU autoawq has moved what it scaled and clipped back to the CPU
        kept = {name: linear.weight.data for name, linear in named_linears.items()}
        for linear in named_linears.values():
            rounded = self.pseudo_quantize_tensor(linear.weight.data.float())[0]
            linear.weight.data = rounded.to(linear.weight.dtype)
        block = self._layer_input[:1]
        output = self._module_forward(block, module, self._sanitize_kwargs(self.module_kwargs, module)).float()
        for name, linear in named_linears.items():
            linear.weight.data = kept[name]
        module.to(place)
        expected = self.inps[:1].to(output.device).float()
        added = (expected - block.float()).norm().clamp_min(1e-12)
        error = float((output - expected).norm() / added)
        self.__dict__.setdefault("layer_errors", []).append(error)
        if not error < LARGEST_LAYER_ERROR:
            raise ZooError(
                f"layer {len(self.layer_errors) - 1} is off by {error:.2f} of what it adds once quantized; "
                "use a smaller quantize.group_size or more quantize.calibration_rows"
            )


def _copy_tensors(module: torch.nn.Module, state: dict[str, Any], prefix: str, metadata: Any) -> None:
    """State-dict hook: hand out copies, so that what was saved does not change with the module."""
    for name, value in state.items():
        if isinstance(value, torch.Tensor):
            state[name] = value.clone()

"""The train stage: QLoRA, LoRA or all weights, on label tokens or the whole text."""

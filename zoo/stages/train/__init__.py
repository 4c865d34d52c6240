"""The stage that trains: QLoRA, LoRA or all weights, on the label tokens or on the whole text."""

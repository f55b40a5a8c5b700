"""Per-task gradients: of a model (`engine`) and of any loss functions (`own_linearization`), pulled as methods need."""

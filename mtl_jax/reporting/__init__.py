"""Tables of models and results."""

"""Training configs: data, with the exact command and what to expect in the docstring."""

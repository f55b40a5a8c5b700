"""Training: one compiled step, the loop around it, and the run that comes out."""

"""Evidence: which method, which sharing, which tasks."""

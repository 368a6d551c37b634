"""What becomes infer.py of an export: the part of its runtime, followed by base.py. Neither needs lit-compress."""

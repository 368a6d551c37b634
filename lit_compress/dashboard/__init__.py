"""Weights & Biases: charts and artifacts of a run, and the dashboard over runs as code."""

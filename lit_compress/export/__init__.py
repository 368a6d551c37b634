"""Turns models into files for other runtimes, and proves that they compute the same."""

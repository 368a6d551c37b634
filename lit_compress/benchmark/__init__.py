"""Measures models beside a baseline in clean processes, and reports what came out."""

"""Models: what they look like, where they come from, and how they are kept."""

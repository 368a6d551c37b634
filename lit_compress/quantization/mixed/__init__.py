"""Which matrix needs how many bits: curvature of the loss, and the best choice under a budget (Q-BERT)."""

"""From a fine-tuned model and a wish to a small one: stages are planned from measurements, run, and held against it."""

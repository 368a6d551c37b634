"""Folders that other libraries load: bitsandbytes and compressed-tensors."""

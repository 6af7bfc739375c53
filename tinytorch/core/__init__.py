"""Tensors and what models are made of."""

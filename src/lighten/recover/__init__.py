"""Winning the accuracy back: repair without gradients, then distillation."""

"""The parent's side of the workers: who gets what, how they start, how they end."""

"""Scenarios: what happens inside a world. Imported by pytest, by applications and by workers."""

"""Arithmetic on features: protocols with names and versions."""

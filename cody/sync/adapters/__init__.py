"""Backends of the sync engine, one module each."""

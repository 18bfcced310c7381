"""Backends that exist for tests only."""

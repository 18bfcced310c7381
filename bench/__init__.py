"""Measures extauth against others that do the same work: `python -m bench`, described in docs/performance.md."""

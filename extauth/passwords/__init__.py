"""Passwords: how they are prepared, which are allowed, and the forms in which they are stored. Pure: no I/O, no clock."""

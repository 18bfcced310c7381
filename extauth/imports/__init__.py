"""Accounts of other servers, read from what they write. Pure but for `source`, which opens files."""

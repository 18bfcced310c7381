"""Accounts in tables of somebody else's: what the backends `sqlite`, `postgres` and `mysql` share."""

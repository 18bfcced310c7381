"""Mechanisms of somebody else's, as the documentation shows them."""

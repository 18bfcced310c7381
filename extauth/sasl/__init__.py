"""SASL, the server's side (RFC 4422): no I/O, no clock. The folder is the registry: one module per family of mechanisms."""

"""What may lie around any backend: other names, a memory, learned keys, a record of logins. Each is a `Backend`, too."""

"""The formats of stored passwords, one module for each family. What a module has is told in `extauth.passwords.stored`."""

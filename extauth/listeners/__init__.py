"""Front ends. The folder is the registry: `protocol = "ejabberd"` is the module `ejabberd` in it.

Each module has a `Config` (a frozen dataclass, its keys) and `server(name, config, service) -> Server`.
"""

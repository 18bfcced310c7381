"""Debian's Prosody."""

import os
from collections.abc import Sequence
from pathlib import Path
from textwrap import dedent

from tests.certificates import Certificates
from tests.servers.process import Server, free_port, listens


class Prosody(Server):
    """A Prosody with client, direct TLS, HTTP (`/http-bind`, `/xmpp-websocket`) and HTTPS ports.

    Parameters:
        folder: an empty folder for its configuration, log and data.
        certificates: what it shows on TLS, which clients must use.
        authentication: lines of configuration that choose the authentication, such as `authentication = "x"`.
        plugin_paths: folders of modules.
        modules: modules to load beside those for login, websocket, BOSH and registration by a client.
        virtual_hosts: lines that declare the hosts.
        extra: further global lines of configuration.
        environment: further variables, such as LUA_CPATH.
    """

    def __init__(
        self,
        folder: Path,
        certificates: Certificates,
        authentication: str,
        *,
        plugin_paths: Sequence[Path | str] = (),
        modules: Sequence[str] = (),
        virtual_hosts: str = 'VirtualHost "xmpp.test"',
        extra: str = "",
        environment: dict[str, str] | None = None,
    ) -> None:
        super().__init__(folder)
        self.port = free_port()
        self.tls_port = free_port()
        self.http_port = free_port()
        self.https_port = free_port()
        self.log_file = folder / "prosody.log"
        self.environment = environment or {}
        configuration = folder / "prosody.cfg.lua"
        (folder / "data").mkdir()
        self.command = ["prosody", "-F", "--config", str(configuration)]
        loaded = ("saslauth", "tls", "disco", "roster", "ping", "bosh", "websocket", "register_ibr", "posix")
        configuration.write_text(
            dedent(f"""\
                pidfile = "{folder}/prosody.pid"
                data_path = "{folder}/data"
                run_as_root = {"true" if os.geteuid() == 0 else "false"}
                daemonize = false
                plugin_paths = {_lua(plugin_paths)}
                interfaces = {{ "127.0.0.1" }}
                local_interfaces = {{ "127.0.0.1" }}
                c2s_ports = {{ {self.port} }}
                c2s_direct_tls_ports = {{ {self.tls_port} }}
                s2s_ports = {{}}
                component_ports = {{}}
                http_ports = {{ {self.http_port} }}
                http_interfaces = {{ "127.0.0.1" }}
                https_ports = {{ {self.https_port} }}
                https_interfaces = {{ "127.0.0.1" }}
                http_default_host = "xmpp.test"
                modules_enabled = {_lua((*loaded, *modules))}
                modules_disabled = {{ "s2s" }}
                log = {{ {{ levels = {{ min = "debug" }}, to = "file", filename = "{self.log_file}" }} }}
                c2s_require_encryption = true
                consider_bosh_secure = true
                consider_websocket_secure = true
                ssl = {{
                    certificate = "{certificates.server_certificate}";
                    key = "{certificates.server_key}";
                    cafile = "{certificates.ca}";
                }}
                """)
            + f"{dedent(extra)}\n{dedent(authentication)}\n{dedent(virtual_hosts)}\n"
        )

    def ready(self) -> bool:
        """Tell whether it takes connections."""
        return all(map(listens, (self.port, self.tls_port, self.http_port, self.https_port)))


def _lua(values: Sequence[Path | str]) -> str:
    return "{ " + "; ".join(f'"{value}"' for value in values) + " }"

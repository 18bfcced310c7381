"""Debian's ejabberd, run by `erl` itself: no ejabberdctl, no epmd, no Erlang distribution."""

import json
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from textwrap import dedent

from tests.certificates import Certificates
from tests.servers.process import Server, free_port, listens


class Ejabberd(Server):
    """An ejabberd whose accounts are held by an external program.

    Parameters:
        folder: an empty folder for its configuration, log and data.
        certificates: what it shows on STARTTLS, which is required.
        program: the command line of `extauth_program`.
        pool_size: how many of these programs it starts.
        hosts: its virtual hosts.
        register: lets clients register, change their password and unregister (XEP-0077).
        max_stanza_size: in bytes; the default is that of Debian's configuration.
        external: asks clients for a certificate and offers EXTERNAL.
        authentication: lines of YAML that choose another authentication than the program.
        more_modules: modules to load beside those for login, BOSH and administration.
        extra: lines of YAML at the top level.
    """

    def __init__(
        self,
        folder: Path,
        certificates: Certificates,
        program: str,
        *,
        pool_size: int = 2,
        hosts: Sequence[str] = ("xmpp.test",),
        register: bool = False,
        max_stanza_size: int = 262144,
        external: bool = False,
        authentication: str = "",
        more_modules: Sequence[str] = (),
        extra: str = "",
    ) -> None:
        super().__init__(folder)
        self.port = free_port()
        self.http_port = free_port()
        self.log_file = folder / "ejabberd.log"
        configuration = folder / "ejabberd.yml"
        names = folder / "inetrc"
        names.write_text('{lookup,["file","native"]}.\n{host,{127,0,0,1},["localhost"]}.\n')
        library = next(Path("/usr/lib").glob("*/ejabberd-*"))  # in the folder of the machine's architecture
        self.command = [
            *("erl", "-noinput", "+B", "i"),
            *("-mnesia", "dir", json.dumps(str(folder / "spool")), "-s", "ejabberd"),
        ]
        self.environment = {
            "ERL_LIBS": str(library.parent),
            "EJABBERD_CONFIG_PATH": str(configuration),
            "EJABBERD_LOG_PATH": str(self.log_file),
            "ERL_INETRC": str(names),
            "HOME": str(folder),
        }
        modules = "mod_bosh: {}, mod_disco: {}, mod_ping: {}, mod_admin_extra: {}"
        modules += "".join(f", {name}: {{}}" for name in more_modules)
        if register:
            modules += ", mod_register: {access: all, ip_access: all, registration_watchers: []}"
        external_program = f"""\
            auth_method: [external]
            extauth_program: {json.dumps(program)}
            extauth_pool_size: {pool_size}
            """
        configuration.write_text(
            dedent(f"""\
                hosts: {json.dumps(list(hosts))}
                loglevel: info
                certfiles: ["{certificates.server}"]
                listen:
                  - port: {self.port}
                    ip: "127.0.0.1"
                    module: ejabberd_c2s
                    cafile: "{certificates.ca}"
                    starttls_required: true
                    tls_verify: {"true" if external else "false"}
                    max_stanza_size: {max_stanza_size}
                  - port: {self.http_port}
                    ip: "127.0.0.1"
                    module: ejabberd_http
                    request_handlers: {{"/ws": ejabberd_http_ws, "/bosh": mod_bosh, "/api": mod_http_api}}
                auth_use_cache: false
                registration_timeout: infinity
                shaper_rules: {{}}
                api_permissions: {{all: {{from: [mod_http_api], who: all, what: "*"}}}}
                modules: {{{modules}}}
                """)
            + dedent(authentication or external_program)
            + dedent(extra)
        )

    def ready(self) -> bool:
        """Tell whether it takes client connections."""
        return listens(self.port) and listens(self.http_port)

    def api(self, command: str, **arguments: object) -> object:
        """Run one of ejabberd's administrative commands and return its decoded answer."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.http_port}/api/{command}",
            json.dumps(arguments).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=20) as response:
            return json.load(response)

"""Where `extauth` begins. Every worker of a server starts the connector: it is handed over before anything is imported."""

import sys


def main() -> None:
    """Run the command line."""
    if len(sys.argv) > 1 and sys.argv[1] == "connect":
        from extauth import connect

        del sys.argv[1]
        sys.exit(connect.main())
    from extauth.cli.root import cli

    cli()

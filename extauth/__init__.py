"""extauth: one daemon that gives any XMPP server every login."""

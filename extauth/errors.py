"""The three exceptions of the project. Anything else that is raised is a bug."""

from collections.abc import Sequence


class ConfigError(Exception):
    """The configuration can't be used. Every problem found is in `problems`, each with its place."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


class BackendDown(Exception):  # noqa: N818 - it names a state of the world, as "no" and "down" do in the text
    """A backend or the store can't tell at present. The message says what was tried; it never holds a secret."""


class ProtocolError(Exception):
    """The peer broke the protocol in a way that has no answer: this connection closes, the others live on."""

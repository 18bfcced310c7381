"""Bytes into lines, for every protocol that speaks in lines."""

from collections.abc import Iterator

from extauth.errors import ProtocolError


class Lines:
    """Bytes into lines."""

    def __init__(self, limit: int) -> None:
        self._rest = bytearray()
        self._limit = limit

    @property
    def half(self) -> bool:
        """Whether a part of a line has arrived."""
        return bool(self._rest)

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield each complete line without its end.

        Raises:
            ProtocolError: a line is longer than the limit.
        """
        self._rest += data
        while True:
            end = self._rest.find(b"\n", 0, self._limit + 1)
            if end < 0:
                break
            line = bytes(self._rest[:end])
            del self._rest[: end + 1]
            yield line.removesuffix(b"\r")
        if len(self._rest) > self._limit:
            raise ProtocolError(f"a line of more than {self._limit} bytes")

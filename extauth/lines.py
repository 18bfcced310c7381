"""Bytes into lines, for every protocol that speaks in lines."""

from collections.abc import Iterator

from extauth.errors import ProtocolError


class Lines:
    """Bytes into lines."""

    def __init__(self, limit: int) -> None:
        self.half = bytearray()  # what has arrived of a line that has no end yet
        self._limit = limit

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield each complete line without its end.

        Raises (by the iterator):
            ProtocolError: a line is longer than the limit.
        """
        if not self.half and 0 <= data.find(b"\n") == len(data) - 1 <= self._limit:
            return iter((data[:-1].removesuffix(b"\r"),))  # one whole line, as nearly always
        return self._cut(data)

    def _cut(self, data: bytes) -> Iterator[bytes]:
        half = self.half
        half += data
        while True:
            end = half.find(b"\n", 0, self._limit + 1)
            if end < 0:
                break
            line = bytes(half[:end])
            del half[: end + 1]
            yield line.removesuffix(b"\r")
        if len(half) > self._limit:
            raise ProtocolError(f"a line of more than {self._limit} bytes")

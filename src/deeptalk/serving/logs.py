"""How a server logs: one line after the other, none of them endless."""

import logging

LONGEST_LINE = 4096
"""Characters of a line; what is longer is cut."""


class LineFormatter(logging.Formatter):
    """Time, level and name before the message, every line of it cut where it is too long."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """The text of a record."""
        return "\n".join(map(_cut, super().format(record).split("\n")))


def configure_logging() -> None:
    """Log to standard error, from INFO up."""
    handler = logging.StreamHandler()
    handler.setFormatter(LineFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler])


def tell_without_traceback(record: logging.LogRecord) -> bool:
    """A filter: bytes of a client that are no UTF-8 are its mistake, no fault with a traceback."""
    if record.exc_info and isinstance(record.exc_info[1], UnicodeDecodeError):
        record.exc_info = None
        record.levelno, record.levelname = logging.INFO, "INFO"
    return True


def _cut(line: str) -> str:
    return line if len(line) <= LONGEST_LINE else f"{line[: LONGEST_LINE - 2]} …"

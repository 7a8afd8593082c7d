"""Where the library's log goes.

Owns the level of the logger "anel", and a handler on stderr for applications that configure no
logging of their own. What the server tells people in any case is `telling`'s business.
"""

from __future__ import annotations

import logging

from anel.choices import Chosen, Layer
from anel.settings import Choice, Setting
from anel.telling import complain

LEVELS = ("debug", "info", "warning", "error", "critical")

OPTIONS: tuple[Setting, ...] = (
    Choice(
        name="log_level",
        key="log-level",
        group="Logs",
        help=f"What the library logs, from {', '.join(LEVELS)} on: on stderr, unless the"
        " application has configured logging.",
        names=LEVELS,
        kind="LEVEL",
        default="info",
    ),
)

_logger = logging.getLogger("anel")

_FORMAT = "%(asctime)s [%(process)d] %(levelname)s %(name)s: %(message)s"


class _Stderr(logging.Handler):
    """Shows what nobody else shows: an application may configure logging at any time."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter(_FORMAT))

    def emit(self, record: logging.LogRecord) -> None:
        """Writes it, unless the application has a handler."""
        if not _has_handlers():
            complain(self.format(record))


def configure(level: Chosen) -> None:
    """Shows the library's log from this level on, unless the application shows it by itself.

    A level that nobody has chosen leaves that of an application which has configured logging.
    """
    if not any(isinstance(handler, _Stderr) for handler in _logger.handlers):
        _logger.addHandler(_Stderr())
    if level.layer is not Layer.DEFAULT or not (_logger.level or _has_handlers()):
        _logger.setLevel(level.value.upper())


def _has_handlers() -> bool:
    """Whether the application has configured logging."""
    own = [handler for handler in _logger.handlers if not isinstance(handler, _Stderr)]
    return bool(own or logging.getLogger().handlers)

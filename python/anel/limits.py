"""The limits that protect a worker from its peers, as settings.

Owns their names, bounds and words, and what who exceeds one meets. The numbers are the core's
(`src/protocol/limits.rs`, with their reasons). `anel config` prints those that hold, and
`src/protocol/LIMITS.md` is the page about them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from anel import _core
from anel.choices import Choices, Layer
from anel.exceptions import ConfigError
from anel.settings import Number, Unit

_U32_MAX = 2**32 - 1
_U63_MAX = 2**63 - 1
_DAY_MS = 24 * 3600 * 1000

# Idle connections are closed after a century at the latest. Programs that want them to stay give
# infinity, or a number with many zeros, which a clock in milliseconds must not overflow with.
_IDLE_S_MAX = 100 * 365 * 24 * 3600


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limit(Number):
    """A limit on peers. `outcome` is what who exceeds it meets."""

    outcome: str = ""


def _limit(
    name: str,
    key: str,
    unit: Unit,
    bounds: tuple[int, int],
    outcome: str,
    help: str,
    *,
    can_be_off: bool = False,
) -> Limit:
    minimum, maximum = bounds
    return Limit(
        name=name,
        key=key,
        help=help,
        group=_group(key),
        default=_DEFAULTS[name],
        unit=unit,
        minimum=minimum,
        maximum=maximum,
        can_be_off=can_be_off,
        outcome=outcome,
    )


def _group(key: str) -> str:
    return "Timeouts" if key.startswith("timeout-") else "Limits"


_DEFAULTS = _core.default_limits()

LIMITS = (
    _limit(
        "head_bytes_max",
        "limit-request-head",
        Unit.BYTES,
        (64, 65_535),
        "431",
        "Largest head of a request, its first line included.",
    ),
    _limit(
        "target_bytes_max",
        "limit-request-line",
        Unit.BYTES,
        (1, 65_535),
        "414",
        "Longest target in the first line of a request.",
    ),
    _limit(
        "fields_max",
        "limit-request-fields",
        Unit.COUNT,
        (1, 65_535),
        "431",
        "Most header fields of a request.",
    ),
    _limit(
        "body_bytes_max",
        "limit-body",
        Unit.BYTES,
        (0, _U63_MAX),
        "413",
        "Largest body of a request; a route may have its own limit.",
    ),
    _limit(
        "stream_bytes_max",
        "limit-stream",
        Unit.BYTES,
        (0, _U63_MAX),
        "413",
        "Largest body of a request whose route streams it.",
    ),
    _limit(
        "chunk_extension_bytes_max",
        "limit-chunk-extension",
        Unit.BYTES,
        (0, 65_535),
        "400",
        "Longest extension of a chunk.",
    ),
    _limit(
        "trailer_bytes_max",
        "limit-trailers",
        Unit.BYTES,
        (2, 65_535),
        "431",
        "Largest trailer section of a chunked body.",
    ),
    _limit(
        "pipeline_depth_max",
        "limit-pipeline",
        Unit.COUNT,
        (1, 65_535),
        "reading pauses",
        "Requests of one connection that await their answers, or are answered before the others"
        " have their turn.",
    ),
    _limit(
        "owed_bytes_max",
        "limit-send-queue",
        Unit.BYTES,
        (1, _U32_MAX),
        "reading pauses",
        "Bytes of answers owed to one connection.",
    ),
    _limit(
        "stream_owed_bytes_max",
        "limit-stream-queue",
        Unit.BYTES,
        (1, _U32_MAX),
        "the producer waits",
        "Bytes of a streamed answer owed to one connection.",
    ),
    _limit(
        "connections_max",
        "limit-concurrency",
        Unit.COUNT,
        (1, 16_777_216),
        "accepting pauses",
        "Open connections of a worker; further ones wait to be accepted.",
    ),
    _limit(
        "head_timeout_ms",
        "timeout-header",
        Unit.MILLISECONDS,
        (1, _DAY_MS),
        "408",
        "Time for a whole head, from its first byte.",
    ),
    _limit(
        "body_timeout_ms",
        "timeout-body",
        Unit.MILLISECONDS,
        (1, _DAY_MS),
        "408",
        "Time in which more of a body has to come.",
    ),
    _limit(
        "body_bytes_per_s_min",
        "limit-body-rate",
        Unit.BYTES_PER_SECOND,
        (1, _U32_MAX),
        "408",
        "How fast a body has to come, apart from pauses of --timeout-body in all.",
        can_be_off=True,
    ),
    _limit(
        "idle_timeout_ms",
        "timeout-keep-alive",
        Unit.MILLISECONDS,
        (1, _DAY_MS),
        "the connection ends",
        "Time without a request.",
    ),
    _limit(
        "send_timeout_ms",
        "timeout-write",
        Unit.MILLISECONDS,
        (1, _DAY_MS),
        "the connection ends",
        "Time in which some of an answer has to be taken.",
    ),
    _limit(
        "send_bytes_per_s_min",
        "limit-send-rate",
        Unit.BYTES_PER_SECOND,
        (1, _U32_MAX),
        "the connection ends",
        "How fast answers have to be taken, apart from pauses of --timeout-write in all.",
        can_be_off=True,
    ),
    _limit(
        "handler_timeout_ms",
        "timeout-request",
        Unit.MILLISECONDS,
        (1, _DAY_MS),
        "503",
        "Time for a handler that awaits, until its answer begins; it is cancelled then.",
        can_be_off=True,
    ),
    _limit(
        "linger_bytes_max",
        "limit-linger",
        Unit.BYTES,
        (0, _U32_MAX),
        "the connection ends",
        "Bytes thrown away behind the last answer, so that it is not lost.",
    ),
    _limit(
        "linger_timeout_ms",
        "timeout-linger",
        Unit.MILLISECONDS,
        (1, _DAY_MS),
        "the connection ends",
        "Time for that.",
    ),
)

_BY_NAME = {limit.name: limit for limit in LIMITS}


def own_limits(
    reaper_settings: Mapping[str, float] | None, limits: Mapping[str, int | str] | None
) -> dict[str, int]:
    """What an application says, by name. Raises ConfigError for a wrong name or value.

    A number has the unit of the name; a str may have its own, as in `"16MiB"` or `"10s"`. The
    settings of Japronto's reaper are a number of seconds, or more than one.
    """
    checked = _check(limits)
    if not isinstance(reaper_settings, Mapping | None):
        raise ConfigError(f"reaper_settings must be a dict, not {reaper_settings!r}")
    for name, value in (reaper_settings or {}).items():
        if name not in ("check_interval", "idle_timeout"):
            raise ConfigError(f"reaper_settings has no {name!r}: use idle_timeout")
        if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
            raise ConfigError(f"reaper_settings[{name!r}] must be seconds above 0, not {value!r}")
        if name == "idle_timeout":
            if "idle_timeout_ms" in checked:
                raise ConfigError("reaper_settings and limits both give an idle timeout")
            checked["idle_timeout_ms"] = max(1, round(min(value, _IDLE_S_MAX) * 1000))
    return checked


def differing_limits(choices: Choices) -> dict[str, int]:
    """The limits that somebody has chosen, by name; the others are the core's own."""
    return {
        one.setting.name: one.value
        for one in choices
        if isinstance(one.setting, Limit) and one.layer is not Layer.DEFAULT
    }


def _check(limits: Mapping[str, int | str] | None) -> dict[str, int]:
    if not isinstance(limits, Mapping | None):
        raise ConfigError(f"limits must be a dict, not {limits!r}")
    checked = {}
    for name, value in (limits or {}).items():
        limit = _BY_NAME.get(name)
        if limit is None:
            known = ", ".join(_BY_NAME)
            raise ConfigError(f"there is no limit named {name!r}; known are {known}")
        place = f"limits[{name!r}]"
        if isinstance(value, int) and not isinstance(value, bool):
            checked[name] = limit.check(value, place, value)
        elif isinstance(value, str):
            checked[name] = limit.parse(value, place)
        else:
            raise ConfigError(f"{place} must be an int or a str, not {value!r}")
    return {name: number or 0 for name, number in checked.items()}

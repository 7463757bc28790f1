"""What the doctor finds: one line each."""

from dataclasses import dataclass
from enum import StrEnum


class Mark(StrEnum):
    """How a finding is to be taken; only `failed` means that something has to be done."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Finding:
    """What was looked at, what was found, and what to do about it where `said` does not tell.

    `origin` is where a setting comes from; `took_ms` how long a question took, in milliseconds.
    """

    group: str
    name: str
    said: str
    mark: Mark = Mark.OK
    advice: str = ""
    origin: str = ""
    took_ms: float | None = None

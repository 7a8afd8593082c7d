"""A record: what was measured, under what, and what could not be.

Owns the file: it is written after every sample, whole or not at all, so that an interrupted run loses at most
one and can go on. Knows nothing of how a sample is taken.
"""

import datetime
import json
import os
import pathlib

FORMAT = 2
# What must be the same for two halves of one record. The commit is: another one is another program.
MUST_AGREE = ("machine", "source", "python", "processors")


class Refused(Exception):
    """A record cannot be continued; the text says why."""


class Record:
    """A record in memory (`data`) and its file."""

    def __init__(self, data, path):
        self.data = data
        self.path = pathlib.Path(path)

    @classmethod
    def begin(cls, path, **about):
        """A new record without results; `about` is what the numbers depend on."""
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        data = {
            "format": FORMAT,
            "date": now,
            "complete": False,
            **about,
            "scenarios": {},
            "engines": {},
            "skipped": [],
            "failed": {},
            "results": {},
        }
        return cls(data, path)

    @classmethod
    def resume(cls, path, **about):
        """An unfinished record; `Refused` when it is finished, or was begun under something else."""
        record = cls(read(path), path)
        if record.data["complete"]:
            raise Refused(f"{path} is complete")
        for name in MUST_AGREE:
            # Through JSON, as the other one has been.
            now = json.loads(json.dumps(about[name]))
            if record.data[name] != now:
                raise Refused(f"{path} was begun with another {name}: {record.data[name]}")
        return record

    def save(self):
        """Writes the file; a reader sees the old one or the new one."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        new = self.path.with_name(self.path.name + ".new")
        new.write_text(json.dumps(self.data, indent=1) + "\n")
        os.replace(new, self.path)

    def note(self, line):
        """Remembers what was skipped, once; True when it is news."""
        if line in self.data["skipped"]:
            return False
        self.data["skipped"].append(line)
        return True

    def add(self, name, sample, **about):
        """Adds a sample to the result of this name, which is made of `about` when it is the first."""
        result = self.data["results"].setdefault(name, {**about, "samples": []})
        result["samples"].append(sample)

    def fail(self, name, reason):
        """From now on this pair is not tried any more."""
        self.data["failed"][name] = reason
        self.note(f"{name}: {reason}")

    def is_due(self, name, number):
        """Whether this pair still has to be measured in this round."""
        if name in self.data["failed"]:
            return False
        samples = self.data["results"].get(name, {}).get("samples", [])
        return number not in {sample["run"] for sample in samples}


def read(path):
    """A record file as a dict; `Refused` when it is none."""
    try:
        data = json.loads(pathlib.Path(path).read_text())
    except (OSError, ValueError) as error:
        raise Refused(f"{path}: {error}") from None
    if not isinstance(data, dict) or "results" not in data or "machine" not in data:
        raise Refused(f"{path}: not a record")
    data.setdefault("complete", True)
    data.setdefault("failed", {})
    return data


def key(scenario, engine):
    """The name of a result."""
    return f"{scenario.name}/{engine.name}"

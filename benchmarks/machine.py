"""What a number depends on besides the code: machine, kernel, versions, builds.

Every record begins with this. Paths, host names and users are left out: they say nothing about
speed.
"""

import json
import os
import pathlib
import platform
import re
import subprocess
import tomllib

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent

PYTHON_QUESTION = """
import json, platform, sysconfig
flags = sysconfig.get_config_var("CONFIG_ARGS") or ""
print(json.dumps({
    "version": platform.python_version(),
    "implementation": platform.python_implementation(),
    "compiler": platform.python_compiler(),
    "pgo": "--enable-optimizations" in flags,
    "lto": "--with-lto" in flags,
}))
"""

# CPython 3.7, which Japronto needs, has no importlib.metadata.
VERSIONS_QUESTION = """
import json, sys
try:
    from importlib.metadata import version
except ImportError:
    import pkg_resources
    def version(name):
        return pkg_resources.get_distribution(name).version
found = {}
for name in sys.argv[1:]:
    try:
        found[name] = version(name)
    except Exception:
        pass
print(json.dumps(found))
"""


def describe():
    """The machine and its kernel."""
    info = {
        "cpu_model": _first(r"model name\s*:\s*(.*)", _read("/proc/cpuinfo")),
        "processors": os.cpu_count(),
        "memory_kib": int(_first(r"MemTotal:\s*(\d+)", _read("/proc/meminfo")) or 0),
        "virtual": " hypervisor" in _read("/proc/cpuinfo"),
        "governor": _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor") or "none",
        "clocksource": _read("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
        "kernel": platform.release(),
        "congestion_control": _read("/proc/sys/net/ipv4/tcp_congestion_control"),
        "io_uring_disabled": _read("/proc/sys/kernel/io_uring_disabled"),
    }
    mitigations = pathlib.Path("/sys/devices/system/cpu/vulnerabilities")
    if mitigations.is_dir():
        texts = {path.name: _read(path) for path in sorted(mitigations.iterdir())}
        info["mitigations"] = {name: text for name, text in texts.items() if text != "Not affected"}
    return info


def python(executable):
    """Version and build of a Python; None when it does not run."""
    answer = _output(executable, "-c", PYTHON_QUESTION)
    return json.loads(answer) if answer else None


def versions(engine, places):
    """What an engine consists of: {name: version}, with None for what does not say."""
    found = {}
    distributions = [word for word in engine.versions if not word.startswith(("$", "crate:", "debian:"))]
    if distributions:
        executable = places.python_of(engine)
        answer = _output(executable, "-c", VERSIONS_QUESTION, *distributions)
        found.update(json.loads(answer) if answer else dict.fromkeys(distributions))
    for word in engine.versions:
        kind, _, name = word.partition(":")
        if word.startswith("$ "):
            command = word.removeprefix("$ ").split()
            found[command[0]] = _words(*command)
        elif kind == "crate":
            found[name] = _crate(name)
        elif kind == "debian":
            found[name] = _output("dpkg-query", "-f", "${Version}", "-W", name)
    return found


def _crate(name):
    """The version of a crate that the lock files of the benchmarks name."""
    for folder in ("benchmarks", "benchmarks/peers/rust"):
        lock = tomllib.loads(_read(REPOSITORY / folder / "Cargo.lock"))
        for package in lock.get("package", []):
            if package["name"] == name:
                return package["version"]
    return None


def _words(*command):
    """The first line that a program writes about itself, on either stream (nginx: stderr)."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return None
    lines = (done.stdout + done.stderr).strip().splitlines()
    return lines[0] if lines else None


def source():
    """The commit that is measured, and whether the tree differs from it."""
    commit = _output("git", "-C", str(REPOSITORY), "rev-parse", "HEAD")
    changed = _output("git", "-C", str(REPOSITORY), "status", "--porcelain")
    return {"commit": commit, "clean": changed == ""}


def tools():
    """Versions of the programs that measure and build."""
    return {
        "rustc": _output("rustc", "--version"),
        "wrk": (_output("wrk", "-v", check=False) or "").split(" Copyright")[0] or None,
        "strace": (_output("strace", "-V") or "").splitlines()[:1],
        "perf": _output("perf", "--version"),
    }


def _output(*command, check=True):
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=check)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _read(path):
    try:
        return pathlib.Path(path).read_text().strip()
    except OSError:
        return ""


def _first(pattern, text):
    found = re.search(pattern, text)
    return found.group(1) if found else None

"""What a number depends on besides the code: machine, kernel, versions, builds.

Every record begins with this. Paths, host names and users are left out: they say nothing about
speed.
"""

import os
import pathlib
import platform
import re
import subprocess

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent

PYTHON_QUESTION = """
import importlib, json, platform, sysconfig
def version(name):
    try:
        module = importlib.import_module(name)
    except Exception:
        return None
    return getattr(module, "__version__", "unknown")
flags = sysconfig.get_config_var("CONFIG_ARGS") or ""
print(json.dumps({
    "version": platform.python_version(),
    "implementation": platform.python_implementation(),
    "compiler": platform.python_compiler(),
    "pgo": "--enable-optimizations" in flags,
    "lto": "--with-lto" in flags,
    "packages": {name: version(name) for name in PACKAGES if version(name)},
}))
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


def python(executable, packages):
    """Version and build of a Python, and of `packages` in it; None when it does not run."""
    import json

    question = f"PACKAGES = {packages!r}\n{PYTHON_QUESTION}"
    try:
        done = subprocess.run(
            [executable, "-c", question], capture_output=True, text=True, timeout=30, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return json.loads(done.stdout)


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

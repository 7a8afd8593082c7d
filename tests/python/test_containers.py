"""The files of deploy/ for containers, and the workflows: what they name is there.

Owns what can be found out without a container: options, ports, times, files and pinned versions.
The profile of system calls is tried by `test_seccomp.py`.
"""

from __future__ import annotations

import json
import pathlib
import re
import shlex
import subprocess
import sys
from typing import Any

import pytest
import yaml
from anel import master, rules
from anel.cli import main
from conftest import DEADLINE_S, Serve

ROOT = pathlib.Path(__file__).parents[2]
PROGRAM = """
    from anel import Application
    app = Application()
"""

DEPLOY = ROOT / "deploy"
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def documents(name: str) -> list[dict[str, Any]]:
    """The documents of a YAML file."""
    return list(yaml.safe_load_all((DEPLOY / name).read_text()))


def dockerfile() -> list[tuple[str, str]]:
    """The instructions of the Dockerfile and what they say, continued lines joined."""
    text = re.sub(r"(?m)^#.*\n", "", (DEPLOY / "Dockerfile").read_text()).replace("\\\n", "")
    return [(line.split()[0], line.partition(" ")[2].strip()) for line in text.splitlines() if line]


def said_last(instruction: str) -> str:
    """What the last instruction of this name says: the image's."""
    return [said for name, said in dockerfile() if name == instruction][-1]


def understood(arguments: list[str]) -> dict[str, Any]:
    """What `anel run` understands of its arguments, by the names of options."""
    parameters = main.commands["run"].make_context("run", list(arguments)).params
    return {name: getattr(said, "value", said) for name, said in parameters.items()}


@pytest.fixture
def service() -> dict[str, Any]:
    """The application's service of the Compose file."""
    (compose,) = documents("compose.yaml")
    found: dict[str, Any] = compose["services"]["app"]
    return found


@pytest.fixture
def pod() -> dict[str, Any]:
    """The pod of the Deployment."""
    (deployment,) = (one for one in documents("kubernetes.yaml") if one["kind"] == "Deployment")
    found: dict[str, Any] = deployment["spec"]["template"]["spec"]
    return found


@pytest.fixture
def container(pod: dict[str, Any]) -> dict[str, Any]:
    """The application's container in it."""
    (found,) = pod["containers"]
    assert isinstance(found, dict)
    return found


def test_the_image_starts_what_there_is() -> None:
    entry, command = json.loads(said_last("ENTRYPOINT")), json.loads(said_last("CMD"))

    said = understood(command)

    assert entry == ["anel", "run"]
    ports = {str(said["port"]), said["metrics_bind"].rpartition(":")[2]}
    assert ports == set(said_last("EXPOSE").split())
    assert f"http://127.0.0.1:{said['metrics_bind'].rpartition(':')[2]}/health" in (
        said_last("HEALTHCHECK")
    )


def test_the_image_is_healthy_while_it_serves(serve: Serve) -> None:
    command = json.loads(said_last("HEALTHCHECK").partition(" CMD ")[2])
    server = serve(PROGRAM, "--metrics-bind", "127.0.0.1:0")
    port = server.wait_for_line(r"^Metrics at http://127\.0\.0\.1:(\d+)/metrics$")[1]

    def ask() -> int:
        asked = [word.replace(":9000/", f":{port}/") for word in command[1:]]
        ended = subprocess.run([sys.executable, *asked], capture_output=True, timeout=DEADLINE_S)
        return ended.returncode

    while_serving = ask()
    assert server.stop() == 0

    assert (command[0], while_serving, ask()) == ("python", 0, 1)


def test_the_image_is_nobody_elses_and_not_roots() -> None:
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", said_last("USER"))
    assert said_last("STOPSIGNAL") == "SIGTERM"


def test_the_builder_is_sent_what_the_image_is_made_of() -> None:
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    sent = {line[1:] for line in ignored if line.startswith("!")}
    copied = set()
    for name, said in dockerfile():
        if name == "COPY" and not said.startswith("--from"):
            copied.update(said.split()[:-1])

    assert copied == sent
    assert all((ROOT / path).exists() for path in copied)


def test_compose_starts_what_there_is(service: dict[str, Any]) -> None:
    said = understood(service["command"])
    (compose,) = documents("compose.yaml")
    mounted = {volume.split(":")[0]: volume.split(":")[1] for volume in service["volumes"]}

    # The socket is in the volume that nginx has, too, and in the place where its file says.
    assert str(pathlib.Path(said["uds"]).parent) == mounted["run"]
    assert f"unix:{said['uds']} " in (DEPLOY / "nginx.conf").read_text()
    assert f"run:{mounted['run']}" in compose["services"]["nginx"]["volumes"]
    for option in service["security_opt"]:
        name, _, value = option.partition("=")
        assert name != "seccomp" or (DEPLOY / value).exists()
    assert (DEPLOY / service["build"]["context"] / service["build"]["dockerfile"]).exists()
    # They share the socket as one user.
    assert compose["services"]["nginx"]["user"] == said_last("USER")


def test_the_pod_starts_what_there_is(container: dict[str, Any]) -> None:
    said = understood(container["args"])

    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports["http"] == said["port"]
    assert str(ports["metrics"]) == said["metrics_bind"].rpartition(":")[2]


def test_the_pod_has_time_to_end(pod: dict[str, Any], container: dict[str, Any]) -> None:
    said = understood(container["args"])
    delay_s, graceful_s = said["shutdown_delay_ms"] / 1000, rules.GRACEFUL_S

    # The kubelet has to have seen that it is not ready any more before it refuses anybody.
    probe = container["readinessProbe"]
    assert delay_s >= probe["periodSeconds"] * probe["failureThreshold"]
    hooks_s = master._SHUTDOWN_S
    assert pod["terminationGracePeriodSeconds"] > delay_s + graceful_s + hooks_s


def test_the_probes_ask_who_knows(container: dict[str, Any]) -> None:
    asked = {
        probe: (container[probe]["httpGet"]["port"], container[probe]["httpGet"]["path"])
        for probe in ("startupProbe", "readinessProbe", "livenessProbe")
    }

    assert asked == {
        "startupProbe": ("metrics", "/ready"),
        "readinessProbe": ("metrics", "/ready"),
        "livenessProbe": ("metrics", "/health"),
    }


def test_the_service_leads_to_the_pods() -> None:
    by_kind = {one["kind"]: one for one in documents("kubernetes.yaml")}
    labels = by_kind["Deployment"]["spec"]["template"]["metadata"]["labels"]
    container = by_kind["Deployment"]["spec"]["template"]["spec"]["containers"][0]

    assert by_kind["Service"]["spec"]["selector"] == labels
    assert by_kind["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
    (port,) = by_kind["Service"]["spec"]["ports"]
    assert port["targetPort"] in [port["name"] for port in container["ports"]]


def test_everything_is_pinned_and_every_step_is_a_target_of_make() -> None:
    targets = re.findall(r"(?m)^([a-z-]+):.*## ", (ROOT / "Makefile").read_text())
    for path in WORKFLOWS:
        workflow = yaml.safe_load(path.read_text())
        for job in workflow["jobs"].values():
            chosen = job.get("strategy", {}).get("matrix", {}).get("target", [])
            for step in job["steps"]:
                if "uses" in step:
                    assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", step["uses"])
                    continue
                program, *words = shlex.split(step["run"])
                if program == "rustup":
                    assert workflow["env"]["RUSTUP_TOOLCHAIN"] in words
                    continue
                assert program == "make"
                named = chosen if words[0] == "${{" else words[:1]
                assert named
                assert {name.split()[0] for name in named} <= set(targets)
    assert len(WORKFLOWS) == 2

"""The files of a deployment: what they say is true, and every command in them runs."""

import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from fastpubsub import __version__
from fastpubsub.config import Settings
from tests import harness, warm
from tests.conftest import Run, StartServer
from tests.lasting import Last

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"
SCHEDULES = {"cleanup_acked_messages": "0 * * * *", "cleanup_stuck_messages": "*/5 * * * *"}
PATHS_OF_PROBES = {"livenessProbe": "/liveness", "readinessProbe": "/readiness"}


def instructions() -> list[tuple[str, str]]:
    """Of the Dockerfile: names and arguments."""
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(name, rest.strip()) for name, _, rest in (line.partition(" ") for line in lines)]


def instruction(name: str) -> str:
    """The last one of that name."""
    return [rest for found, rest in instructions() if found == name][-1]


def words(text: str) -> list[str]:
    """The exec form, which is JSON."""
    parsed: list[str] = json.loads(text[text.index("[") :])
    return parsed


def documents(*parts: str) -> list[dict[str, Any]]:
    return [one for one in yaml.safe_load_all((DEPLOY.joinpath(*parts)).read_text()) if one]


def manifests() -> list[dict[str, Any]]:
    files = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
    return [one for file in files for one in documents("kubernetes", file.name) if one["kind"] != "Kustomization"]


def pods() -> list[dict[str, Any]]:
    found = [one for one in manifests() if one["kind"] in ("Deployment", "Job", "CronJob")]
    specs = [one["spec"]["jobTemplate"]["spec"] if one["kind"] == "CronJob" else one["spec"] for one in found]
    return [spec["template"]["spec"] for spec in specs]


def services() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = documents("compose.yaml")[0]["services"]
    return found


def ours() -> dict[str, dict[str, Any]]:
    return {name: service for name, service in services().items() if service["image"] == "fastpubsub"}


def commands() -> set[str]:
    """What the image is started with, in all files."""
    of_pods = {argument for pod in pods() for container in pod["containers"] for argument in container["args"]}
    of_compose = {service["command"][0] for service in ours().values() if "command" in service}
    return of_pods | of_compose | set(words(instruction("CMD")))


def test_the_image_serves_and_checks_its_health(server: StartServer, run: Run) -> None:
    assert words(instruction("ENTRYPOINT")) == ["fastpubsub"]
    assert words(instruction("CMD")) == ["server"]
    started = server()
    port = int(started.base_url.rpartition(":")[2])
    entry, *arguments = words(instruction("HEALTHCHECK"))
    assert entry == "fastpubsub"
    assert run(*arguments, api_port=port).returncode == 0
    assert started.stop() == 0
    assert run(*arguments, api_port=port).returncode == 1


def test_the_image_is_pinned_and_not_root() -> None:
    assert re.fullmatch(r"PYTHON=\d+\.\d+\.\d+-slim-\w+", instruction("ARG"))
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", instruction("USER"))
    assert instruction("STOPSIGNAL") == "SIGTERM"
    installs = [
        line for name, rest in instructions() if name == "RUN" for line in rest.split("&&") if " install " in line
    ]
    assert installs
    assert all("--require-hashes" in line or "--no-deps" in line for line in installs)


def sources() -> list[str]:
    """What the image is built from."""
    return [
        source
        for name, rest in instructions()
        if name == "COPY" and not rest.startswith("--from")
        for source in rest.split()[:-1]
    ]


def test_the_image_is_built_from_files_that_are_there() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    sent = [line[1:] for line in ignored if line.startswith("!")]
    assert sorted(sources()) == sorted(sent)
    assert all((ROOT / source).exists() for source in sources())


def test_every_command_runs(run: Run, empty_database_url: str) -> None:
    assert commands() == {"server", "db-migrate", "create_client", *SCHEDULES}
    for command in ("db-migrate", *SCHEDULES):
        done = run(command, database_url=empty_database_url)
        assert done.returncode == 0, done.stderr
    first = run(*services()["first-client"]["command"], database_url=empty_database_url)
    assert "client_secret=fps_" in first.stdout, first.stderr


@pytest.mark.parametrize(("service", "seconds"), [("cleanup-acked-messages", 3600), ("cleanup-stuck-messages", 300)])
def test_compose_cleans_up_again_and_again(service: str, seconds: int, database_url: str, tmp_path: Path) -> None:
    (tmp_path / "sleep").write_text(
        f'#!/bin/sh\necho "$@" >> "{tmp_path}/slept"\n[ $(wc -l < "{tmp_path}/slept") -lt 3 ]\n'
    )
    (tmp_path / "sleep").chmod(0o755)
    inherited = warm.commands(tmp_path)
    environment = harness.environment({"database_url": database_url}) | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    entry = services()[service]["entrypoint"]
    subprocess.run(entry, env=environment, cwd=tmp_path, pass_fds=inherited, check=True)
    assert (tmp_path / "slept").read_text().split() == [str(seconds)] * 3


def test_compose_starts_things_in_order() -> None:
    found = services()
    assert found["postgres"]["volumes"] == ["postgres:/var/lib/postgresql"]
    assert found["migrate"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}
    for name in set(ours()) - {"migrate"}:
        assert found[name]["depends_on"] == {"migrate": {"condition": "service_completed_successfully"}}
        assert found[name]["read_only"] is True


def test_what_compose_starts_beside_is_chosen_by_profiles() -> None:
    found, document = services(), documents("compose.yaml")[0]
    profiles = {profile for service in found.values() for profile in service.get("profiles", [])}
    text = (DEPLOY / "README.md").read_text()
    assert profiles == {"client", "monitoring", "tls"}
    assert all(f"--profile {profile}" in text for profile in profiles - {"client"})
    assert all((DEPLOY / config["file"]).is_file() for config in document["configs"].values())
    for service in found.values():
        assert {one["source"] for one in service.get("configs", [])} <= set(document["configs"])
        named = {volume.partition(":")[0] for volume in service.get("volumes", [])}
        assert named <= set(document["volumes"])


def test_prometheus_of_compose_asks_the_server_as_it_may(server: StartServer) -> None:
    """Without authentication, by the name that its container has there."""
    environment = services()["server"]["environment"]
    (job,) = documents("prometheus", "compose.yaml")[0]["scrape_configs"]
    (target,) = job["static_configs"][0]["targets"]
    assert job["authorization"]["credentials_file"] == "/run/secrets/metrics-token"
    base_url = server(metrics_token="t" * 16, api_allowed_hosts=environment["FASTPUBSUB_API_ALLOWED_HOSTS"]).base_url
    headers = {"Host": target, "Authorization": f"Bearer {'t' * 16}"}
    assert httpx.get(f"{base_url}/metrics", headers=headers).status_code == httpx.codes.OK
    assert httpx.get(f"{base_url}/metrics", headers=headers | {"Host": "other:8000"}).status_code >= 400


def test_grafana_of_compose_finds_its_source_and_its_dashboard() -> None:
    provisioning = DEPLOY / "grafana/provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources/prometheus.yaml").read_text())["datasources"]
    (provider,) = yaml.safe_load((provisioning / "dashboards/fastpubsub.yaml").read_text())["providers"]
    assert source["url"] == "http://prometheus:9090"
    targets = {one["source"]: one["target"] for one in services()["grafana"]["configs"]}
    assert Path(targets["dashboard"]).parent == Path(provider["options"]["path"])


@pytest.fixture
def kubernetes_validate(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Imported here, and without what jsonschema would take seconds to compile: each process collects this module."""
    monkeypatch.setitem(sys.modules, "rfc3987_syntax", None)
    return importlib.import_module("kubernetes_validate")


@pytest.mark.parametrize("file", sorted((DEPLOY / "kubernetes").glob("*.yaml")), ids=lambda file: file.stem)
def test_kubernetes_knows_every_field(file: Path, kubernetes_validate: Any) -> None:
    """By the schemas of Kubernetes; those of Kustomize are not among them."""
    for document in documents("kubernetes", file.name):
        if document["kind"] == "Kustomization":
            continue
        kubernetes_validate.validate(document, "1.34", strict=True)
        with pytest.raises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(document | {"surprise": 1}, "1.34", strict=True)


def test_kustomize_gets_what_is_there() -> None:
    (found,) = documents("kubernetes", "kustomization.yaml")
    assert set(found) == {"apiVersion", "kind", "resources", "images"}
    assert (found["apiVersion"], found["kind"]) == ("kustomize.config.k8s.io/v1beta1", "Kustomization")
    applied = {one["kind"] for name in found["resources"] for one in documents("kubernetes", name)}
    assert applied == {"Job", "Deployment", "Service"}
    (image,) = found["images"]
    assert (image["name"], str(image["newTag"])) == ("fastpubsub", __version__)


def test_kubernetes_probes_are_those_of_the_server(lasting_server: Last) -> None:
    (container,) = (one for pod in pods() for one in pod["containers"] if one["args"] == ["server"])
    probes = {name: container[name]["httpGet"] for name in PATHS_OF_PROBES}
    assert {name: probe["path"] for name, probe in probes.items()} == PATHS_OF_PROBES
    assert {probe["port"] for probe in probes.values()} == {Settings(_env_file=None).api_port}
    base_url = lasting_server().base_url
    for probe in probes.values():
        assert httpx.get(base_url + probe["path"]).status_code == httpx.codes.OK


def test_kubernetes_leaves_time_to_stop() -> None:
    (pod,) = (one for one in pods() if "terminationGracePeriodSeconds" in one)
    values = {one["name"]: int(one["value"]) for one in pod["containers"][0]["env"]}
    seconds = values["FASTPUBSUB_API_SHUTDOWN_DELAY_SECONDS"] + values["FASTPUBSUB_API_SHUTDOWN_GRACE_SECONDS"]
    assert seconds + 15 <= pod["terminationGracePeriodSeconds"]


def test_kubernetes_schedules_are_those_of_the_spec() -> None:
    jobs = [one for one in manifests() if one["kind"] == "CronJob"]
    schedules = {
        container["args"][0]: job["spec"]["schedule"]
        for job in jobs
        for container in job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    }
    assert schedules == SCHEDULES


def test_kubernetes_runs_nothing_as_root() -> None:
    user, _, group = instruction("USER").partition(":")
    for pod in pods():
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert [pod["securityContext"][name] for name in ("runAsUser", "runAsGroup")] == [int(user), int(group)]
        for container in pod["containers"]:
            assert container["image"] == f"fastpubsub:{__version__}"
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            assert [mount["mountPath"] for mount in container["volumeMounts"]] == ["/tmp"]


def test_every_variable_is_a_setting() -> None:
    files = [ROOT / "Dockerfile", *DEPLOY.rglob("*.yaml")]
    named = {name for file in files for name in re.findall(r"\bFASTPUBSUB_([A-Z_]+)\b", file.read_text())}
    assert named
    assert {name.lower() for name in named} <= set(Settings.model_fields)

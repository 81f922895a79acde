import re
from pathlib import Path
from typing import Any

import yaml
from typer.testing import CliRunner

from service.cli import app
from service.settings.service import load
from tests.deploy.test_metrics_named import ROOT

DEPLOY = ROOT / "deploy"
TOKEN = {"SHIFTWATCH_HTTP__TOKEN": "not a secret"}


def services() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((DEPLOY / "docker-compose.yaml").read_text())["services"]
    return found


def dockerfile() -> str:
    return (DEPLOY / "Dockerfile").read_text()


def test_the_image_runs_a_command_that_exists_without_being_root() -> None:
    text = dockerfile()
    assert 'ENTRYPOINT ["shiftwatch"]\nCMD ["run", "/config/shiftwatch.yaml"]' in text
    assert re.search(r"^USER [1-9]\d*:[1-9]\d*$", text, re.MULTILINE)
    unit = (DEPLOY / "systemd/shiftwatch.service").read_text()
    for command in ("run", "validate"):
        assert CliRunner().invoke(app, [command, "--help"]).exit_code == 0
    assert "/bin/shiftwatch run /etc/shiftwatch/shiftwatch.yaml\n" in unit


def test_the_image_is_made_of_files_that_are_there_and_in_its_context() -> None:
    ignore = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    for line in re.findall(r"^COPY (.+) \S+$", dockerfile(), re.MULTILINE):
        for name in line.split():
            assert f"!{name}" in ignore
            # The README belongs to the project's metadata and is written last.
            assert (ROOT / name).exists() or name == "README.md"


def test_the_container_listens_where_everybody_looks_for_it() -> None:
    settings = load(DEPLOY / "config/shiftwatch.yaml", TOKEN)
    port = settings.http.port
    assert settings.http.host == "0.0.0.0"
    assert f"http://127.0.0.1:{port}/healthz" in dockerfile()
    assert f"EXPOSE {port}\n" in dockerfile()
    assert services()["shiftwatch"]["ports"] == [f"127.0.0.1:{port}:{port}"]
    scrape = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())["scrape_configs"]
    assert scrape[0]["static_configs"] == [{"targets": [f"shiftwatch:{port}"]}]


def test_the_container_reads_its_source_from_a_mounted_folder() -> None:
    path = load(DEPLOY / "config/shiftwatch.yaml", TOKEN).source.path
    mounts = [Path(m.split(":")[1]) for m in services()["shiftwatch"]["volumes"]]
    assert path.parent in mounts


def test_no_port_is_open_to_other_machines_and_every_image_has_a_version() -> None:
    for service in services().values():
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])
        assert re.search(r":(v?\d+\.\d+\.\d+|local)$", service["image"])


def test_every_mounted_file_is_there() -> None:
    sources = {m.split(":")[0] for s in services().values() for m in s["volumes"]}
    for source in sources:
        # ./events holds what the operator puts there; names without ./ are volumes.
        if source.startswith("./") and source != "./events":
            assert (DEPLOY / source).is_dir(), source

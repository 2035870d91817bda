"""What the documents say of clusters is what the program takes."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness import cli
from harness.cli.app import INTERRUPTED
from harness.sweeps import spec as sweep
from harness.sweeps.spec import Resources

ROOT = Path(__file__).resolve().parents[2]
CLUSTER = (ROOT / "docs" / "cluster.md").read_text()


@pytest.fixture(scope="module")
def manifest() -> Any:
    return yaml.safe_load((ROOT / "docs" / "kuberay.yaml").read_text())


def pods(manifest: Any) -> list[Any]:
    cluster = manifest["spec"]["rayClusterSpec"]
    return [group["template"]["spec"] for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])]


def test_every_resource_is_documented() -> None:
    assert re.findall(r"^\| `(\w+)` \|", CLUSTER, re.MULTILINE) == list(Resources.model_fields)


def test_the_manifest_runs_a_command_that_exists(manifest: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (manifest["apiVersion"], manifest["kind"]) == ("ray.io/v1", "RayJob")
    program, *arguments = shlex.split(manifest["spec"]["entrypoint"])
    assert shutil.which(program, path=str(Path(sys.executable).parent)) is not None
    given: dict[str, Any] = {}

    def run(loaded: sweep.Sweep, folder: Path, **options: Any) -> None:
        given.update(options, sweep=loaded, folder=folder)
        raise KeyboardInterrupt

    monkeypatch.setattr("harness.runner.run.run", run)
    monkeypatch.setattr(sys, "argv", [program, *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == INTERRUPTED
    assert given["executor"] == "ray"
    cluster = manifest["spec"]["rayClusterSpec"]
    worker = pods(manifest)[1]["containers"][0]["resources"]["requests"]
    wanted = given["sweep"].resources
    assert (wanted.gpus, wanted.cpus) == (int(worker["nvidia.com/gpu"]), int(worker["cpu"]))
    assert given["jobs"] == sum(group["replicas"] for group in cluster["workerGroupSpecs"])
    mounts = [mount["mountPath"] for mount in pods(manifest)[0]["containers"][0]["volumeMounts"]]
    assert any(given["folder"].is_relative_to(mount) for mount in mounts), "the ledger is shared"


def test_every_pod_has_the_same_image_cache_and_volumes(manifest: Any) -> None:
    head, *workers = pods(manifest)
    for pod in workers:
        assert pod["volumes"] == head["volumes"]
        for key in ("image", "env", "volumeMounts"):
            assert pod["containers"][0][key] == head["containers"][0][key]


def test_one_version_of_ray_is_named(manifest: Any) -> None:
    version = manifest["spec"]["rayClusterSpec"]["rayVersion"]
    assert f"ray=={version}\n" in (ROOT / "constraints.txt").read_text()
    assert f"ARG RAY={version}\n" in (ROOT / "Dockerfile").read_text()

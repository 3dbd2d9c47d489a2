"""`jobs/cluster.yaml` and `jobs/kuberay.yaml`, as Ray's own code reads them.

The launcher's file goes through what `ray up` does before it asks for a machine, against an EC2 of moto's. Of the
RayJob, Ray's autoscaler reads the cluster. The rest of it is checked by hand: KubeRay's own schema, a CRD of 1.4 MB, is
in no Python package.
"""

from __future__ import annotations

import configparser
import copy
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import boto3
import botocore.session
import pytest
import yaml
from botocore.validate import ParamValidator
from jsonschema import ValidationError
from ray.autoscaler._private.aws.config import bootstrap_aws
from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.autoscaler.tags import TAG_RAY_CLUSTER_NAME, TAG_RAY_NODE_KIND, TAG_RAY_NODE_STATUS

from jobs import filter_laion
from tests.conftest import S3Server

PROJECT = Path(__file__).resolve().parents[2]
GIB = 1 << 30
IMAGE = "ami-00000000000000000"


def _read(name: str) -> dict[str, Any]:
    return yaml.safe_load((PROJECT / "jobs" / name).read_text())


@pytest.fixture
def prepared() -> dict[str, Any]:
    """The launcher's file with Ray's defaults in it, valid by Ray's schema."""
    config: dict[str, Any] = prepare_config(_read("cluster.yaml"))
    validate_config(config)
    return config


@pytest.fixture
def aws(s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An AWS account with nothing in it, and a home folder for the key pair that Ray makes."""
    (tmp_path / ".ssh").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server.endpoint_url)


def test_a_field_that_ray_does_not_know_is_refused() -> None:
    """Or the tests below would hold of anything."""
    config = _read("cluster.yaml")
    config["available_node_types"]["cpu"]["spot"] = True
    with pytest.raises(ValidationError, match="spot"):
        validate_config(prepare_config(config))


def test_ec2_takes_every_node(prepared: dict[str, Any]) -> None:
    service = botocore.session.get_session().get_service_model("ec2")
    asked = service.operation_model("RunInstances").input_shape
    for node in prepared["available_node_types"].values():
        report = ParamValidator().validate({**node["node_config"], "MinCount": 1, "MaxCount": 1}, asked)
        assert not report.has_errors(), report.generate_report()


@pytest.mark.slow
@pytest.mark.usefixtures("aws")
def test_ray_makes_a_cluster_of_it(prepared: dict[str, Any]) -> None:
    """Up to the machines: what each brings, its key pair, its network."""
    config = bootstrap_aws(AWSNodeProvider.fillout_available_node_types_resources(prepared))
    resources = {name: node["resources"] for name, node in config["available_node_types"].items()}
    assert resources["head"] == {"CPU": 0}
    assert (resources["cpu"]["CPU"], "GPU" in resources["cpu"]) == (16, False)
    assert (resources["gpu"]["CPU"], resources["gpu"]["GPU"]) == (8, 1)
    assert Path(config["auth"]["ssh_private_key"]).is_file()
    for node in config["available_node_types"].values():
        assert node["node_config"]["SubnetIds"]
        assert node["node_config"]["IamInstanceProfile"] == {"Name": "million-ird"}


@pytest.mark.slow
@pytest.mark.usefixtures("aws")
def test_ray_down_leaves_no_machine(prepared: dict[str, Any], s3_server: S3Server, tmp_path: Path) -> None:
    """As a user gives it, with a head and a worker. What the head would be told first, by SSH, is let go: it is new."""
    ec2 = boto3.client("ec2", endpoint_url=s3_server.endpoint_url, region_name=prepared["provider"]["region"])
    for kind in ("head", "worker"):
        tags = {TAG_RAY_CLUSTER_NAME: prepared["cluster_name"], TAG_RAY_NODE_KIND: kind, TAG_RAY_NODE_STATUS: "new"}
        tagged = [{"ResourceType": "instance", "Tags": [{"Key": key, "Value": tags[key]} for key in tags]}]
        ec2.run_instances(ImageId=IMAGE, MinCount=1, MaxCount=1, InstanceType="t3.micro", TagSpecifications=tagged)

    def running() -> int:
        wanted = [
            {"Name": f"tag:{TAG_RAY_CLUSTER_NAME}", "Values": [prepared["cluster_name"]]},
            {"Name": "instance-state-name", "Values": ["pending", "running"]},
        ]
        found = ec2.describe_instances(Filters=wanted)["Reservations"]
        return sum(len(one["Instances"]) for one in found)

    assert running() == 2
    mine = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    ended = subprocess.run(
        [str(Path(sys.executable).with_name("ray")), "down", "jobs/cluster.yaml", "-y"],
        cwd=PROJECT,
        env={**mine, "TMPDIR": str(tmp_path)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert running() == 0


def test_only_the_workers_of_the_filter_are_on_spot(prepared: dict[str, Any]) -> None:
    nodes = prepared["available_node_types"]
    assert [name for name in nodes if "InstanceMarketOptions" in nodes[name]["node_config"]] == ["cpu"]


def test_no_worker_waits_that_nobody_asked_for(prepared: dict[str, Any]) -> None:
    nodes = prepared["available_node_types"]
    assert {name: node["min_workers"] for name, node in nodes.items()} == dict.fromkeys(nodes, 0)
    assert prepared["max_workers"] == sum(node["max_workers"] for node in nodes.values())
    assert prepared["idle_timeout_minutes"] > 0


def test_the_whole_package_travels_and_nothing_else(prepared: dict[str, Any]) -> None:
    """An environment beside it is not even hashed."""
    setup = configparser.ConfigParser()
    setup.read(PROJECT / "setup.cfg")
    packages = {name.rstrip("*") for name in setup["options.packages.find"]["include"].split()}
    files = {"setup.cfg", "pyproject.toml", setup["metadata"]["license_files"], "README.md"}
    mounts = prepared["file_mounts"]
    assert mounts == {f"~/million-ird/{name}": name for name in packages | files}
    assert all((PROJECT / name).exists() for name in mounts.values())
    assert any("~/million-ird" in command for command in prepared["setup_commands"])


def test_no_key_is_in_either_file() -> None:
    for name in ("cluster.yaml", "kuberay.yaml"):
        text = (PROJECT / "jobs" / name).read_text().lower()
        assert not any(word in text for word in ("aws_access", "aws_secret", "access_key", "secretkeyref"))


def test_both_name_one_ray_that_the_package_takes() -> None:
    job = _read("kuberay.yaml")
    version = job["spec"]["rayClusterSpec"]["rayVersion"]
    assert any(f"ray[default,data,train]=={version}" in command for command in _read("cluster.yaml")["setup_commands"])
    assert f"rayproject/ray:{version}-" in (PROJECT / "jobs" / "kuberay.yaml").read_text()
    assert tuple(map(int, version.split("."))) >= (2, 60)


def _groups(job: dict[str, Any]) -> list[dict[str, Any]]:
    cluster = job["spec"]["rayClusterSpec"]
    return [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]


def test_rays_autoscaler_reads_the_cluster_of_the_job() -> None:
    spec = copy.deepcopy(_read("kuberay.yaml")["spec"]["rayClusterSpec"])
    config = _derive_autoscaling_config_from_ray_cr({"metadata": {"name": "x", "namespace": "y"}, "spec": spec})
    resources = {name: node["resources"] for name, node in config["available_node_types"].items()}
    assert resources["headgroup"]["CPU"] == 0
    assert (resources["cpu"]["CPU"], resources["gpu"]["CPU"], resources["gpu"]["GPU"]) == (16, 8, 1)
    assert "GPU" not in resources["cpu"]
    assert config["max_workers"] == 36
    assert config["idle_timeout_minutes"] == 10


def test_no_worker_has_less_memory_than_the_head() -> None:
    """`pipelines.cluster.memory` asks for up to 0.9 of the largest node's: a smaller one might never get a task."""
    spec = _read("kuberay.yaml")["spec"]["rayClusterSpec"]
    config = _derive_autoscaling_config_from_ray_cr({"metadata": {"name": "x", "namespace": "y"}, "spec": spec})
    memory = {name: node["resources"]["memory"] for name, node in config["available_node_types"].items()}
    assert memory["headgroup"] == 16 * GIB == min(memory.values())


def test_every_pod_is_bounded_and_has_the_same_image_and_role() -> None:
    pods = [group["template"]["spec"] for group in _groups(_read("kuberay.yaml"))]
    containers = [container for pod in pods for container in pod["containers"]]
    assert len(containers) == len(pods) == 3
    assert len({container["image"] for container in containers}) == 1
    assert len({pod["serviceAccountName"] for pod in pods}) == 1
    for container in containers:
        assert container["resources"]["requests"] == container["resources"]["limits"]
        assert set(container["resources"]["limits"]) >= {"cpu", "memory", "ephemeral-storage"}
    assert {pod["restartPolicy"] for pod in pods} == {"Never"}  # a pod that starts again would be another Ray node


def test_the_job_ends_its_cluster_and_begins_again_by_itself() -> None:
    job = _read("kuberay.yaml")
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    assert job["spec"]["shutdownAfterJobFinishes"]
    assert job["spec"]["backoffLimit"] > 0
    assert job["spec"]["rayClusterSpec"]["enableInTreeAutoscaling"]


def test_the_job_is_a_command_that_the_filter_takes() -> None:
    program, *words = shlex.split(_read("kuberay.yaml")["spec"]["entrypoint"])
    assert program == filter_laion.PROGRAM
    flags = filter_laion._run_parser().parse_args(words)
    assert flags.urls[0].startswith("s3://")
    assert flags.out.startswith("s3://")

"""deploy/kubernetes/, rendered, against the schemas of Kubernetes and the Compose file.

No cluster is asked: that they can be applied is checked, not that they run.
"""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from reward_services.settings import ServiceSettings
from tests.stack import REWARDS

kubernetes_validate = pytest.importorskip("kubernetes_validate")
if shutil.which("kubectl") is None:
    pytest.skip("rendering needs kubectl", allow_module_level=True)

FOLDER = Path(__file__).parent.parent / "deploy" / "kubernetes"
VERSIONS = ("1.31", "1.37")
Objects = list[dict[str, Any]]


@pytest.fixture(scope="module")
def rendered() -> dict[str, Objects]:
    """The objects of the base and of the overlay."""
    return {overlay: render(overlay) for overlay in ("base", "gpu")}


def render(overlay: str) -> Objects:
    command = ["kubectl", "kustomize", str(FOLDER / overlay)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return list(yaml.safe_load_all(done.stdout))


def of_kind(objects: Objects, *kinds: str) -> dict[str, dict[str, Any]]:
    """Name \u2192 object."""
    return {each["metadata"]["name"]: each for each in objects if each["kind"] in kinds}


def pods(objects: Objects) -> dict[str, dict[str, Any]]:
    """Name of what makes them \u2192 the specification of its pods."""
    made = of_kind(objects, "Deployment", "StatefulSet", "Job")
    return {name: each["spec"]["template"]["spec"] for name, each in made.items()}


@pytest.mark.parametrize("overlay", ["base", "gpu"])
@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_fits_its_schema(
    rendered: dict[str, Objects], overlay: str, version: str
) -> None:
    assert len(rendered[overlay]) > 30
    for each in rendered[overlay]:
        kubernetes_validate.validate(each, version, strict=True)


@pytest.mark.parametrize("overlay", ["base", "gpu"])
def test_every_pod_is_restricted(rendered: dict[str, Objects], overlay: str) -> None:
    """As the namespace demands of them (Pod Security Standards, restricted)."""
    for name, pod in pods(rendered[overlay]).items():
        assert pod["securityContext"]["runAsNonRoot"] is True, name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert pod["automountServiceAccountToken"] is False, name
        (container,) = pod["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }, name
        assert container["resources"]["limits"]["memory"], name


def test_every_reward_is_complete(rendered: dict[str, Objects]) -> None:
    base = rendered["base"]
    made, scalers = pods(base), of_kind(base, "HorizontalPodAutoscaler")
    for name, reward in REWARDS.items():
        for part in ("api", "worker"):
            (container,) = made[f"{name}-{part}"]["containers"]
            assert container["args"] == [part, reward]
            assert f"{name}-{part}" in of_kind(base, "PodDisruptionBudget")
        spec = scalers[f"{name}-worker"]["spec"]
        assert spec["scaleTargetRef"]["name"] == f"{name}-worker"
        metric = spec["metrics"][0]["external"]["metric"]
        assert metric["selector"]["matchLabels"] == {"service": reward}
    assert set(of_kind(base, "Service")) == {"redis", *(f"{name}-api" for name in REWARDS)}


def test_a_service_reaches_its_own_pods_alone(rendered: dict[str, Objects]) -> None:
    deployments = of_kind(rendered["base"], "Deployment", "StatefulSet")
    for name, service in of_kind(rendered["base"], "Service").items():
        wanted = service["spec"]["selector"].items()
        reached = {
            other
            for other, made in deployments.items()
            if wanted <= made["spec"]["template"]["metadata"]["labels"].items()
        }
        assert reached == {name}


def test_pods_may_take_as_long_to_stop_as_their_services(rendered: dict[str, Objects]) -> None:
    for name, pod in pods(rendered["base"]).items():
        (container,) = pod["containers"]
        own = {each["name"]: each["value"] for each in container.get("env", [])}
        settings = ServiceSettings()
        delay = float(own.get("REWARD_DRAIN_DELAY_S", settings.drain_delay_s))
        if name.endswith(("-api", "-worker")):
            assert pod["terminationGracePeriodSeconds"] > delay + settings.drain_timeout_s


def test_the_overlay_gives_gpus_to_those_who_have_models(rendered: dict[str, Objects]) -> None:
    with_gpu = {
        name
        for name, pod in pods(rendered["gpu"]).items()
        if "nvidia.com/gpu" in pod["containers"][0]["resources"]["limits"]
    }
    assert with_gpu == {"aesthetic-worker", "alignment-worker", "trainer"}
    for name in with_gpu:
        pod = pods(rendered["gpu"])[name]
        assert pod["containers"][0]["image"].endswith("-cuda")
        models = next(volume for volume in pod["volumes"] if volume["name"] == "models")
        assert models == {"name": "models", "persistentVolumeClaim": {"claimName": "models"}}

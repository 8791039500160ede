"""kubectl on a host of the scenario's cluster: the first one, unless a test takes that down."""

from hosts import connect, group


def kubectl(command: str, via: str = group("microk8s")[0]) -> str:
    output: str = connect(via).check_output(
        "/snap/bin/microk8s kubectl --namespace chat " + command
    )
    return output.strip()


def deployed_image() -> str:
    """The chat's image, by digest, with the cluster's name for it."""
    path = "{.spec.template.spec.containers[0].image}"
    return kubectl(f"get deployment chat --output jsonpath={path}")

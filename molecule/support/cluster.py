"""The scenario's cluster, asked on one of its hosts: the first, unless a test takes that away."""

from hosts import connect, group


def kubectl(command: str, via: str = group("microk8s")[0]) -> str:
    output: str = connect(via).check_output(
        "/snap/bin/microk8s kubectl --namespace chat " + command
    )
    return output.strip()


def deployed_image() -> str:
    """The chat's, by digest, as the cluster calls it."""
    path = "{.spec.template.spec.containers[0].image}"
    return kubectl(f"get deployment chat --output jsonpath={path}")

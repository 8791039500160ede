"""A worker's proxy to the API servers: its local port 16443 forwards to any of them [ag pkg/proxy].

It reads their addresses from `args/traefik/provider.yaml`, which belongs to Traefik in the real
snap. It queries the cluster again every `--refresh-interval` (in `args/apiserver-proxy`; 0s means
never).
"""

import argparse
import asyncio
import contextlib
import http.client
import re
import sys

import yaml

from microk8s import arguments, kubernetes, paths

PROVIDER = paths.ARGS / "traefik/provider.yaml"
SERVICE = "kube-apiserver"
SLICES = (
    "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"
    "?labelSelector=kubernetes.io/service-name%3Dkubernetes"
)
CONNECT_TIMEOUT = 2  # seconds, until the next one is tried
UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}


def servers() -> list[str]:
    """The API servers as ADDRESS:PORT."""
    balancer = yaml.safe_load(PROVIDER.read_text())["tcp"]["services"][SERVICE]["loadBalancer"]
    return [each["address"] for each in balancer["servers"]]


def write(addresses: list[str]) -> None:
    router = {"rule": "HostSNI(`*`)", "service": SERVICE, "tls": {"passthrough": True}}
    balancer = {"servers": [{"address": each} for each in addresses]}
    provider = {
        "tcp": {
            "routers": {"Router-1": router},
            "services": {SERVICE: {"loadBalancer": balancer}},
        }
    }
    PROVIDER.parent.mkdir(exist_ok=True)
    new = PROVIDER.with_suffix(".new")
    new.write_text(yaml.safe_dump(provider))
    new.replace(PROVIDER)


def refresh() -> None:
    """Query the API servers of the cluster. Without an answer, keep the known ones."""
    try:
        items = kubernetes.get(SLICES).get("items", [])
    except (OSError, http.client.HTTPException, ValueError) as error:
        print(f"failed to retrieve the API servers: {error}", file=sys.stderr)
        return
    found = {
        f"{address}:{port['port']}"
        for each in items
        for endpoint in each.get("endpoints") or []
        for address in endpoint["addresses"]
        for port in each["ports"]
    }
    if found and sorted(found) != servers():
        print(f"updating API servers: {', '.join(sorted(found))}", file=sys.stderr)
        write(sorted(found))


class Proxy:
    def __init__(self) -> None:
        self.turn = 0

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect to the next API server that accepts a connection, round robin."""
        known = servers()
        for _attempt in known:
            self.turn += 1
            host, _, port = known[self.turn % len(known)].rpartition(":")
            with contextlib.suppress(OSError, TimeoutError):
                return await asyncio.wait_for(asyncio.open_connection(host, port), CONNECT_TIMEOUT)
        raise ConnectionRefusedError(f"none of {', '.join(known)} takes a connection")

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            server_reader, server_writer = await self.connect()
        except ConnectionRefusedError as error:
            print(error, file=sys.stderr)
            writer.close()
            return
        ways = {
            asyncio.create_task(copy(reader, server_writer)),
            asyncio.create_task(copy(server_reader, writer)),
        }
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for way in ways:
            way.cancel()
        writer.close()
        server_writer.close()


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()


def seconds(duration: str) -> float:
    """A duration in Go's notation: 30s, 1m30s."""
    parts = re.findall(r"([0-9.]+)(ms|s|m|h)", duration)
    if "".join(number + unit for number, unit in parts) != duration:
        raise argparse.ArgumentTypeError(f"'{duration}' is no duration such as 30s or 1m30s")
    return sum(float(number) * UNITS[unit] for number, unit in parts)


async def serve_and_refresh(interval: float) -> None:
    proxy = Proxy()
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", paths.API_PORT)
    async with server:
        while interval:
            await asyncio.to_thread(refresh)
            await asyncio.sleep(interval)
        await server.serve_forever()


def main() -> int:
    parser = argparse.ArgumentParser(prog="apiserver-proxy")
    parser.add_argument("--refresh-interval", type=seconds, default=30)
    options = parser.parse_args(arguments.read("apiserver-proxy"))
    asyncio.run(serve_and_refresh(options.refresh_interval))
    return 0

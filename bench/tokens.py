"""What required tokens cost: the chat with `CHAT_AUTH=required` beside the chat without, in turns.

Fan-out, inbound messages and idle clients are workloads of `script/bench`, with the relay in
memory. Each client has a token of its own (ES256). `all` also has rules for rooms, private rooms,
sanctions and revisions, so each message is checked against all of them. A client's arrival is its
handshake, `hello` and `join`.

    .venv/bin/python bench/tokens.py --rounds 5

It prints the medians, and the medians of the ratios and differences of each round to `off`. Run
`sandbox/build --from bench wsload` first.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from joserfc import jwt
from joserfc.jwk import ECKey

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from bench.contenders import CHAT, Contender  # noqa: E402
from bench.run import Run, run  # noqa: E402
from bench.workloads import WORKLOADS, Metric  # noqa: E402

NAMES = "fan-out", "inbound", "idle"
ARRIVAL = Metric(
    "ms",
    "CPU time of the server per client that arrives",
    lambda run: run.server_cpu_joined / run.clients * 1e3,
)
ALL = {
    "CHAT_ROOMS": json.dumps(
        [{"rooms": "staff-*", "read": ["staff"]}, {"rooms": "*", "moderate": ["desk"]}]
    ),
    "CHAT_PRIVATE_ROOMS": "true",
    "CHAT_SANCTIONS": "true",
    "CHAT_REVISIONS": "true",
}


def tokens(key: ECKey, count: int) -> Iterator[str]:
    now = int(time.time())
    claims = {"iss": "bench", "aud": "chat", "groups": ["people"], "iat": now, "exp": now + 3600}
    for number in range(count):
        person = {"sub": f"subject-{number}", "preferred_username": f"user{number}"}
        yield jwt.encode({"alg": "ES256", "kid": "bench"}, claims | person, key)


def contenders(folder: Path, key: ECKey) -> list[Contender]:
    keys = folder / "keys.json"
    keys.write_text(json.dumps({"keys": [key.as_dict(private=False)]}))
    issuer = {"issuer": "bench", "audience": "chat", "jwks": str(keys), "groups_claim": "groups"}
    required = {"CHAT_AUTH": "required", "CHAT_AUTH_ISSUERS": json.dumps([issuer])}

    def variant(name: str, more: dict[str, str]) -> Contender:
        return replace(CHAT, name=name, environment=lambda port: {**CHAT.environment(port), **more})

    return [variant("off", {}), variant("required", required), variant("all", required | ALL)]


def report(title: str, metric: Metric, rounds: list[dict[str, Run]]) -> None:
    print(f"\n{title}: {metric.meaning}, {metric.unit}")
    for name in rounds[0]:
        found = [metric.of(each[name]) for each in rounds]
        off = [metric.of(each["off"]) for each in rounds]
        ratios = [one / other for one, other in zip(found, off, strict=True)]
        more = statistics.median(one - other for one, other in zip(found, off, strict=True))
        print(
            f"  {name:9} {statistics.median(found):7.3f} ({min(found):.3f} to {max(found):.3f}),"
            f" ratio {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f}),"
            f" difference {more:+.3f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each workload (5)")
    parser.add_argument("workloads", nargs="*", default=NAMES, metavar="WORKLOAD")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        key = ECKey.generate_key("P-256", {"kid": "bench"})
        (folder / "tokens").write_text("\n".join(tokens(key, 10_000)))
        variants = contenders(folder, key)
        for workload in WORKLOADS:
            if workload.name not in options.workloads:
                continue
            rounds: list[dict[str, Run]] = []
            for number in range(options.rounds):
                # Each is first, in turn.
                turns = variants[number % 3 :] + variants[: number % 3]
                rounds.append({})
                for variant in turns:
                    load = [*workload.load]
                    load += [] if variant.name == "off" else [f"--tokens={folder / 'tokens'}"]
                    rounds[-1][variant.name] = run(variant, load, settle=workload.settle)
            rounds = [{one.name: each[one.name] for one in variants} for each in rounds]
            report(workload.title, workload.metric, rounds)
            if workload.name == "idle":
                report(workload.title, ARRIVAL, rounds)
            others = statistics.median(each["off"].others_share for each in rounds)
            print(f"  the rest of the machine: {others:.2f} cores")


if __name__ == "__main__":
    main()

"""Rate limits per client, and per address.

Behind a proxy every connection comes from the proxy, and the client's address is in
X-Forwarded-For. Anybody may write that header, so it is believed only as far as trusted proxies
wrote it: read from its end, the first address that is not one of theirs is the client's.
"""

from __future__ import annotations

import ipaddress
import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# The network that a provider gives to one customer (RFC 6177), who may use any address in it.
_IPV6_PREFIX = 64
# Proxies in a row that are believed.
_MOST_HOPS = 20


class TokenBucket:
    """Allows `rate` per second for long, `burst` at once."""

    __slots__ = ("_burst", "_clock", "_rate", "_then", "_tokens")

    def __init__(
        self, rate: float, burst: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._rate = rate
        self._burst = burst
        self._clock = clock
        self._tokens = float(burst)
        self._then = clock()

    def take(self, count: int = 1) -> bool:
        """Whether there is a token. If so, take `count`, which may leave a debt."""
        now = self._clock()
        self._tokens = min(self._burst, self._tokens_at(now))
        self._then = now
        if self._tokens < 1:
            return False
        self._tokens -= count
        return True

    @property
    def empty(self) -> bool:
        return self._tokens_at(self._clock()) < 1

    @property
    def full(self) -> bool:
        return self._tokens_at(self._clock()) >= self._burst

    def _tokens_at(self, now: float) -> float:
        return self._tokens + (now - self._then) * self._rate


class Budgets:
    """The bucket of each address that has sent something lately."""

    def __init__(
        self, rate: float, burst: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._rate = rate
        self._burst = burst
        self._clock = clock
        self._buckets: dict[str, TokenBucket] = {}
        self._next_sweep = 1024

    def of(self, address: str) -> TokenBucket:
        """The bucket that all connections of `address` share, and those after them."""
        bucket = self._buckets.get(address)
        if bucket is None:
            if len(self._buckets) >= self._next_sweep:
                self._sweep()
            bucket = self._buckets[address] = TokenBucket(self._rate, self._burst, self._clock)
        return bucket

    def __len__(self) -> int:
        return len(self._buckets)

    def _sweep(self) -> None:
        # A full bucket equals a new one, so drop it. If a connection still holds it, its address
        # gets a second bucket, once.
        self._buckets = {key: one for key, one in self._buckets.items() if not one.full}
        self._next_sweep = max(1024, 2 * len(self._buckets))


class Shares:
    """Something of which there is `most`, half of it for one address."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._each = (most + 1) // 2
        self.taken = 0
        self._of_address: Counter[str] = Counter()

    @property
    def exhausted(self) -> bool:
        return self.taken >= self.most

    def has_enough(self, address: str) -> bool:
        """Whether `address` has taken its half."""
        return self._of_address[address] >= self._each

    def take(self, address: str) -> None:
        self.taken += 1
        self._of_address[address] += 1

    def give_back(self, address: str) -> None:
        self.taken -= 1
        self._of_address[address] -= 1
        if not self._of_address[address]:
            del self._of_address[address]


def is_one_of(peer: str, networks: Sequence[Network]) -> bool:
    """Whether `peer`, an address, is in one of the networks."""
    try:
        address = ipaddress.ip_address(peer)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return any(address in network for network in networks)


def client_address(peer: str, forwarded: Iterable[str], proxies: Sequence[Network]) -> str:
    """The address to hold a client to: an IPv4 address, or an IPv6 network.

    `peer` is who connected, `forwarded` the values of X-Forwarded-For in their order.
    """
    hops = [hop.strip() for value in forwarded for hop in value.split(",")]
    address = None
    for hop in itertools.chain([peer], reversed(hops[-_MOST_HOPS:])):
        try:
            found = ipaddress.ip_address(hop)
        except ValueError:
            break
        address = found
        if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
            address = found.ipv4_mapped
        if not any(address in proxy for proxy in proxies):
            break
    if address is None:
        return peer
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((address, _IPV6_PREFIX), strict=False))
    return str(address)

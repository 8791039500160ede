"""A TCP proxy that delays data, run on a host: slow_link.py PORT HOST:PORT DELAY RATE

It forwards connections from PORT to HOST:PORT. Each byte arrives DELAY seconds after it was sent.
All connections together get RATE bytes per second in each direction. It stands in for the kernel's
tc netem, which not every kernel has. It neither loses nor reorders packets.
"""

import asyncio
import sys


class Line:
    """One direction of the link. `free` is when the data before has been sent."""

    def __init__(self, delay: float, rate: float) -> None:
        self.delay = delay
        self.rate = rate
        self.free = 0.0

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(maxsize=64)

        async def arrive() -> None:
            while True:
                due, data = await under_way.get()
                await asyncio.sleep(due - loop.time())
                if not data:
                    writer.close()
                    return
                writer.write(data)
                await writer.drain()

        arriving = asyncio.create_task(arrive())
        data = b"..."
        while data:
            try:
                data = await reader.read(16_384)
            except ConnectionError:
                data = b""
            self.free = max(self.free, loop.time()) + len(data) / self.rate
            await under_way.put((self.free + self.delay, data))
        await arriving


async def main(port: str, target: str, delay: str, rate: str) -> None:
    there, back = Line(float(delay), float(rate)), Line(float(delay), float(rate))
    host, _, target_port = target.rpartition(":")

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        target_reader, target_writer = await asyncio.open_connection(host, int(target_port))
        await asyncio.gather(
            there.carry(reader, target_writer),
            back.carry(target_reader, writer),
            return_exceptions=True,
        )

    server = await asyncio.start_server(connected, port=int(port))
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

"""An echo server in the manner of asyncio's documentation (Protocols).

    asyncio_echo.py tcp|udp ADDRESS

It listens on a free port of ADDRESS and prints it. It ends by itself after half an hour.
"""
import asyncio
import signal
import sys


class TCPEcho(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.transport.write(data)


class UDPEcho(asyncio.DatagramProtocol):
    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, addr):
        self.transport.sendto(data, addr)


async def main(protocol, address):
    loop = asyncio.get_running_loop()
    if protocol == "tcp":
        server = await loop.create_server(TCPEcho, address, 0, backlog=4096)
        host, port = server.sockets[0].getsockname()
    else:
        transport, _ = await loop.create_datagram_endpoint(UDPEcho, local_addr=(address, 0))
        host, port = transport.get_extra_info("sockname")
    print(f"{host}:{port}", flush=True)
    await asyncio.Event().wait()


signal.alarm(1800)
asyncio.run(main(sys.argv[1], sys.argv[2]))

#!/usr/bin/env python3
"""Ends TLS in front of a plain server, as HAProxy or NGINX would: tls-relay.py CERTIFICATE KEY PORT.

Prints its own port, and relays until it is ended.
"""

import asyncio
import ssl
import sys


async def pump(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except (ConnectionError, ssl.SSLError):
        pass
    writer.close()


async def main(certificate, key, port):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    async def accept(reader, writer):
        try:
            server_reader, server_writer = await asyncio.open_connection("127.0.0.1", int(port))
        except ConnectionError:
            return writer.close()
        await asyncio.gather(pump(reader, server_writer), pump(server_reader, writer))

    server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=context)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

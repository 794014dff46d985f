"""HTTP/1.1 on asyncio protocols, parsed by llhttp: the client's side and the connections to workers."""

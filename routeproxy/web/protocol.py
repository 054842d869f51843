"""HTTP/1.1 as uvicorn speaks it, but for one offer that it must not hear."""

import re

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_OFFER = re.compile(rb"\r\nupgrade: *h2c *(?=\r\n)", re.IGNORECASE)


class Http(HttpToolsProtocol):
    """Java's client offers to go on in HTTP/2, which a server may ignore. uvicorn ignores the body as well,
    and the request waits for ever."""

    def data_received(self, data: bytes) -> None:
        # No JSON holds a bare line end, so this is a header or nothing.
        super().data_received(_OFFER.sub(b"", data) if b"h2c" in data else data)

"""What every answer carries, so that a browser runs, frames and shares nothing that is not the page's own."""

import re
from http import HTTPStatus
from secrets import token_hex

from tornado.httputil import HTTPHeaders, HTTPServerRequest
from tornado.web import OutputTransform

EVERYWHERE = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
POLICY = (
    "default-src 'none'; "
    # Bokeh compiles its own callbacks and templates; without 'unsafe-eval' no page is drawn.
    "script-src 'nonce-{nonce}' 'strict-dynamic' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; "
    "font-src 'self' data:; "
    "connect-src 'self'; "
    "worker-src blob:; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'"
)
SCRIPT_TAG = re.compile(rb"<script(?=[\s>])")


class ProtectiveHeaders(OutputTransform):
    """Adds the headers to an answer and, to one that is HTML, a policy with a nonce that its own scripts carry."""

    def __init__(self, request: HTTPServerRequest) -> None:
        super().__init__(request)
        self._nonce = token_hex(16)

    def transform_first_chunk(
        self,
        status_code: int,
        headers: HTTPHeaders,
        chunk: bytes,
        finishing: bool,  # noqa: FBT001 - Tornado's own signature
    ) -> tuple[int, HTTPHeaders, bytes]:
        """The status as it is, more headers, and the page's scripts marked as its own."""
        if status_code == HTTPStatus.SWITCHING_PROTOCOLS:
            return status_code, headers, chunk
        for name in [name for name in headers if name.startswith("Access-Control-")]:
            del headers[name]  # nobody else's page reads an answer
        headers.update(EVERYWHERE)
        if headers.get("Content-Type", "").startswith("text/html"):
            headers["Content-Security-Policy"] = POLICY.format(nonce=self._nonce)
            headers["Cache-Control"] = "no-store"  # a stored page has the nonce of another answer
            headers.pop("Etag", None)
            chunk = self._marked(headers, chunk, is_whole=finishing)
        return status_code, headers, chunk

    def _marked(self, headers: HTTPHeaders, html: bytes, *, is_whole: bool) -> bytes:
        """The scripts of a page that comes in parts stay without a nonce: the browser runs none of them."""
        if not is_whole:
            return html
        marked = SCRIPT_TAG.sub(b"<script nonce=" + self._nonce.encode(), html)
        if "Content-Length" in headers:
            headers["Content-Length"] = str(len(marked))
        return marked

"""A report as a file to keep: `/report?range=7d`, behind the same door as the dashboard."""

from datetime import UTC, datetime
from http import HTTPStatus

from tornado.web import RequestHandler

from pnl.errors import HistoryDown, HistoryError
from pnl.history.dimensions import DIMENSIONS
from pnl.history.ranges import parse_range
from pnl.report import Asked, file_name, report_html
from pnl.web.ops import FindEngine

LONGEST_TEXT = 200


class ReportFile(RequestHandler):
    """Answers with the file of a report, as an attachment.

    The address takes `range` (as `pnl report --range`, mtd unless told), `hide=1` for one without amounts, `title`, and
    a dimension's name for a filter, where an empty value is the part without a name.
    """

    def initialize(self, engine: FindEngine) -> None:
        """Tornado's own way to hand things in."""
        self._engine = engine

    async def get(self) -> None:
        """The file; in plain words why there is none."""
        engine = self._engine()
        if engine is None or not engine.readings:
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, "the numbers are not open yet; ask again in a moment")
            return
        now, zone = datetime.now(UTC), engine.settings.zone
        try:
            asked = Asked(
                range=parse_range(self._text("range") or "mtd", zone=zone, now=now),
                zone=zone,
                written_at=now,
                title=self._text("title"),
                filters=[(name, self._text(name) or None) for name in DIMENSIONS if name in self.request.arguments],
                hides=self._text("hide") not in ("", "0"),
                kind=engine.kind_of_numbers,
                sources=tuple(engine.model.readings),
            )
            html = await report_html(engine.history, asked)
        except HistoryError as error:
            is_down = isinstance(error, HistoryDown)
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE if is_down else HTTPStatus.BAD_REQUEST, str(error))
            return
        self.set_header("Content-Type", "text/html; charset=UTF-8")
        self.set_header("Content-Disposition", f'attachment; filename="{file_name(asked.range, now, zone)}"')
        await self.finish(html)

    def _text(self, name: str) -> str:
        return str(self.get_query_argument(name, ""))[:LONGEST_TEXT]

    def _refuse(self, status: HTTPStatus, text: str) -> None:
        self.set_status(status)
        self.set_header("Content-Type", "text/plain; charset=UTF-8")
        self.set_header("Cache-Control", "no-store")
        self.finish(f"{text}\n")

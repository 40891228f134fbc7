"""The Deliveries page: HTML from the server, read-only, for those who are signed in to Airflow."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from itertools import chain, islice
from typing import Annotated, Any
from urllib.parse import quote

from airflow.api_fastapi.core_api.security import GetUserDep
from airflow.providers.common.compat.sdk import AirflowException
from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse, StreamingResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException as StarletteHTTPException

from amili_provider.connection.settings import AmiliSettings
from amili_provider.hooks.amili import AmiliHook
from amili_provider.ledger.attempts import Attempt, is_file_id
from amili_provider.ledger.sql import SqlStore
from amili_provider.ledger.state import History, history
from amili_provider.ledger.stores import LedgerStore
from amili_provider.receipts import one_line
from amili_provider.report_lines import by_outcome
from amili_provider.reports import as_csv
from amili_provider.ui import access
from amili_provider.ui.access import Reader
from amili_provider.ui.answers import Row, kind_of
from amili_provider.ui.asked import Asked, NotUnderstood, written
from amili_provider.ui.cut import BUDGET
from amili_provider.ui.filters import NOT_DELIVERED, OUTCOMES, Filter
from amili_provider.ui.queries import DAYS, Deliveries
from amili_provider.ui.shown import HERE, drawn, state_of, templates

MOST_ROWS = 100_000
"""Rows of a CSV."""
_LONGEST_INDEX = 9
MOST_RECEIPTS = 500
"""Receipts that a task instance's tab shows: the worst."""
_CSV = (
    "outcome", "name", "claimed_at", "client_no", "file_type", "status", "result", "message", "source", "size",
    "sha256", "file_id", "attempt", "uploaded_at", "delivered_since", "dag_id", "run_id", "task_id", "map_index",
    "try_number", "request", "settled_by", "reason",
)  # fmt: skip
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; "
    "form-action 'self'; frame-ancestors 'self'; base-uri 'none'",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}
_TROUBLE = (AirflowException, ValueError, OSError, ImportError)
"""What a connection or its ledger may say."""
_TEMPLATES = templates()

app = FastAPI(title="Amili deliveries", docs_url=None, redoc_url=None, openapi_url=None)
app.mount("/static", StaticFiles(directory=HERE / "static"), name="static")


@app.middleware("http")
async def _guarded(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    """Let nothing be cached, and nothing be loaded from elsewhere."""
    response = await call_next(request)
    response.headers.update(_HEADERS)
    return response


def _reader(user: GetUserDep) -> Reader:
    return Reader(user)


Reading = Annotated[Reader, Depends(_reader)]


@app.exception_handler(StarletteHTTPException)
async def _refused(request: Request, error: StarletteHTTPException) -> Response:
    return _page(request, "notice.html", error.status_code, notice=str(error.detail), title="Amili deliveries")


@app.get("/")
@app.get("/deliveries")
def deliveries(request: Request, reader: Reading) -> Response:
    """Return the strip of days, the numbers, and the newest rows of what the address asks for."""
    asked = Asked.of(request.query_params)
    known, readable = _connections(reader)
    conn_id = _chosen(asked, known, readable)
    offered = [one for one in known if one in readable or one == asked.get("conn")]
    shown: dict[str, Any] = {"asked": asked, "offered": offered, "conn_id": conn_id, "clients": [], "settings": None}
    shown |= {"ledger": "", "by_id_only": False, "found": None, "outcomes": OUTCOMES, "today": str(_today())}
    shown["not_delivered"] = NOT_DELIVERED
    dags = reader.dags(conn_id)
    shown["sees_all"] = dags is None
    try:
        with access.opened(conn_id) as (settings, store):
            shown |= {"settings": settings, "ledger": store.shown if dags is None else ""}
            wanted = asked.filter(dags)
            if isinstance(store, SqlStore):
                with Deliveries(store, settings.environment) as ledger:
                    shown["found"] = _found(ledger, asked, wanted)
                    shown["clients"] = ledger.clients() if dags is None else []
            elif wanted.text:
                return RedirectResponse(
                    f"{_base(request)}/deliveries/file/{quote(wanted.text, safe='')}{asked.link(q=None)}"
                )
            else:
                shown["by_id_only"] = True
    except _TROUBLE as error:
        return _page(request, "deliveries.html", _status(error), notice=_told(error, dags), **shown)
    return _page(request, "deliveries.html", notice="", **shown)


def _found(ledger: Deliveries, asked: Asked, wanted: Filter) -> dict[str, Any]:
    """Return what the page shows of a ledger in a database."""
    last = _today()
    if wanted.until and date.fromisoformat(wanted.until) < last - timedelta(days=DAYS - 1):
        last = date.fromisoformat(wanted.until)
    strip = ledger.strip(wanted, last)
    page = ledger.page(wanted, asked.after)
    totals = ledger.totals(wanted, None if asked.after else page) if wanted.narrows else strip.totals()
    further = page.following or ((page.cut, "", 0) if page.cut else None)
    return {
        "strip": drawn(strip, str(_today()), wanted.since, wanted.until),
        "rows": _for_reader(page.rows, wanted.dags),
        "totals": totals,
        "counted": "" if wanted.narrows else f"in the {DAYS} days to {last}",
        "cut": page.cut if page.following is None else None,
        "budget": BUDGET,
        "further": None if further is None else written(further),
    }


def _for_reader(rows: Iterable[Row], dags: frozenset[str] | None) -> list[Row]:
    """Return rows without who settled them and why, unless their reader may read the connection."""
    if dags is None:
        return list(rows)
    return [replace(row, attempt=replace(row.attempt, settled_by=None, reason=None)) for row in rows]


@app.get("/deliveries.csv")
def deliveries_csv(request: Request, reader: Reading) -> Response:
    """Return the rows that the address asks for as CSV, the newest first."""
    asked = Asked.of(request.query_params)
    conn_id = _chosen(asked, *_connections(reader))
    dags = reader.dags(conn_id)
    with ExitStack() as stack:
        try:
            settings, store = stack.enter_context(access.opened(conn_id))
            wanted = asked.filter(dags)
            ledger = stack.enter_context(Deliveries(_database(store), settings.environment))
            cut = ledger.cut(wanted)
            rows = ledger.rows(wanted)
            first = list(islice(rows, 1))
        except _TROUBLE as error:
            raise HTTPException(_status(error), _told(error, dags)) from None
        lines = _lines(stack.pop_all(), chain(first, rows), cut, dags)
    name = f"amili-deliveries-{asked.get('since') or 'all'}-{asked.get('until') or _today()}.csv"
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return StreamingResponse(lines, media_type="text/csv; charset=utf-8", headers=headers)


def _lines(stack: ExitStack, rows: Iterator[Row], cut: str | None, dags: frozenset[str] | None) -> Iterator[str]:
    """Yield a CSV, a thousand rows at once; what is not in it is said in its last row."""
    with stack:
        yield as_csv(_CSV, ())
        written_rows = 0
        while True:
            try:
                some = _for_reader(islice(rows, 1000), dags)
            except _TROUBLE as error:
                told = f"The ledger could not be read to its end: {_told(error, dags)}"
                yield _without_head(as_csv(_CSV, [{"outcome": "(cut)", "message": told}]))
                return
            if not some:
                break
            fits = some[: MOST_ROWS - written_rows]
            written_rows += len(fits)
            yield _without_head(as_csv(_CSV, (_as_dict(row) for row in fits)))
            if len(fits) < len(some):
                cut = max(cut or "", fits[-1].attempt.claimed_at if fits else some[0].attempt.claimed_at)
                break
        if cut:
            told = f"Attempts before {cut} are not in this file: ask for fewer days, and for those apart."
            yield _without_head(as_csv(_CSV, [{"outcome": "(cut)", "message": told}]))


def _without_head(text: str) -> str:
    return text.partition("\r\n")[2]


def _as_dict(row: Row) -> dict[str, Any]:
    fields = {name: getattr(row.attempt, name, None) for name in _CSV}
    return fields | {"outcome": row.kind, "delivered_since": "yes" if row.delivered_since else ""}


@app.get("/deliveries/file/{file_id}")
def file(request: Request, reader: Reading, file_id: str) -> Response:
    """Return what is known of a file: its attempts in their order."""
    asked = Asked.of(request.query_params)
    known_ids = access.connection_ids()
    troubles: list[tuple[int, str]] = []
    asked_any = False
    for conn_id in [asked.get("conn")] if asked.get("conn") in known_ids else known_ids:
        dags = reader.dags(conn_id)
        named = conn_id if dags is None or conn_id == asked.get("conn") else ""
        try:
            with access.opened(conn_id) as (settings, store):
                found = _files(store, settings, file_id.lower(), asked.get("client"))
        except _TROUBLE as error:
            troubles.append((_status(error), _told(error, dags)))
            continue
        asked_any = True
        for known, now in found:
            readable = [a for a in known.attempts if dags is None or a.dag_id in dags]
            if readable:
                rows = _for_reader((Row(a, kind_of(a, known, now), known) for a in readable), dags)
                shown: dict[str, Any] = {"known": known, "rows": rows, "told": _telling(rows), "conn_id": named}
                shown |= {"hidden": len(known.attempts) - len(readable), "environment": settings.environment}
                shown["state"], shown["words"] = state_of(known)
                return _page(request, "file.html", **shown)
    said = " ".join([f"No delivery of a file {one_line(file_id, 40)} is to be seen.", *(said for _, said in troubles)])
    raise HTTPException(troubles[0][0] if troubles and not asked_any else 404, said)


def _telling(rows: list[Row]) -> Attempt:
    """Return the attempt that tells most of a file: the newest that can be read."""
    return max((row.attempt for row in rows), key=lambda a: (bool(a.name), a.attempt))


def _files(store: LedgerStore, settings: AmiliSettings, file_id: str, client_no: str) -> list[tuple[History, float]]:
    if not is_file_id(file_id):
        return []
    now = datetime.now(UTC).timestamp()
    if isinstance(store, SqlStore):
        with Deliveries(store, settings.environment) as ledger:
            return [(known, now) for known in ledger.file(file_id, client_no or None)]
    number = client_no or settings.client_no
    if not number:
        raise ValueError("A ledger in a bucket is asked for a file of one client: name the client number, too.")
    found = store.look_up(settings.environment, number, [file_id])
    return [(history(file_id, attempts, now=found.now), found.now) for attempts in found.attempts.values()]


@app.get("/task/{dag_id}/{run_id}/{task_id}/{map_index}")
def task(  # noqa: PLR0917 - FastAPI gives them by name
    request: Request, reader: Reading, dag_id: str, run_id: str, task_id: str, map_index: str
) -> Response:
    """Return the receipts of a task instance, the worst first; or its attempts in the ledger, if they are gone."""
    if not reader.may_see(dag_id):
        raise HTTPException(403, "Forbidden")
    # Airflow leaves the word in braces where a task is not mapped.
    index = int(map_index) if map_index.isdecimal() and len(map_index) <= _LONGEST_INDEX else -1
    published = access.receipts(dag_id, run_id, task_id, index) if reader.may_see(dag_id, xcom=True) else []
    kept_elsewhere, published = published is None, published or []
    groups = by_outcome(published)
    shown: dict[str, Any] = {
        "receipts": list(islice(chain.from_iterable(groups.values()), MOST_RECEIPTS)),
        "counts": {outcome: len(some) for outcome, some in groups.items()},
        "sizes": {outcome: sum(one.get("size") or 0 for one in some) for outcome, some in groups.items()},
        "number": len(published), "kept_elsewhere": kept_elsewhere, "rows": [], "notice": "",
        "dag_id": dag_id, "run_id": run_id, "task_id": task_id,
    }  # fmt: skip
    if not published:
        wanted = Filter(dag_id=dag_id, run_id=run_id, task_id=task_id, map_index=index)
        shown |= _attempts_of(wanted, reader)
    return _page(request, "task.html", **shown)


def _attempts_of(wanted: Filter, reader: Reader) -> dict[str, Any]:
    """Return the attempts of a task instance in the first ledger that has any."""
    notice = ""
    for conn_id in access.connection_ids():
        try:
            with access.opened(conn_id) as (settings, store):
                if not isinstance(store, SqlStore):
                    continue
                with Deliveries(store, settings.environment) as ledger:
                    if rows := _for_reader(ledger.task(wanted, MOST_RECEIPTS), reader.dags(conn_id)):
                        totals = ledger.totals(wanted)
                        number = sum(totals.counts.values())
                        return {"rows": rows, "counts": totals.counts, "sizes": totals.sizes, "number": number}
        except _TROUBLE as error:
            notice = notice or _told(error, reader.dags(conn_id))
    return {"notice": notice}


def _connections(reader: Reader) -> tuple[list[str], list[str]]:
    """Return the connections that there are, and those that their reader may read."""
    known = access.connection_ids()
    return known, [one for one in known if reader.may_read(one)]


def _chosen(asked: Asked, known: list[str], readable: list[str]) -> str:
    """Return the connection that is named, else the usual one of those that the reader may read, if there are any."""
    named = asked.get("conn")
    if named and named not in known:
        raise HTTPException(404, f"There is no connection to Amili of the name {one_line(named, 60)} here.")
    offered = readable or known
    usual = AmiliHook.default_conn_name
    return named or (usual if usual in offered else offered[0])


def _database(store: LedgerStore) -> SqlStore:
    if not isinstance(store, SqlStore):
        raise ValueError(  # noqa: TRY004 - of the connection, which a person corrects
            "This ledger is kept in a bucket, and is asked for a file's id only. A ledger in a database is listed."
        )
    return store


def _told(error: BaseException, dags: frozenset[str] | None) -> str:
    """Return what is wrong; hosts and paths only to those who may read the connection."""
    if dags is None or isinstance(error, NotUnderstood):
        return one_line(error, 600)
    return "The ledger cannot be read. Its administrators see why on this page."


def _status(error: BaseException) -> int:
    return 400 if isinstance(error, ValueError) else 503


def _today() -> date:
    return datetime.now(UTC).date()


def _base(request: Request) -> str:
    """Return the path of this application, below which Airflow may be served, too."""
    return str(request.scope.get("root_path", "")).rstrip("/")


def _page(request: Request, name: str, status: int = 200, **shown: Any) -> HTMLResponse:
    base = _base(request)
    shown |= {"base": base, "airflow": base.rpartition("/")[0]}
    return HTMLResponse(_TEMPLATES.get_template(name).render(shown), status)

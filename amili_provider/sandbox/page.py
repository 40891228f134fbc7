"""The page for people: what arrived, what was refused, what was asked."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from html import escape

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from amili_provider.sandbox.records import Refusal, RequestRecord, Upload, as_utc
from amili_provider.sandbox.state import API_PATH, Sandbox

_ROWS = 300
_STEP = 1024

_STYLE = """
:root { color-scheme: light dark; --line: #8883; --soft: #8881; --good: #18794e; --bad: #c62a2f; --dim: #888; }
@media (prefers-color-scheme: dark) { :root { --good: #4cc38a; --bad: #ff6369; } }
* { box-sizing: border-box; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 78rem; padding: 2rem 1.25rem 4rem; }
h1 { font-size: 1.6rem; margin: 0; } h2 { font-size: 1.1rem; margin: 2.2rem 0 .6rem; }
p { margin: .3rem 0; } .dim { color: var(--dim); } code { font: .9em ui-monospace, monospace; }
.cards { display: grid; gap: .8rem; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); margin-top: 1.4rem; }
.card { background: var(--soft); border-radius: .7rem; padding: .8rem 1rem; }
.card b { display: block; font-size: 1.5rem; font-variant-numeric: tabular-nums; line-height: 1.3; }
.scroll { border: 1px solid var(--line); border-radius: .7rem; overflow-x: auto; }
table { border-collapse: collapse; width: 100%; }
th, td { padding: .42rem .8rem; text-align: left; vertical-align: top; }
th { background: var(--soft); font-weight: 600; white-space: nowrap; }
tr + tr td { border-top: 1px solid var(--line); }
td.n { font-variant-numeric: tabular-nums; text-align: right; white-space: nowrap; }
td.name { font-weight: 600; overflow-wrap: anywhere; }
.good { color: var(--good); } .bad { color: var(--bad); }
"""

_SCRIPT = """
setInterval(async () => {
  try {
    const text = await (await fetch(location.href, {cache: "no-store"})).text();
    const fresh = new DOMParser().parseFromString(text, "text/html").querySelector("main");
    const shown = document.querySelector("main");
    if (fresh && fresh.innerHTML !== shown.innerHTML) shown.replaceWith(fresh);
  } catch { /* the sandbox is stopped; what is shown stays */ }
}, 2000);
"""


def readable_size(size: float) -> str:
    """Return a number of bytes as a person says it."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < _STEP or unit == "GiB":
            break
        size /= _STEP
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"


def _table(heads: Iterable[str], rows: list[str], nothing: str) -> str:
    if not rows:
        return f'<p class="dim">{nothing}</p>'
    head = "".join(f"<th>{h}</th>" for h in heads)
    more = f'<p class="dim">The latest {_ROWS} are shown.</p>' if len(rows) == _ROWS else ""
    return f'<div class="scroll"><table><tr>{head}</tr>{"".join(rows)}</table></div>{more}'


def _time(moment: float) -> str:
    return f'<td class="n dim">{as_utc(moment)[11:19]}</td>'


def _file(file: Upload | Refusal) -> str:
    return (
        f'<td class="name">{escape(file.name)}</td><td class="n">{readable_size(file.size)}</td>'
        f"<td>{escape(file.client_no)}</td><td>{escape(file.file_type)}</td>"
        f"<td><code>{escape(file.file_id)}</code></td>"
        f'<td><code title="{escape(file.sha256)}">{escape(file.sha256[:12])}</code></td>'
    )


def _upload(upload: Upload) -> str:
    again = f' <span class="bad">again, {upload.earlier + 1} times now</span>' if upload.earlier else ""
    return f'<tr>{_time(upload.accepted_at)}{_file(upload)}<td class="good">accepted{again}</td></tr>'


def _refusal(refusal: Refusal) -> str:
    return f'<tr>{_time(refusal.refused_at)}{_file(refusal)}<td class="bad">{escape(refusal.message)}</td></tr>'


def _request(record: RequestRecord) -> str:
    outcome = str(record.status) if record.status else escape(record.ended or "in flight")
    kind = "good" if record.status and record.status < 300 else "bad"  # noqa: PLR2004 - success in HTTP
    fault = f' <span class="dim">by fault {record.fault}</span>' if record.fault else ""
    return (
        f'<tr>{_time(record.started_at)}<td class="n">{record.number}</td><td>{escape(record.method)}</td>'
        f"<td><code>{escape(record.path)}</code></td>"
        f'<td class="n">{readable_size(record.body_bytes)}</td><td class="{kind}">{outcome}{fault}</td></tr>'
    )


def render(sandbox: Sandbox, address: str, nonce: str) -> str:
    """
    Return the page.

    :param sandbox: what it shows.
    :param address: scheme, host and port under which the page was asked for.
    :param nonce: what lets its own style and script through its content policy.
    """
    uploads, refusals, requests = sandbox.uploads, sandbox.refusals, sandbox.requests
    again = sum(u.earlier > 0 for u in uploads)
    cards = (
        (str(len(uploads)), "accepted", "good" if uploads else ""),
        (readable_size(sum(u.size for u in uploads)), "received", ""),
        (str(len(refusals)), "refused", "bad" if refusals else ""),
        (str(again), "accepted more than once", "bad" if again else ""),
        (str(len(requests)), "requests", ""),
    )
    shown_cards = "".join(f'<div class="card"><b class="{k}">{n}</b>{w}</div>' for n, w, k in cards)
    file_heads = ("UTC", "Name", "Size", "Client", "Type", "fileId", "SHA-256", "Result")
    clients = ", ".join(f"{no} ({', '.join(types) or 'no uploads'})" for no, types in sandbox.rules.clients.items())
    accepted = _table(
        file_heads,
        [_upload(u) for u in uploads[: -_ROWS - 1 : -1]],
        "Nothing yet. Point the connection <code>amili_default</code> here and run a DAG.",
    )
    refused = _table(file_heads, [_refusal(r) for r in refusals[: -_ROWS - 1 : -1]], "Nothing was refused.")
    asked = _table(
        ("UTC", "No.", "Method", "Path", "Body", "Answer"),
        [_request(r) for r in requests[: -_ROWS - 1 : -1]],
        "No requests yet.",
    )
    return f"""<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Amili sandbox</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><style nonce="{nonce}">{_STYLE}</style></head>
<body><h1>Amili sandbox</h1>
<p class="dim">A local Amili. Nothing here reaches a debtor.</p>
<p>API <code>{escape(address + API_PATH)}</code>, tokens from <code>{escape(address)}/token</code></p>
<p>Clients and their file types: {escape(clients)}</p>
<p class="dim">Files are kept in <code>{escape(str(sandbox.data))}</code></p>
<main><div class="cards">{shown_cards}</div>
<h2>Accepted</h2>{accepted}<h2>Refused</h2>{refused}<h2>Requests</h2>{asked}</main>
<script nonce="{nonce}">{_SCRIPT}</script></body></html>"""


async def page(sandbox: Sandbox, request: Request) -> Response:
    """``GET /``: the page, which keeps itself fresh."""
    nonce = secrets.token_urlsafe(12)
    address = str(request.base_url).rstrip("/")
    policy = (
        f"default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    headers = {
        "Content-Security-Policy": policy,
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
    }
    return HTMLResponse(render(sandbox, address, nonce), headers=headers)

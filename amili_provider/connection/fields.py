"""The table of connection fields. The form, the messages, the defaults and the README are made of it."""

from __future__ import annotations

from typing import Any, NamedTuple

from amili_provider.connection.values import LONGEST_SECONDS

MIB = 1024 * 1024
LEDGER_FROM_CONNECTION = "the connection's"
"""Stands for "the ledger that the connection names": None and 'none' mean in so many words that there shall be none."""

_TEXT: dict[str, Any] = {"type": ["string", "null"]}
_SECRET: dict[str, Any] = {"type": ["string", "null"], "format": "password"}
_SECONDS: dict[str, Any] = {"type": ["number", "null"], "exclusiveMinimum": 0, "maximum": LONGEST_SECONDS}
_COUNT: dict[str, Any] = {"type": ["integer", "null"], "minimum": 1}
MOST_FILES_PER_REQUEST = 5_000
"""An answer of 8 MiB at most is read: this leaves each file some 1,600 bytes of it."""
# A choice of words instead of a check box: Airflow 2.11 shows a saved `false` as its default, and saves that again.
_YES_NO: dict[str, Any] = {"type": ["string", "null"], "enum": ["true", "false"]}


class ConnectionField(NamedTuple):
    """
    One field of the connection.

    :param name: the standard field of Airflow, or the key of the connection's extra.
    :param label: the name shown in the form and in messages.
    :param description: what it is for, in one or two sentences.
    :param schema: JSON schema of the value in the form; None for a standard field.
    :param placeholder: an example.
    :param default: the value that counts if the field is empty.
    :param assumed: whether Amili does not document it.
    :param section: the heading under which Airflow 3.2 and newer show it; empty for Airflow's own.
    """

    name: str
    label: str
    description: str
    schema: dict[str, Any] | None = None
    placeholder: str = ""
    default: Any = None
    assumed: bool = False
    section: str = ""

    @property
    def standard(self) -> bool:
        """Whether Airflow has this field on every connection."""
        return self.schema is None


TUNING = "Tuning, and what Amili does not document"
"""The heading of fields that most people leave alone; they come last."""

FIELDS: tuple[ConnectionField, ...] = (
    ConnectionField("login", "Client id", "The client id that Amili assigned to you.", placeholder="my-integration"),
    ConnectionField("password", "Client secret", "The client secret that belongs to the client id."),
    ConnectionField(
        "environment",
        "Environment",
        "Amili's environment. Required unless a host is given, so that no task reaches production by default.",
        {"type": ["string", "null"], "enum": ["production", "staging"]},
        "staging",
    ),
    ConnectionField(
        "client_no",
        "Client number",
        "Your client number at Amili; tasks may name another.",
        _TEXT,
        "2218",
    ),
    ConnectionField(
        "ledger",
        "Ledger",
        "Records what Amili accepted, so that no file is sent twice: a table of a database (empty: amili_attempts), a "
        "SQLite file (sqlite:////path/ledger.db) or a prefix of a bucket (s3://bucket/prefix). Create it with "
        "amili-ledger create.",
        _TEXT,
        "amili_attempts",
    ),
    ConnectionField(
        "ledger_conn_id",
        "Ledger connection id",
        "Airflow connection of that database (postgres, mysql or sqlite) or bucket.",
        _TEXT,
        "postgres_default",
    ),
    ConnectionField("user_id", "User id", "Sent as metadata.userId with every upload.", _TEXT, "airflow"),
    ConnectionField(
        "host",
        "Host",
        "Only for an address of your own (a sandbox, a gateway) instead of an environment; may start with http://.",
        placeholder="empty: from the environment",
    ),
    ConnectionField("port", "Port", "Port of that host.", placeholder="empty: of the scheme"),
    ConnectionField("schema", "Base path", "Base path on that host.", placeholder="arm/v1"),
    ConnectionField(
        "auth_url",
        "Token service URL",
        "Base URL of the token service; /token is appended. Required with a host of your own.",
        {"type": ["string", "null"], "format": "url"},
        "https://auth.staging.amili.no",
    ),
    ConnectionField("scope", "Scope", "Sent with the token request if given.", _TEXT, assumed=True),
    ConnectionField(
        "access_token",
        "Access token",
        "A ready-made bearer token, instead of client id and client secret.",
        _SECRET,
        assumed=True,
    ),
    ConnectionField(
        "verify",
        "Verify TLS",
        "false: do not check Amili's certificate. Never in production.",
        _YES_NO,
        default=True,
    ),
    ConnectionField(
        "ca_file",
        "CA file",
        "File with the certificates to trust instead of the usual ones.",
        _TEXT,
        "/etc/ssl/ca.pem",
    ),
    ConnectionField(
        "proxy",
        "Proxy URL",
        "HTTP proxy; in its password @ : / # % are %40 %3A %2F %23 %25. Empty: see HTTPS_PROXY, ALL_PROXY, NO_PROXY.",
        _SECRET,  # it may hold a password
        "http://proxy.example.com:3128",
    ),
    ConnectionField(
        "allow_http",
        "Allow plain http",
        "true: send secrets and files unencrypted to hosts other than this machine.",
        _YES_NO,
        default=False,
    ),
    ConnectionField(
        "connect_timeout",
        "Connect time-out (seconds)",
        "For making a connection.",
        _SECONDS,
        default=10.0,
        section=TUNING,
    ),
    ConnectionField(
        "answer_timeout",
        "Answer time-out (seconds)",
        "For the whole answer after everything was sent. Too short makes unknown outcomes.",
        _SECONDS,
        default=600.0,
        section=TUNING,
    ),
    ConnectionField(
        "max_request_bytes",
        "Largest request (bytes)",
        "Encoded bytes of one upload request; a larger file goes alone in its own. Amili documents no limit.",
        _COUNT,
        default=32 * MIB,
        assumed=True,
        section=TUNING,
    ),
    ConnectionField(
        "max_files_per_request",
        "Files per request",
        "Files in one upload request, at most 5000: of more the answer could not be read. Amili documents no limit.",
        {**_COUNT, "maximum": MOST_FILES_PER_REQUEST},
        default=500,
        assumed=True,
        section=TUNING,
    ),
    ConnectionField(
        "result_path",
        "Result path",
        "Where the result of one file is asked for later.",
        _TEXT,
        default="/clients/{clientno}/files/{fileid}",
        assumed=True,
        section=TUNING,
    ),
    ConnectionField(
        "accepted_results",
        "Accepted results",
        "Words that mean accepted, separated by commas: STATUS/RESULT, or one WORD for either.",
        _TEXT,
        "PROCESSED/CREATED",
        "PROCESSED/CREATED",
        section=TUNING,
    ),
    ConnectionField(
        "refused_results",
        "Refused results",
        "More words that mean refused; FAILED, REJECTED, ERROR, INVALID and BATCH-REJECTED always do.",
        _TEXT,
        "DENIED, PROCESSED/SKIPPED",
        section=TUNING,
    ),
    ConnectionField(
        "pending_results",
        "Pending results",
        "Words that mean not yet, in the same form; for the sensors.",
        _TEXT,
        "QUEUED, PENDING",
        "QUEUED, PENDING, RECEIVED, PROCESSING",
        assumed=True,
        section=TUNING,
    ),
    ConnectionField(
        "isolate_refused",
        "Isolate refused files",
        "true: halve a request that is refused with a 4xx until the one bad file is found.",
        _YES_NO,
        default=True,
        assumed=True,
        section=TUNING,
    ),
    ConnectionField(
        "not_taken_statuses",
        "Not-taken statuses",
        "HTTP statuses that say that nothing of an upload was taken, so that it is sent again; separated by commas, or "
        "none. Add 503 only if your gateway never answers it to a request that it has passed on.",
        _TEXT,
        "429, 503",
        "429",
        assumed=True,
        section=TUNING,
    ),
)

BY_NAME = {f.name: f for f in FIELDS}
EXTRA_NAMES = frozenset(f.name for f in FIELDS if not f.standard)
HIDDEN_STANDARD_FIELDS = ("extra",)
"""Airflow's own box for JSON: every key that counts has a field of its own."""


def label(name: str) -> str:
    """Return how messages name a field: as the form labels it, with the extra's key for those who write JSON."""
    entry = BY_NAME[name]
    return f"'{entry.label}'" if entry.standard else f"'{entry.label}' (extra {entry.name!r})"


def default(name: str) -> Any:
    """Return the value that counts if the field is empty."""
    return BY_NAME[name].default

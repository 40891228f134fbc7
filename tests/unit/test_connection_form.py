"""Connections: what they say, what is refused and how, and the forms made of the one table."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import BaseHook
from hypothesis import given
from hypothesis import strategies as st

from amili_provider.api import results
from amili_provider.connection.fields import BY_NAME, FIELDS
from amili_provider.connection.form import conn_fields, ui_field_behaviour, ui_field_behaviour_kebab
from amili_provider.connection.settings import AmiliSettings, settings_from
from amili_provider.connection.values import as_bool, as_words, checked_client_no
from amili_provider.hooks.amili import AmiliHook
from tests.readme import connection_table

STAGING = {"environment": "staging"}


def read(**given: Any) -> AmiliSettings:
    """Read a connection that is complete but for what is given."""
    fields: dict[str, Any] = {"login": "id", "password": "canary-secret", "host": None, "port": None, "schema": None}
    extra = given.pop("extra", {})
    return settings_from("amili_default", **{**fields, **given}, extra=extra)


def complaint(**given: Any) -> str:
    """Return what is said of a wrong connection."""
    with pytest.raises(ValueError, match="^Connection 'amili_default': ") as failure:
        read(**given)
    return str(failure.value)


# Environments and addresses.


@pytest.mark.parametrize(
    ("name", "base_url", "auth_url"),
    [
        ("production", "https://api.amili.no/arm/v1", "https://auth.amili.no"),
        ("staging", "https://api.staging.amili.no/arm/v1", "https://auth.staging.amili.no"),
        ("Staging", "https://api.staging.amili.no/arm/v1", "https://auth.staging.amili.no"),
    ],
)
def test_environments(name: str, base_url: str, auth_url: str) -> None:
    """The two environments know their addresses."""
    settings = read(extra={"environment": name})
    assert (settings.base_url, settings.auth_url, settings.environment) == (base_url, auth_url, name.lower())


OWN = {"auth_url": "https://auth.example"}


@pytest.mark.parametrize(
    ("given", "base_url", "environment"),
    [
        ({"host": "api.example"}, "https://api.example", "api.example:443"),
        ({"host": "API.Example."}, "https://api.example", "api.example:443"),
        ({"host": "api.example", "schema": "arm/v1"}, "https://api.example/arm/v1", "api.example:443/arm/v1"),
        ({"host": "api.example", "schema": "/arm/v1/"}, "https://api.example/arm/v1", "api.example:443/arm/v1"),
        ({"host": "api.example", "schema": "arm%2Fv1"}, "https://api.example/arm/v1", "api.example:443/arm/v1"),
        ({"host": "api.example", "port": 8443}, "https://api.example:8443", "api.example:8443"),
        ({"host": "api.example", "port": "8443"}, "https://api.example:8443", "api.example:8443"),
        ({"host": "https://api.example/arm/v1/"}, "https://api.example/arm/v1", "api.example:443/arm/v1"),
        ({"host": "https://api.example:8443"}, "https://api.example:8443", "api.example:8443"),
        ({"host": "http://127.0.0.1", "port": 8080}, "http://127.0.0.1:8080", "127.0.0.1:8080"),
        ({"host": "127.0.0.1", "schema": "http", "port": 80}, "http://127.0.0.1", "127.0.0.1:80"),
        ({"host": "localhost", "schema": "HTTP"}, "http://localhost", "localhost:80"),
        ({"host": "::1", "schema": "http", "port": 81}, "http://[::1]:81", "[::1]:81"),
        ({"host": "http://[::1]:81"}, "http://[::1]:81", "[::1]:81"),
        ({"host": "api.amili.no"}, "https://api.amili.no/arm/v1", "production"),
        ({"host": "https://api.amili.no:443/arm/v2"}, "https://api.amili.no/arm/v2", "production"),
        ({"host": "api.staging.amili.no"}, "https://api.staging.amili.no/arm/v1", "staging"),
        ({"host": "api.amili.no", "port": 8443}, "https://api.amili.no:8443/arm/v1", "api.amili.no:8443/arm/v1"),
    ],
)
def test_hosts_of_ones_own(given: dict[str, Any], base_url: str, environment: str) -> None:
    """Scheme, host, port and path may come in any of the ways that forms and URIs give them."""
    settings = read(**given, extra=OWN)
    assert (settings.base_url, settings.environment) == (base_url, environment)


def test_known_host_knows_its_token_service() -> None:
    """Amili's own host needs no address of the token service, and may be named together with its environment."""
    assert read(host="api.staging.amili.no").auth_url == "https://auth.staging.amili.no"
    assert read(host="api.staging.amili.no", extra=STAGING).environment == "staging"


@pytest.mark.parametrize("url", ["https://auth.example", "https://auth.example/", "https://auth.example/token"])
def test_address_of_the_token_service(url: str) -> None:
    """The address may be the base, or that of the token call itself."""
    assert read(host="api.example", extra={"auth_url": url}).auth_url == "https://auth.example"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "'Environment' (extra 'environment') is missing"),
        ({"extra": {"environment": "prod"}}, "choose production or staging"),
        ({"host": f"https://amili.example/{'a' * 240}"}, "has 258 characters with its path; the ledger keeps 255"),
        ({"host": "api.example"}, "'Token service URL' (extra 'auth_url') is missing"),
        ({"host": "api.example", "extra": {**OWN, **STAGING}}, "says staging, but 'Host' is api.example"),
        ({"host": "api.amili.no", "extra": STAGING}, "says staging, but 'Host' is api.amili.no"),
        ({"port": 1, "extra": STAGING}, "'Port' is given without 'Host'"),
        ({"schema": "arm/v1", "extra": STAGING}, "'Base path' is given without 'Host'"),
        ({"host": "http://api.example", "extra": OWN}, "'Host' says http://api.example"),
        ({"host": "api.example", "schema": "http", "extra": OWN}, "'Allow plain http' (extra 'allow_http')"),
        ({"host": "http://127.0.0.1.example", "extra": OWN}, "unencrypted"),
        ({"host": "http://localhost.example", "extra": OWN}, "unencrypted"),
        ({"extra": {**STAGING, "auth_url": "http://auth.example"}}, "'Token service URL' (extra 'auth_url') says http"),
        ({"host": "https://api.example", "schema": "http", "extra": OWN}, "empty one"),
        ({"host": "api.example:1", "port": 2, "extra": OWN}, "'Host' says port 1, but 'Port' says 2"),
        ({"host": "https://api.example/a", "schema": "b", "extra": OWN}, "ends with /a, but 'Base path' says /b"),
        ({"host": "api.example", "port": 70000, "extra": OWN}, "'Port' is 70000"),
        ({"host": "api.example", "port": "x", "extra": OWN}, "'Port' is 'x'"),
        ({"host": "https://user:canary@api.example", "extra": OWN}, "'Host' holds a user name or password"),
        ({"host": "https://api.example/?a=b", "extra": OWN}, "'Host' holds a query"),
        ({"host": "ftp://api.example", "extra": OWN}, "'Host' is not a valid address"),
        ({"host": "https://", "extra": OWN}, "'Host' is not a valid address"),
        ({"host": "api example", "extra": OWN}, "'Host' is not a valid address"),
        ({"host": "https://[::1", "extra": OWN}, "'Host' is not a valid address"),
        ({"host": "api.example\n", "schema": "a\nb", "extra": OWN}, "'Base path' holds a line break"),
        ({"host": "api.example", "schema": "../x", "extra": OWN}, "dots in it"),
        ({"host": "api.example", "schema": "a//b", "extra": OWN}, "an empty step"),
        ({"host": "api.example", "schema": "a?b", "extra": OWN}, "not a base path"),
        ({"login": None, "extra": STAGING}, "'Client id' is missing"),
        ({"password": "", "extra": STAGING}, "'Client secret' is missing"),
        ({"extra": {**STAGING, "access_token": "t"}}, "together with 'Client id' or 'Client secret'"),
        ({"login": None, "password": None, "extra": {**STAGING, "access_token": "canary\n\x00"}}, "not a bearer token"),
        ({"extra": {**STAGING, "connect_timeout": 0}}, "'Connect time-out (seconds)' (extra 'connect_timeout') is 0"),
        ({"extra": {**STAGING, "answer_timeout": "-1"}}, "a number of seconds above 0"),
        ({"extra": {**STAGING, "answer_timeout": "nan"}}, "a number of seconds above 0"),
        ({"extra": {**STAGING, "answer_timeout": "inf"}}, "a number of seconds above 0"),
        ({"extra": {**STAGING, "answer_timeout": True}}, "a number of seconds above 0"),
        *(
            ({"extra": {**STAGING, name: seconds}}, "a number of seconds above 0 and up to 86400")
            for name in ("connect_timeout", "answer_timeout")
            for seconds in (1e12, "1e12", math.inf, math.nan, 10**400, 86401)
        ),
        ({"extra": {**STAGING, "max_request_bytes": math.inf}}, "write a whole number of at least 1"),
        ({"extra": {**STAGING, "max_request_bytes": math.nan}}, "write a whole number of at least 1"),
        ({"extra": {**STAGING, "max_request_bytes": -1}}, "a whole number of at least 1"),
        ({"extra": {**STAGING, "max_request_bytes": 1.5}}, "a whole number of at least 1"),
        ({"extra": {**STAGING, "max_files_per_request": "many"}}, "a whole number of at least 1"),
        ({"extra": {**STAGING, "max_files_per_request": float("nan")}}, "a whole number of at least 1"),
        ({"extra": {**STAGING, "max_files_per_request": [5]}}, "a whole number of at least 1"),
        ({"extra": {**STAGING, "max_files_per_request": "5001"}}, "a whole number of at most 5000"),
        ({"extra": {**STAGING, "not_taken_statuses": "429; 503"}}, "'Not-taken statuses' (extra 'not_taken_statuses')"),
        ({"extra": {**STAGING, "not_taken_statuses": "200"}}, "write statuses from 400 to 599"),
        ({"extra": {**STAGING, "not_taken_statuses": 302}}, "write statuses from 400 to 599"),
        ({"extra": {**STAGING, "not_taken_statuses": [429, "600"]}}, "write statuses from 400 to 599"),
        ({"extra": {**STAGING, "not_taken_statuses": "429, none"}}, "write statuses from 400 to 599"),
        ({"extra": {**STAGING, "not_taken_statuses": "4\N{SUPERSCRIPT TWO}9"}}, "write statuses from 400 to 599"),
        ({"extra": {**STAGING, "not_taken_statuses": True}}, "write statuses from 400 to 599"),
        ({"extra": {**STAGING, "verify": "maybe"}}, "'Verify TLS' (extra 'verify') is 'maybe'"),
        ({"extra": {**STAGING, "isolate_refused": 2}}, "write true or false"),
        ({"extra": {**STAGING, "client_no": "22/18"}}, "'Client number' (extra 'client_no') is '22/18'"),
        ({"extra": {**STAGING, "user_id": "a\r\nb"}}, "'User id' (extra 'user_id') holds a line break"),
        ({"extra": {**STAGING, "user_id": ["a"]}}, "write text"),
        ({"extra": {**STAGING, "proxy": "user:canary@proxy:3128"}}, "'Proxy URL' (extra 'proxy') is not a proxy's URL"),
        ({"extra": {**STAGING, "proxy": "socks5://proxy:1"}}, "not a proxy's URL"),
        *(
            ({"extra": {**STAGING, "proxy": f"http://user:{password}@proxy:3128"}}, "written as %40 %3A %2F %3F %23")
            for password in ("can/ary", "1#canary", "1/canary", "1?canary", "can ary", "[canary")
        ),
        ({"extra": {**STAGING, "proxy": "http://proxy:99999"}}, "not a proxy's URL"),
        ({"extra": {**STAGING, "result_path": "/clients/{clientno}/files"}}, "with {fileid}"),
        ({"extra": {**STAGING, "result_path": "https://x/{fileid}"}}, "write a path such as"),
        ({"extra": {**STAGING, "result_path": "//x/{fileid}"}}, "write a path such as"),
        ({"extra": {**STAGING, "result_path": "/{fileid}/{other}"}}, "write a path such as"),
        ({"extra": {**STAGING, "result_path": "/../{fileid}"}}, "write a path such as"),
        ({"extra": {**STAGING, "result_path": "/./{fileid}"}}, "write a path such as"),
        ({"extra": {**STAGING, "result_path": "/{fileid}\\x"}}, "write a path such as"),
        ({"extra": {**STAGING, "result_path": "/{fileid.__class__}"}}, "write a path such as"),
        ({"extra": {**STAGING, "result_path": "/{fileid!r}"}}, "write a path such as"),
        ({"extra": {**STAGING, "result_path": "/{fileid"}}, "write a path such as"),
        ({"extra": {**STAGING, "accepted_results": "a/b/c"}}, "write STATUS/RESULT"),
        ({"extra": {**STAGING, "accepted_results": ", ,"}}, "holds no word"),
        ({"extra": {**STAGING, "refused_results": {"a": 1}}}, "write words separated by commas"),
        ({"extra": {**STAGING, "refused_results": ["a", 5]}}, "write words separated by commas"),
        ({"extra": {**STAGING, "clientno": "2218"}}, "did you mean 'client_no'?"),
        ({"extra": {**STAGING, "Client-No": "2218"}}, "did you mean 'client_no'?"),
        ({"extra": {**STAGING, "alow_http": "1"}}, "did you mean 'allow_http'?"),
        ({"extra": {**STAGING, "client_number": "2218"}}, "did you mean 'client_no'?"),
        ({"extra": {**STAGING, "ledger_connection_id": "x"}}, "did you mean 'ledger_conn_id'?"),
        ({"extra": {**STAGING, "verify_tls": "false"}}, "did you mean 'verify'?"),
        ({"extra": {**STAGING, "largest_request": 5}}, "did you mean 'max_request_bytes'?"),
        ({"extra": {**STAGING, "Proxy URL": "http://u:canary@p:1"}}, "did you mean 'proxy'?"),
        ({"extra": {**STAGING, "base_path": "arm/v1"}}, "use 'Base path'"),
        ({"extra": {**STAGING, "token_url": "x"}}, "use 'Token service URL' (extra 'auth_url')"),
        ({"extra": {**STAGING, "client_secret": "canary"}}, "use 'Client secret'"),
        ({"extra": ["environment"]}, "'Extra' is not a JSON object"),
    ],
)
def test_wrong_connections_are_one_clear_sentence(given: dict[str, Any], words: str) -> None:
    """The message names the connection and the field as the form labels it, and shows no secret."""
    message = complaint(**given)
    assert words in message
    assert "canary" not in message
    assert "\n" not in message


def test_plain_http_is_allowed_if_it_is_meant() -> None:
    """The switch is for both addresses."""
    settings = read(host="http://api.example", extra={"auth_url": "http://auth.example", "allow_http": "true"})
    assert (settings.base_url, settings.auth_url) == ("http://api.example", "http://auth.example")


def test_everything_that_can_be_said() -> None:
    """Every extra arrives, whether it comes as a number or as text."""
    extra = {
        **STAGING,
        "client_no": 2218,
        "user_id": " airflow ",
        "scope": "files",
        "ledger": "s3://bucket/ledger",
        "ledger_conn_id": "aws_default",
        "connect_timeout": "2.5",
        "answer_timeout": 30,
        "verify": False,
        "ca_file": "/etc/ca.pem",
        "proxy": "http://user:canary@proxy.example:3128",
        "allow_http": "yes",
        "max_request_bytes": "1000",
        "max_files_per_request": 7,
        "result_path": "/r/{fileid}",
        "accepted_results": "OK/DONE, fine",
        "refused_results": ["NO"],
        "pending_results": "WAIT",
        "isolate_refused": "No",
        "not_taken_statuses": "503, 429,429",
    }
    settings = read(extra=dict(extra))
    shown = {name: getattr(settings, name) for name in extra if name != "environment"}
    assert shown == {
        **{k: v for k, v in extra.items() if k != "environment"},
        "client_no": "2218",
        "user_id": "airflow",
        "connect_timeout": 2.5,
        "answer_timeout": 30.0,
        "allow_http": True,
        "max_request_bytes": 1000,
        "accepted_results": ("OK/DONE", "fine"),
        "refused_results": ("NO",),
        "pending_results": ("WAIT",),
        "isolate_refused": False,
        "not_taken_statuses": (429, 503),
    }


@pytest.mark.parametrize(
    ("given", "statuses"),
    [("", (429,)), ("none", ()), (" None ", ()), ([], ()), (503, (503,)), (["503", 429], (429, 503))],
    ids=str,
)
def test_statuses_that_took_nothing(given: Any, statuses: tuple[int, ...]) -> None:
    """As text, a number or a list; empty is the default, and 'none' is none."""
    assert read(extra={**STAGING, "not_taken_statuses": given}).not_taken_statuses == statuses


def test_empty_fields_leave_the_defaults() -> None:
    """What a form saves for an empty field counts as nothing said."""
    empty: dict[str, Any] = {f.name: n for n, f in zip(["", None, "  "] * 20, FIELDS, strict=False) if not f.standard}
    assert read(extra={**empty, **STAGING}) == read(extra=STAGING)
    assert read(extra=STAGING) == AmiliSettings(
        "https://api.staging.amili.no/arm/v1",
        "https://auth.staging.amili.no",
        "staging",
        client_id="id",
        client_secret="canary-secret",
    )


def test_other_extras_are_let_be_and_named_once(caplog: pytest.LogCaptureFixture) -> None:
    """A note of one's own in the extra does no harm; one warning names the keys, and no value."""
    assert read(extra={**STAGING, "owner": "canary", "note": "canary"}) == read(extra=STAGING)
    (warning,) = caplog.records
    assert warning.levelname == "WARNING"
    assert warning.getMessage().startswith("Connection 'amili_default': ignored in the extra")
    assert "'owner', 'note'" in warning.getMessage()
    assert "canary" not in warning.getMessage()


def test_ready_made_token_needs_no_token_service() -> None:
    """With a token of one's own nothing else is asked for; the word Bearer may be there."""
    settings = read(login=None, password=None, host="api.example", extra={"access_token": " bearer canary-token "})
    assert (settings.access_token, settings.auth_url, settings.client_id) == ("canary-token", None, None)


def test_representation_hides_secrets() -> None:
    """Secrets and the credentials in URLs are masked; all else can be seen."""
    first = read(extra={**STAGING, "proxy": "http://user:canary@p.example:1", "ledger": "ftp://user:canary@h/l"})
    second = read(login=None, password=None, extra={**STAGING, "access_token": "canary-token"})
    shown = f"{first!r}{second!r}"
    assert "canary" not in shown
    assert "client_secret='***'" in shown
    assert "http://***@p.example:1" in shown
    assert "environment='staging'" in shown


# The three ways to write a connection down.

AS_JSON = {
    "conn_type": "amili",
    "login": "id",
    "password": "s/e:c@r%t",
    "host": "http://127.0.0.1",
    "port": 8080,
    "schema": "arm/v1",
    "extra": {"auth_url": "http://127.0.0.1:8080", "client_no": "2218", "verify": "false", "answer_timeout": 30},
}


@pytest.fixture(name="settings_of")
def _settings_of(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], AmiliSettings]:
    """Return a way from what stands in the environment variable of a connection to settings."""

    def settings_of(variable: str) -> AmiliSettings:
        monkeypatch.setenv("AIRFLOW_CONN_AMILI_TEST", variable)
        return AmiliHook("amili_test").settings

    return settings_of


@pytest.mark.parametrize("path", ["arm/v1", "arm%2Fv1", "arm/v1/"])
def test_uri_and_json_say_the_same(path: str, settings_of: Callable[[str], AmiliSettings]) -> None:
    """A connection written as a URI is the one written as JSON."""
    query = "auth_url=http%3A%2F%2F127.0.0.1%3A8080&client_no=2218&verify=false&answer_timeout=30"
    from_uri = settings_of(f"amili://http://id:s%2Fe%3Ac%40r%25t@127.0.0.1:8080/{path}?{query}")
    assert from_uri == settings_of(json.dumps(AS_JSON))
    assert from_uri.base_url == "http://127.0.0.1:8080/arm/v1"
    assert (from_uri.client_secret, from_uri.verify, from_uri.answer_timeout) == ("s/e:c@r%t", False, 30.0)


def test_uri_with_an_environment(settings_of: Callable[[str], AmiliSettings]) -> None:
    """No host at all is needed."""
    assert settings_of("amili://id:secret@?environment=staging").environment == "staging"


def test_uri_that_airflow_writes_reads_the_same(settings_of: Callable[[str], AmiliSettings]) -> None:
    """The way through Airflow's own URI changes nothing."""
    settings = settings_of(json.dumps(AS_JSON))
    assert settings_of(BaseHook.get_connection("amili_test").get_uri()) == settings


# Single values.


@pytest.mark.parametrize("value", [True, "true", "True", " TRUE ", "1", 1, "yes", "YES"])
def test_true(value: Any) -> None:
    """What counts as true."""
    assert as_bool(value, "force") is True


@pytest.mark.parametrize("value", [False, "false", "FALSE", "0", 0, "no", "", " ", "none", "None", None])
def test_false(value: Any) -> None:
    """What counts as false."""
    assert as_bool(value, "force") is False


@pytest.mark.parametrize("value", ["maybe", "2", 2, 0.0, "on", [], {}, "{{ x }}"])
def test_neither(value: Any) -> None:
    """Anything else names the argument and the remedy."""
    with pytest.raises(ValueError, match="^force is .*; write true or false"):
        as_bool(value, "force")


@pytest.mark.parametrize(
    ("value", "number"), [("2218", "2218"), (2218, "2218"), (" 2218 ", "2218"), ("AB-1_2.x", "AB-1_2.x")]
)
def test_client_numbers(value: Any, number: str) -> None:
    """Text and integers are fine; plain spaces around are dropped."""
    assert checked_client_no(value, "client_no") == number


@pytest.mark.parametrize(
    "value",
    [
        "",
        " ",
        "1/2",
        "1\\2",
        "..",
        ".",
        "2218\n",
        "2218\r\n",
        "\n2218",
        "22 18",
        "22\t18",
        "1?2",
        "1#2",
        "1%2",
        "22\u200b18",
        "2218\x00",
        "2218\u2028",
        "2218\u00a0",
        "9" * 65,
        "None",
        None,
        True,
        2218.0,
        ["2218"],
    ],
)
def test_no_client_numbers(value: Any) -> None:
    """What would lead to another URL, or comes from a template that found nothing, is refused."""
    with pytest.raises(ValueError, match="^client_no is .*; write the client number"):
        checked_client_no(value, "client_no")


@given(st.text())
def test_client_number_is_one_step_of_a_path(value: str) -> None:
    """Whatever is accepted needs no quoting to stay one step of a URL's path, but for letters beyond ASCII."""
    try:
        number = checked_client_no(value, "client_no")
    except ValueError:
        return
    assert number == value.strip(" ")
    assert not set(number) & set("/\\?#%\r\n\t ")
    assert number not in (".", "..")


@given(
    st.dictionaries(
        st.sampled_from([*BY_NAME, "other"]),
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.text()),
    )
)
def test_any_extra_is_read_or_refused_in_words(extra: dict[str, Any]) -> None:
    """No value of any type leads to anything but settings or one sentence."""
    try:
        read(extra={**STAGING, **extra})
    except ValueError as reason:
        assert str(reason).startswith("Connection 'amili_default': ")
        assert "\n" not in str(reason)


@given(st.text(), st.none() | st.integers() | st.text(), st.none() | st.text())
def test_any_host_is_read_or_refused_in_words(host: str, port: Any, schema: str | None) -> None:
    """No host, port and path lead to anything but a clean URL or one sentence."""
    try:
        settings = read(host=host, port=port, schema=schema, extra={**OWN, "allow_http": True})
    except ValueError as reason:
        assert "\n" not in str(reason)
        return
    assert re.fullmatch(r"https?://[^/\s@?#]+(/[^\s?#]*[^/\s?#])?", settings.base_url)


@pytest.mark.parametrize(
    ("value", "words"),
    [("a, b/c ,", ("a", "b/c")), (["a", "b / c"], ("a", "b/c")), (("a",), ("a",))],
)
def test_words(value: Any, words: tuple[str, ...]) -> None:
    """Words come as a list or with commas between them."""
    assert as_words(value, "x") == words


# The forms.


def test_defaults_of_the_vocabulary_are_those_of_the_models() -> None:
    """What the form shows as default is what judges the answers."""
    for name, words in (
        ("accepted_results", results.DEFAULT_ACCEPTED),
        ("pending_results", results.DEFAULT_PENDING),
    ):
        assert as_words(BY_NAME[name].default, name) == words
    assert all(word in BY_NAME["refused_results"].description for word in results.ALWAYS_REFUSED)


def test_form_of_today() -> None:
    """Each extra has a label, a description with its default, and a schema that allows it to be empty."""
    fields = conn_fields()
    assert list(fields) == [f.name for f in FIELDS if not f.standard]
    for name, entry in fields.items():
        assert set(entry) == {"label", "description", "schema"}
        assert "null" in entry["schema"]["type"], name
    assert fields["environment"]["schema"]["enum"] == ["production", "staging"]
    assert fields["answer_timeout"]["description"].endswith("Default: 600.")
    assert fields["verify"]["description"].endswith("Default: true.")
    assert fields["access_token"]["schema"]["format"] == "password"


def test_no_default_is_prefilled() -> None:
    """A form that saves defaults would keep them for ever, also after we changed them."""
    assert not [name for name, entry in conn_fields().items() if "default" in entry["schema"]]


def test_labels_and_placeholders() -> None:
    """Airflow's standard fields carry our names, in both generations of the form."""
    behaviour = ui_field_behaviour()
    assert behaviour["relabeling"] == {f.name: f.label for f in FIELDS if f.standard}
    assert behaviour["relabeling"]["login"] == "Client id"
    assert behaviour["relabeling"]["password"] == "Client secret"
    assert set(ui_field_behaviour_kebab()) == {"hidden-fields", "relabeling", "placeholders"}


def test_only_what_may_be_secret_is_masked_by_airflow() -> None:
    """Airflow hides the values of extras by their names: only those that may hold a secret are hit."""
    from airflow.providers.common.compat.sdk import redact

    hidden = [f.name for f in FIELDS if not f.standard and redact({f.name: "visible"}) != {f.name: "visible"}]
    # Airflow 2.11.0 and 3.0 do not count a proxy among the names of secrets.
    assert hidden in (["access_token", "proxy"], ["access_token"])


def test_every_field_of_the_settings_is_in_the_table() -> None:
    """The table, the settings and the design name the same things."""
    ours = set(AmiliSettings.__dataclass_fields__)
    renamed = {"login": "client_id", "password": "client_secret", "host": "base_url"}
    in_table = {renamed.get(f.name, f.name) for f in FIELDS}
    assert in_table - ours == {"port", "schema"}
    assert ours - in_table == {"conn_id"}


def test_table_for_the_readme() -> None:
    """One row per field, with label, key and default; assumptions are marked."""
    rows = connection_table().splitlines()
    assert len(rows) == 2 + len(FIELDS)
    assert "| Client id | `login` |  |" in connection_table()
    assert "| Result path | extra `result_path` | `/clients/{clientno}/files/{fileid}` |" in connection_table()
    assert all(row.count("|") == 5 for row in rows)
    assert "*Assumed" in next(row for row in rows if "result_path" in row)


def test_descriptions_are_sentences() -> None:
    """Each description ends as a sentence does."""
    assert not [f.name for f in FIELDS if not f.description.endswith(".")]

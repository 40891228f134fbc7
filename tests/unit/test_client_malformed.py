"""Thousands of answers that nobody should give: only our own errors, and never a success out of nothing."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote_plus

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amili_provider.api.auth import without_secrets
from amili_provider.api.client import AmiliClient
from amili_provider.api.responses import UploadReply
from amili_provider.api.results import MOST_VALUES, UnreadableAnswer, parse_verdicts, read_upload_answer
from amili_provider.connection.settings import settings_from
from amili_provider.exceptions import AmiliError, AmiliOutcomeUnknown
from amili_provider.receipts import Outcome

SETTINGS = settings_from(
    "amili_test",
    login=None,
    password=None,
    host="https://api.example",
    port=None,
    schema=None,
    extra={"access_token": "own", "client_no": "1"},
)

_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=12,
)
_word: st.SearchStrategy[Any] = (
    st.sampled_from(["PROCESSED", "CREATED", "FAILED", "created", "QUEUED", "", None, 5, [], {}]) | st.text()
)
_entry = st.fixed_dictionaries({}, optional=dict.fromkeys(("status", "result", "message"), _word)).flatmap(
    lambda entry: st.sampled_from(["f1", "F1", "other", 1, None, ["f1"]]).map(lambda i: {**entry, "fileId": i})
)
_likely = st.fixed_dictionaries(
    {}, optional={"files": st.lists(_entry | _json) | _json, "status": _word, "result": _word, "summary": _json}
)
_bodies = (
    st.binary()
    | _json.map(lambda v: json.dumps(v).encode())
    | _likely.map(lambda v: json.dumps(v).encode())
    | st.lists(_entry).map(lambda v: json.dumps(v).encode())
)
_headers = st.dictionaries(
    st.sampled_from(["Retry-After", "Location", "Content-Type", "Content-Encoding", "Set-Cookie", "X-Odd"]),
    st.sampled_from(["gzip", "deflate", "br", "0", "120", "-1", "http://[", "https://x.example/", "a=b", "\xff"])
    | st.text(st.characters(min_codepoint=32, max_codepoint=255)),
)
_answers = st.builds(
    lambda status, headers, body, packed: (status, headers, gzip.compress(body) if packed else body),
    st.integers(200, 599),
    _headers,
    _bodies,
    st.booleans(),
)


class Body:
    """A body that is sent whole."""

    content_length = 2
    named = ("f1", "1.csv")
    released = False
    wire: Any = None

    def __iter__(self) -> Iterator[bytes]:
        self.released = False
        yield b"{"
        self.released = True
        yield b"}"


class Stream(httpx.SyncByteStream):
    """An answer's raw bytes, not unpacked by the library."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def __iter__(self) -> Iterator[bytes]:
        yield self._data


class Respondent:
    """The other end: gives one answer to everything, and counts."""

    def __init__(self) -> None:
        self.answer: tuple[int, dict[str, str], bytes] = (200, {}, b"")
        self.requests = 0

    def __call__(self, request: httpx.Request) -> httpx.Response:
        """Answer."""
        request.read()
        self.requests += 1
        status, headers, body = self.answer
        raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
        return httpx.Response(status, headers=raw, stream=Stream(body))

    def will_say(self, answer: tuple[int, dict[str, str], bytes]) -> None:
        """Change the answer, and count anew."""
        self.answer, self.requests = answer, 0


END = Respondent()


@pytest.fixture(name="client", scope="module")
def _client() -> Iterator[AmiliClient]:
    with AmiliClient(SETTINGS, transport=httpx.MockTransport(END), sleep=lambda _seconds: None) as client:
        yield client


@pytest.mark.parametrize("status", [200, 422, 429])
@pytest.mark.parametrize("value", [b"{}", b"[]", b"1"])
def test_an_answer_of_more_values_than_files_can_have_is_not_read(
    client: AmiliClient, status: int, value: bytes
) -> None:
    """Nothing is built of it: every file is unknown, and is sent once."""
    END.will_say((status, {}, b'{"files":[%s]}' % b",".join([value] * (MOST_VALUES + 1))))
    reply = client.post_files("1", Body())
    verdict = reply.verdicts(["f1"], client.vocabulary)["f1"]
    assert (reply.refused_by, verdict.outcome, END.requests) == (None, Outcome.UNKNOWN, 1)
    assert "more than 200,000 values" in str(verdict.message)


def test_an_answer_of_as_many_files_as_a_request_may_hold_is_read(client: AmiliClient) -> None:
    """Five thousand files with words of some length are far below the bound."""
    words = {"status": "PROCESSED", "result": "CREATED", "message": "Row 1, row 2, row 3, row 4: fine, [so] {far}"}
    ids = [f"{number:032x}" for number in range(5000)]
    END.will_say((200, {}, json.dumps({"files": [{"fileId": i, **words} for i in ids]}).encode()))
    verdicts = client.post_files("1", Body()).verdicts(ids, client.vocabulary)
    assert {v.outcome for v in verdicts.values()} == {Outcome.UPLOADED}


SECRET, TOKEN = 'Ab1+cd"EFgh\\42/æ𝄞xyZ==', "tok+Ab1/cdEF=="


@pytest.mark.parametrize("spelt", [r"\u00{:02X}", r"\u00{:02x}", "ascii", "utf-8"])
def test_a_secret_is_taken_out_however_json_spells_it(spelt: str) -> None:
    """Words of an answer hold no token and no secret, whichever characters its writer escapes."""
    if "{" in spelt:
        echo = "".join(spelt.format(ord(c)) if c in '+"/\\=' else c for c in f"{SECRET} {TOKEN}")
    else:
        echo = json.dumps(f"{SECRET} {TOKEN}", ensure_ascii=spelt == "ascii").replace("/", r"\/")[1:-1]
    body = f'{{"message": "no: {echo}, \\u00f8, \\\\u002B", "files": [{{"status": "{echo}"}}]}}'
    own = settings_from(
        "c",
        login="id",
        password=SECRET,
        host="https://api.example",
        port=None,
        schema=None,
        extra={"auth_url": "https://auth.example"},
    )
    request = httpx.Request("GET", "https://api.example", headers={"Authorization": f"Bearer {TOKEN}"})
    read = json.loads(without_secrets(body.encode(), request, own))
    assert read == {"message": r"no: *** ***, ø, \u002B", "files": [{"status": "*** ***"}]}


@pytest.mark.parametrize("spelt", [quote_plus, lambda text: re.sub("%..", lambda e: e[0].lower(), quote_plus(text))])
def test_a_secret_is_taken_out_of_a_form_that_is_told_back(spelt: Callable[[str], str]) -> None:
    """A token service that repeats the form that it was sent spells the secret as the form does."""
    api, extra = "https://api.example", {"auth_url": "https://auth.example"}
    own = settings_from("c", login="id", password=SECRET, host=api, port=None, schema=None, extra=extra)
    body = json.dumps({"message": f"grant_type=client_credentials&client_secret={spelt(SECRET)}&scope=x"})
    read = json.loads(without_secrets(body.encode(), httpx.Request("GET", api), own))
    assert read == {"message": "grant_type=client_credentials&client_secret=***&scope=x"}


@settings(max_examples=1000, deadline=None)
@given(answer=_answers)
def test_upload_answered_with_anything(client: AmiliClient, answer: tuple[int, dict[str, str], bytes]) -> None:
    """An upload ends with an answer to judge or with our own error; whatever is uncertain was sent once."""
    END.will_say(answer)
    try:
        reply = client.post_files("1", Body())
    except AmiliOutcomeUnknown:
        assert END.requests == 1
        return
    except AmiliError:
        return
    assert isinstance(reply, UploadReply)
    assert END.requests == 1
    try:
        read = read_upload_answer(reply.body)
    except UnreadableAnswer:
        return
    verdict = parse_verdicts(read, ["f1"], client.vocabulary)["f1"]
    if verdict.outcome is Outcome.UPLOADED:
        assert any(
            (e.file_id.casefold(), str(e.status).strip().casefold(), str(e.result).strip().casefold())
            == ("f1", "processed", "created")
            for e in read.files
        )


@settings(max_examples=1000, deadline=None)
@given(answer=_answers, method=st.sampled_from(["get_file_result", "get_batch", "paginate", "request"]))
def test_question_answered_with_anything(
    client: AmiliClient, answer: tuple[int, dict[str, str], bytes], method: str
) -> None:
    """A question ends with an answer or with our own error, whatever comes back."""
    END.will_say(answer)
    try:
        if method == "paginate":
            for number, page in enumerate(client.paginate("/items")):
                assert isinstance(page, dict)
                assert number < 3
        elif method == "request":
            client.request("GET", "/x")
        else:
            found: Any = getattr(client, method)("1", "f1")
            if method == "get_file_result" and found is not None:
                assert found.file_id.strip().casefold() == "f1"
    except AmiliError:
        pass
    assert 1 <= END.requests <= 6

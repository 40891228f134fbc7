"""What people do with a ledger: list, settle, adopt, copy."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from amili_provider.exceptions import AmiliStorageError
from amili_provider.ledger import ClaimLost, Ledger, State
from amili_provider.ledger.adoption import adopt
from amili_provider.ledger.copying import copy_ledger
from amili_provider.ledger.local_folder import LocalFolder
from amili_provider.ledger.sizes import LARGE_BYTES
from amili_provider.ledger.ways_out import ByHand, list_unknown, settle_unknown
from tests.ledger_cases import ACCEPTED, FILE_TYPE, LOST, REFUSED, Clock, facts, file_id_of, local_ledger
from tests.readme import ROOT

_SAID: dict[str, Any] = {"who": "kari", "why": "seen in the portal"}


@pytest.fixture(name="clock")
def _clock() -> Clock:
    return Clock()


@pytest.fixture(name="ledger")
def _ledger(tmp_path: Path, clock: Clock) -> Ledger:
    return local_ledger(tmp_path / "ledger", clock)


def _attempt(ledger: Ledger, content: bytes, *ends: object) -> str:
    file_id = file_id_of(ledger, facts(content))
    for end in ends or (None,):
        claim = ledger.claim(ledger.look_up(file_id), facts(content, name=f"{content.decode()}.csv"))
        if end is not None:
            ledger.settle(claim, end)  # type: ignore[arg-type]
    return file_id


def test_unknown_files_are_listed_with_all_that_is_known(tmp_path: Path, ledger: Ledger, clock: Clock) -> None:
    """Lost answers, expired claims and torn receipts, the oldest first; nothing that is accepted or live."""
    torn = _attempt(ledger, b"torn", LOST)
    (tmp_path / "ledger" / "staging" / "10042" / torn[:2] / f"{torn}.1.json").write_text("{")
    lost = _attempt(ledger, b"lost", REFUSED, LOST)
    expired = _attempt(ledger, b"expired")
    _attempt(ledger, b"accepted", ACCEPTED)
    clock.now += 800
    _attempt(ledger, b"live")
    (tmp_path / "ledger" / "README.txt").write_text("not a receipt")
    found = list_unknown(ledger.folder, clock=clock)
    assert [f.file_id for f in found] == [torn, *sorted((lost, expired))]
    assert (found[0].name, found[0].size, found[0].since) == ("", None, None)
    by_id = {f.file_id: f for f in found}
    assert by_id[lost].name == "lost.csv"
    assert "attempt 2" in by_id[lost].known
    assert "The connection ended before the answer." in by_id[lost].known
    assert "no answer recorded" in by_id[expired].known
    assert json.dumps([f.as_dict() for f in found])


def test_unknown_files_are_listed_per_client_and_environment(tmp_path: Path, ledger: Ledger, clock: Clock) -> None:
    """A ledger may hold several clients and environments."""
    places = [("staging", "10042"), ("staging", "7"), ("production", "10042"), ("127.0.0.1:80", "7")]
    for environment, client_no in places:
        with local_ledger(tmp_path / "ledger", clock, environment=environment, client_no=client_no) as one:
            _attempt(one, b"lost", LOST)

    def listed(**only: str) -> list[str]:
        return sorted(f.folder for f in list_unknown(ledger.folder, clock=clock, **only))

    assert listed() == ["127.0.0.1_80/7", "production/10042", "staging/10042", "staging/7"]
    assert listed(environment="staging") == ["staging/10042", "staging/7"]
    assert listed(client_no="7") == ["127.0.0.1_80/7", "staging/7"]
    assert listed(environment="127.0.0.1:80", client_no="7") == ["127.0.0.1_80/7"]
    assert listed(environment="nowhere", client_no="1") == []


@pytest.mark.parametrize(("arrived", "state"), [(True, State.UPLOADED), (False, State.FREE)])
def test_a_person_settles_what_they_found_out(ledger: Ledger, clock: Clock, arrived: bool, state: State) -> None:
    """Who, when and why are in the receipt; arrived is never sent again, not arrived is sent by the next run."""
    file_id = _attempt(ledger, b"lost", LOST)
    clock.now += 86400
    run = ByHand(dag_id="amili_ledger", run_id="manual", task_id="settle")
    receipt = settle_unknown(ledger, f" {file_id.upper()} ", arrived=arrived, run=run, **_SAID)
    assert ledger.look_up(file_id).state is state
    assert (receipt.settled_by, receipt.reason, receipt.origin, receipt.resolves) == (*_SAID.values(), "person", (1,))
    assert (receipt.name, receipt.source, receipt.dag_id) == ("lost.csv", "s3://invoices/lost.csv", "amili_ledger")
    assert receipt.settled_at is not None
    assert (receipt.uploaded_at is not None) == arrived
    assert receipt.uploaded_at is None or receipt.uploaded_at < receipt.settled_at
    assert list_unknown(ledger.folder, clock=clock) == []


def test_a_torn_receipt_can_be_settled(ledger: Ledger, tmp_path: Path) -> None:
    """No state without a way out: not even one of which nothing can be read."""
    file_id = _attempt(ledger, b"torn", LOST)
    (tmp_path / "ledger" / "staging" / "10042" / file_id[:2] / f"{file_id}.1.json").write_bytes(b"")
    settle_unknown(ledger, file_id, arrived=False, **_SAID)
    assert ledger.look_up(file_id).state is State.FREE


@pytest.mark.parametrize(
    ("ends", "why"), [((ACCEPTED,), "Amili has it already"), ((REFUSED,), "not unknown"), ((), "on its way")]
)
def test_only_unknown_files_are_settled(ledger: Ledger, ends: tuple[object, ...], why: str) -> None:
    """Nobody can overrule Amili's answer, or declare a living claim dead."""
    file_id = _attempt(ledger, b"file", *ends)
    state = ledger.look_up(file_id).state
    with pytest.raises(ValueError, match=why):
        settle_unknown(ledger, file_id, arrived=False, **_SAID)
    assert ledger.look_up(file_id).state is state


@pytest.mark.parametrize("said", [{"who": " ", "why": "x"}, {"who": "x", "why": ""}])
def test_nobody_settles_anonymously(ledger: Ledger, said: dict[str, Any]) -> None:
    """The ledger is an accounting trail: who and why are not optional."""
    file_id = _attempt(ledger, b"lost", LOST)
    with pytest.raises(ValueError, match=r"'(Who says so|How you know)' is empty"):
        settle_unknown(ledger, file_id, arrived=True, **said)


@pytest.mark.parametrize("file_id", ["", "../../etc/passwd", "a" * 31, "g" * 32, "invoice.csv"])
def test_what_is_no_id_is_refused(ledger: Ledger, file_id: str) -> None:
    """A form's text never becomes a path."""
    with pytest.raises(ValueError, match="not the id of a file"):
        settle_unknown(ledger, file_id, arrived=True, **_SAID)


def test_somebody_else_may_be_faster(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two people settle at once: one of them is told."""
    file_id = _attempt(ledger, b"lost", LOST)
    before = ledger.look_up(file_id)
    settle_unknown(ledger, file_id, arrived=True, **_SAID)
    monkeypatch.setattr(ledger, "look_up", lambda _: before)
    with pytest.raises(ValueError, match="at this moment"):
        settle_unknown(ledger, file_id, arrived=False, **_SAID)


def test_adopted_files_are_never_sent(tmp_path: Path, ledger: Ledger) -> None:
    """What matches is known as delivered, each under its name, also where two hold the same bytes."""
    sent = tmp_path / "sent"
    sent.mkdir()
    for name, content in (("a.csv", b"one"), ("two.csv", b"two"), ("copy of a.csv", b"one")):
        (sent / name).write_bytes(content)
    _attempt(ledger, b"two", ACCEPTED)
    tried = adopt(ledger, f"{sent.as_uri()}/*.csv", file_type=FILE_TYPE, dry_run=True, **_SAID)
    assert sorted(f.outcome for f in tried) == ["already_uploaded", "would_be_adopted", "would_be_adopted"]
    done = adopt(ledger, f"{sent.as_uri()}/*.csv", file_type=FILE_TYPE, **_SAID)
    assert sorted(f.outcome for f in done) == ["adopted", "adopted", "already_uploaded"]
    standing = ledger.look_up(file_id_of(ledger, facts(b"one")))
    receipt = standing.first_receipt
    assert receipt is not None
    assert (standing.state, receipt.origin, receipt.settled_by, receipt.size) == (State.UPLOADED, "adopted", "kari", 3)
    assert {f.outcome for f in adopt(ledger, sent.as_uri(), file_type=FILE_TYPE, **_SAID)} == {"already_uploaded"}
    assert json.dumps([f.as_dict() for f in done])


def test_adopting_settles_unknowns_and_leaves_live_claims(tmp_path: Path, ledger: Ledger, clock: Clock) -> None:
    """A person who says that all of this was delivered settles what was unknown, but overrules no living task."""
    for name in ("lost", "live"):
        (tmp_path / f"{name}.csv").write_bytes(name.encode())
    lost = _attempt(ledger, b"lost", LOST)
    live = _attempt(ledger, b"live")
    done = adopt(ledger, f"{tmp_path.as_uri()}/*.csv", file_type=FILE_TYPE, **_SAID)
    assert {f.file_id: f.outcome for f in done} == {lost: "adopted", live: "in_flight"}
    assert ledger.look_up(lost).state is State.UPLOADED
    assert ledger.look_up(live).state is State.IN_FLIGHT


def test_adopting_nothing_is_an_error_where_nothing_can_be(tmp_path: Path, ledger: Ledger) -> None:
    """A folder that does not exist is not a folder without files."""
    with pytest.raises((FileNotFoundError, AmiliStorageError)):
        adopt(ledger, f"{tmp_path.as_uri()}/missing/*.csv", file_type=FILE_TYPE, **_SAID)


def _folder(path: Path) -> LocalFolder:
    folder = LocalFolder(str(path), path.as_uri())
    folder.probe()
    return folder


def test_the_sizes_of_large_files_are_adopted_and_copied(tmp_path: Path, ledger: Ledger, clock: Clock) -> None:
    """So that later runs ask about such files before they send them."""
    sent = tmp_path / "sent"
    sent.mkdir()
    with (sent / "large.csv").open("wb") as file:
        file.truncate(LARGE_BYTES + 7)
    adopt(ledger, sent.as_uri(), file_type=FILE_TYPE, dry_run=True, **_SAID)
    assert not list((tmp_path / "ledger").rglob("sizes"))
    adopt(ledger, sent.as_uri(), file_type=FILE_TYPE, **_SAID)
    copy_ledger(ledger.folder, _folder(tmp_path / "copy"), clock=clock)
    with local_ledger(tmp_path / "copy", clock) as copied:
        for knows in (ledger, copied):
            assert [knows.first_of_size(LARGE_BYTES + n) for n in (7, 8)] == [False, True]


def test_a_copied_ledger_knows_all_that_the_first_knew(tmp_path: Path, ledger: Ledger, clock: Clock) -> None:
    """Every receipt, whole; torn ones too; copying twice changes nothing."""
    ids = [_attempt(ledger, b"a", REFUSED, ACCEPTED), _attempt(ledger, b"b", LOST), _attempt(ledger, b"c", REFUSED)]
    torn = tmp_path / "ledger" / "staging" / "10042" / ids[1][:2] / f"{ids[1]}.1.json"
    torn.write_bytes(torn.read_bytes()[:200])
    target = _folder(tmp_path / "copy")
    done = copy_ledger(ledger.folder, target, clock=clock)
    assert (done.copied, done.same, done.complete) == (4, 0, True)
    again = copy_ledger(ledger.folder, target, clock=clock)
    assert (again.copied, again.same, again.complete) == (0, 4, True)
    with local_ledger(tmp_path / "copy", clock) as copied:
        for file_id in ids:
            assert copied.look_up(file_id) == ledger.look_up(file_id)
    assert {p.relative_to(tmp_path / "ledger") for p in (tmp_path / "ledger").rglob("*.json")} == {
        p.relative_to(tmp_path / "copy") for p in (tmp_path / "copy").rglob("*.json")
    }


def test_a_copy_overwrites_nothing_and_leaves_live_claims(tmp_path: Path, ledger: Ledger, clock: Clock) -> None:
    """The outcome of a live claim is yet to come, and another ledger's receipt is not ours to replace."""
    live = _attempt(ledger, b"live")
    mine = _attempt(ledger, b"mine", ACCEPTED)
    with local_ledger(tmp_path / "copy", clock) as other:
        _attempt(other, b"mine", LOST)
        done = copy_ledger(ledger.folder, other.folder, clock=clock)
        assert not done.complete
        assert done.live == [f"staging/10042/{live[:2]}/{live}.1.json"]
        assert done.differing == [f"staging/10042/{mine[:2]}/{mine}.1.json"]
        assert other.look_up(mine).state is State.UNKNOWN
        assert other.look_up(live).state is State.FREE


def test_a_race_while_adopting_is_told(tmp_path: Path, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """A delivery claims the bytes between look-up and adoption: it is in flight, not adopted."""
    (tmp_path / "a.csv").write_bytes(b"one")
    claim, resolve = facts(b"one"), ledger.resolve

    def overtaken(*args: object, **more: object) -> object:
        monkeypatch.setattr(ledger, "resolve", resolve)
        ledger.claim(ledger.look_up(file_id_of(ledger, claim)), claim)
        return resolve(*args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(ledger, "resolve", overtaken)
    done = adopt(ledger, f"{tmp_path.as_uri()}/a.csv", file_type=FILE_TYPE, **_SAID)
    assert [f.outcome for f in done] == ["in_flight"]
    with pytest.raises(ClaimLost):
        ledger.claim(ledger.look_up(done[0].file_id), claim)


def test_messages_name_the_fields_of_the_form() -> None:
    """What a message calls a field is the title that the form shows."""
    form = (ROOT / "example_dags/amili_ledger.py").read_text(encoding="utf-8")
    modules = ("ledger/desk.py", "ledger/ways_out.py", "ledger/adoption.py")
    code = "".join((ROOT / "amili_provider" / module).read_text(encoding="utf-8") for module in modules)
    named = re.findall(r"""said\("([^"]+)"|"'([A-Z][^']+)' is |Fill in '([^']+)'""", code)
    labels = {label for labels in named for label in labels if label}
    assert {"Who says so", "How you know", "File type", "File ids", "Source", "Copy to", "Ledger folder"} == labels
    assert [label for label in labels if f'title="{label}"' not in form] == []

"""Links and pipes through the front door: each is one receipt, and costs no other file anything."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from amili_provider.exceptions import AmiliDeliveryFailed
from amili_provider.operators.buckets import AmiliFileBucketsOperator
from amili_provider.sandbox.server import SandboxServer
from tests.wire.conftest import FakeTaskInstance, Upload


def test_what_cannot_be_followed_is_not_sent_and_the_others_are(
    upload: Upload, outbound: Path, amili_sandbox: SandboxServer
) -> None:
    """A broken link, a loop and a pipe fail the task by name; mended as the message says, all is delivered."""
    (outbound / "good.csv").write_bytes(b"good")
    (outbound / "gone.csv").symlink_to("nowhere")
    (outbound / "loop.csv").symlink_to("loop.csv")
    os.mkfifo(outbound / "pipe.csv")
    (outbound / ".hidden").symlink_to("nowhere")
    ti = FakeTaskInstance()
    with pytest.raises(AmiliDeliveryFailed, match=r"(?s)3 of 5.*gone\.csv.*mend its target, or delete it"):
        upload(ti)
    outcomes = {r["name"]: (r["outcome"], r["message"]) for r in ti.pushed["return_value"]}
    assert {name: outcome for name, (outcome, _) in outcomes.items()} == {
        "good.csv": "uploaded",
        "gone.csv": "not_sent",
        "loop.csv": "not_sent",
        "pipe.csv": "not_sent",
        ".hidden": "skipped",
    }
    assert "a link that cannot be followed (No such file or directory)" in outcomes["gone.csv"][1]
    assert "a link that cannot be followed (Too many levels of symbolic links)" in outcomes["loop.csv"][1]
    assert "neither a file nor a folder" in outcomes["pipe.csv"][1]
    assert [u.name for u in amili_sandbox.uploads] == ["good.csv"]

    (outbound / "nowhere").write_bytes(b"mended")
    for name in ("loop.csv", "pipe.csv"):
        (outbound / name).unlink()
    assert {r["name"]: r["outcome"] for r in upload(source=f"{outbound}/*.csv")} == {
        "good.csv": "already_uploaded",
        "gone.csv": "uploaded",
    }


def test_a_bucket_holds_what_cannot_be_followed_and_its_task_tells_of_it(upload: Upload, outbound: Path) -> None:
    """Named one by one, as mapped tasks get them: a receipt, and not the end of the listing."""
    (outbound / "good.csv").write_bytes(b"good")
    (outbound / "gone.csv").symlink_to("nowhere")
    [bucket] = AmiliFileBucketsOperator(task_id="buckets", source=f"{outbound}/*.csv").execute({})
    ti = FakeTaskInstance()
    with pytest.raises(AmiliDeliveryFailed, match=r"gone\.csv"):
        upload(ti, source=bucket)
    assert {r["name"]: r["outcome"] for r in ti.pushed["return_value"]} == {
        "good.csv": "uploaded",
        "gone.csv": "not_sent",
    }

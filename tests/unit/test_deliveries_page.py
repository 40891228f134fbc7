"""The parts of the Deliveries page that need no Airflow that runs: addresses, words, the strip, the task's button."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import date, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS, AIRFLOW_V_3_1_PLUS

from amili_provider.exceptions import AmiliLedgerUnavailable
from amili_provider.ledger.state import history
from amili_provider.operators.amili import AmiliFileUploadOperator
from amili_provider.operators.assets import AmiliReceiptsLink
from amili_provider.ui import plugin
from amili_provider.ui.answers import Row, Strip, Totals
from amili_provider.ui.asked import Asked, NotUnderstood, written
from amili_provider.ui.filters import Filter
from amili_provider.ui.shown import drawn, size_of, task_path, templates
from tests.ledger_cases import an_attempt

_LOAD = """
import json, sys
{before}
before = set(sys.modules)
import amili_provider.ui.plugin
print(json.dumps(sorted(set(sys.modules) - before)))
"""
_LOADERS = ["import airflow.plugins_manager"] + ["import airflow.sdk.plugins_manager"] * AIRFLOW_V_3_1_PLUS


@pytest.mark.parametrize("loader", _LOADERS)
def test_the_plugin_brings_no_module_but_itself(loader: str) -> None:
    """A process of Airflow that loads its plugins, be it a worker or another, gets our module and no other by it."""
    code = _LOAD.format(
        before=f"import sys\ntry:\n    {loader}\nexcept ImportError:\n    import airflow.plugins_manager"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, capture_output=True, timeout=120)
    new = set(json.loads(done.stdout.splitlines()[-1])) - {"amili_provider"}
    assert new == {"amili_provider.ui", "amili_provider.ui.plugin"}


def test_the_plugin_is_found_and_offers_what_this_airflow_can_show() -> None:
    """Airflow finds the plugin; before 3.1, which shows no views, it registers nothing."""
    from airflow import plugins_manager

    plugins_manager.ensure_plugins_loaded()
    assert plugin.AmiliPlugin.name == "amili"
    assert bool(plugin.AmiliPlugin.fastapi_apps) is bool(plugin.AmiliPlugin.external_views) is AIRFLOW_V_3_1_PLUS


def test_an_address_becomes_a_filter_and_an_address_again() -> None:
    """Each word of an address has its meaning, others have none; a link keeps all but the place in the list."""
    asked = Asked.of({
        "q": " a&b ", "since": "2026-11-01", "until": "2026-11-02", "outcome": "unknown", "type": "T", "dag": "d",
        "run": "r", "client": "1", "conn": "c", "after": "2026-11-01T00:00:00.000Z~ab~2", "other": "x",
    })  # fmt: skip
    assert asked.filter(frozenset({"d"})) == Filter(
        client_no="1", text="a&b", since="2026-11-01", until="2026-11-02", kind="unknown", file_type="T", dag_id="d",
        run_id="r", dags=frozenset({"d"}),
    )  # fmt: skip
    all_but_delivered = Asked.of({"outcome": "not_delivered"}).filter()
    assert (all_but_delivered.kind, all_but_delivered.undelivered) == (None, True)
    assert asked.after == ("2026-11-01T00:00:00.000Z", "ab", 2)
    assert written(asked.after) == asked.get("after")
    link = asked.link(outcome=None)
    assert "q=a%26b" in link
    assert not {"after=", "outcome=", "other="} & {part.partition("=")[0] + "=" for part in link[1:].split("&")}


@pytest.mark.parametrize(
    ("word", "value"), [("since", "yesterday"), ("until", "2026-13-01"), ("outcome", "fine"), ("after", "x' OR 1=1")]
)
def test_an_address_that_means_nothing_is_said_so(word: str, value: str) -> None:
    """A word of the address that is none is an error that shows it or its name."""
    asked = Asked.of({word: value})
    with pytest.raises(NotUnderstood, match=f"{value}|{word}"):
        (asked.filter(), asked.after)


def test_the_strip_shows_small_days_beside_large_ones() -> None:
    """A day with one file has a bar that can be seen beside one of ten thousand; one without any has none."""
    strip = Strip(
        {"2026-11-20": Totals({"delivered": 10_000}), "2026-11-21": Totals({"delivered": 1}), "2026-11-22": Totals()},
        "2026-11-01T06:00:00.000Z",
    )
    days = drawn(strip, "2026-11-23", "2026-11-21", "2026-11-21").days
    assert [day.height for day in days] == [46.0, 3.0, 0.0]
    assert [day.chosen for day in days] == [False, True, False]
    assert days[1].told == "Saturday, 21 November 2026: 1 delivered"
    assert days[2].told == "Sunday, 22 November 2026: nothing was sent"


def test_the_strip_says_which_weekday_had_no_delivery() -> None:
    """Neither weekends, nor today, nor days before the ledger; a day on which everything was refused is one."""
    strip = Strip(
        {f"2026-11-{day:02}": Totals({"delivered": 1} if day in {11, 13, 17} else {}) for day in range(9, 21)}
        | {"2026-11-19": Totals({"rejected": 6}, {"rejected": 2}), "2026-11-18": Totals({"settled": 1})},
        "2026-11-11T06:00:00.000Z",
    )
    shown = drawn(strip, "2026-11-20")
    assert [f"{day.day:%a %d}" for day in shown.weekdays_without] == ["Thu 19", "Mon 16", "Thu 12"]
    told = {day.day.day: day.told.partition(": ")[2] for day in shown.days}
    assert (told[10], told[12], told[19], told[20]) == (
        "before the ledger", "nothing was sent", "2 rejected", "nothing was sent yet",
    )  # fmt: skip
    assert [day.week for day in shown.days if day.week] == ["9", "16"]
    html = templates().get_template("strip.html").render(strip=shown, asked=Asked.of({}))
    assert html.count('<rect class="none') == 5  # with a weekend, and the one refused
    assert "The ledger begins on 11 November 2026" in html
    assert html.count('<rect class="before"') == 2
    assert "Thu 19 Nov</a>" in html
    assert 'aria-label="Thursday, 12 November 2026: nothing was sent"' in html


def test_days_that_were_not_counted_are_no_days_without_a_delivery() -> None:
    """Of who may read some DAGs only, so many attempts are looked at: older days say that they were not counted."""
    strip = Strip(
        {"2026-11-18": Totals(), "2026-11-19": Totals()}, "2026-01-01T06:00:00.000Z", "2026-11-19T05:00:00.000Z"
    )
    shown = drawn(strip, "2026-11-20")
    assert [day.day.day for day in shown.weekdays_without] == [19]
    assert "not counted" in shown.days[0].told


def test_months_and_weeks_are_named() -> None:
    """The strip names the first of a month, Mondays, and the month that it begins with if there is room."""
    days = {str(date(2026, 10, 5) + timedelta(days=n)): Totals() for n in range(40)}
    shown = drawn(Strip(days, "2026-01-01"), "2026-11-20").days
    assert [(day.day.day, day.month) for day in shown if day.month] == [(5, "October"), (1, "November")]
    assert [day.week for day in shown if day.week] == ["5", "12", "19", "26", "2", "9"]


def test_sizes_are_read_at_a_glance() -> None:
    """Bytes are shown with three digits at most, and what is not known is shown as nothing."""
    shown = [size_of(number) for number in (None, 0, 999, 1000, 43_448, 712_345, 4_197_385_926)]
    assert shown == ["", "0 B", "999 B", "1.0 kB", "43.4 kB", "712 kB", "4.2 GB"]


def test_what_a_template_is_given_is_text() -> None:
    """HTML in a name is shown as text by every template."""
    environment = templates()
    assert environment.autoescape is True
    said = environment.get_template("notice.html").render(base="", title="<b>", notice="<script>alert(1)</script>")
    assert "<script>alert" not in said
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in said


def test_the_log_of_a_task_is_linked_as_airflow_names_it() -> None:
    """A link to a log has every part of the address encoded, the mapped index, and the try."""
    attempt = an_attempt(dag_id="a b", run_id="manual__2026-11-22T06:00:00+00:00", task_id="t/u", map_index=3)
    attempt.try_number = 2
    assert task_path(attempt) == (
        "dags/a%20b/runs/manual__2026-11-22T06%3A00%3A00%2B00%3A00/tasks/t%2Fu/mapped/3?try_number=2"
    )


@pytest.mark.parametrize("map_index", [-1, 3])
def test_the_button_leads_to_the_receipts(map_index: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The upload's button leads to the tab with its receipts on Airflow 3.1 and newer, else to the task's log."""
    section = "API" if AIRFLOW_V_3_0_PLUS else "WEBSERVER"
    monkeypatch.setenv(f"AIRFLOW__{section}__BASE_URL", "https://airflow.example.com/af/")
    operator: Any = AmiliFileUploadOperator(task_id="t", source="/x", file_type="T")
    (link,) = operator.operator_extra_links
    assert isinstance(link, AmiliReceiptsLink)
    key: Any = SimpleNamespace(dag_id="d", run_id="r+1", task_id="t", map_index=map_index)
    found = link.get_link(operator, ti_key=key)
    if AIRFLOW_V_3_0_PLUS:
        mapped = "/mapped/3" if map_index == 3 else ""
        tab = "/plugin/amili-receipts" if AIRFLOW_V_3_1_PLUS else ""
        assert found == f"https://airflow.example.com/af/dags/d/runs/r%2B1/tasks/t{mapped}{tab}"
    else:
        mapped = "&map_index=3" if map_index == 3 else ""
        assert found == f"https://airflow.example.com/af/dags/d/grid?dag_run_id=r%2B1&task_id=t&tab=logs{mapped}"


def _settled() -> Row:
    attempt = an_attempt(settled_by="Kari Nordmann (Airflow user kari)", reason="phoned Ola, debtor 01019012345")
    return Row(attempt, "unknown", history(attempt.file_id, [attempt], now=0.0))


@pytest.mark.skipif(not AIRFLOW_V_3_1_PLUS, reason="Airflow before 3.1 has no page")
def test_who_settled_a_file_and_why_is_for_readers_of_the_connection() -> None:
    """Others see what became of the file; rows and CSV are made of the same attempts."""
    from amili_provider.ui.page import _for_reader

    [whole] = _for_reader([_settled()], None)
    [bare] = _for_reader([_settled()], frozenset({"a_dag"}))
    assert whole == _settled()
    assert (bare.attempt.settled_by, bare.attempt.reason, bare.attempt.name) == (None, None, whole.attempt.name)


@pytest.mark.skipif(not AIRFLOW_V_3_1_PLUS, reason="Airflow before 3.1 has no page")
def test_a_csv_whose_ledger_breaks_off_says_so() -> None:
    """Its last row, since the answer began as a whole one."""
    from amili_provider.ui.page import _lines

    def rows() -> Iterator[Row]:
        yield _settled()
        raise AmiliLedgerUnavailable("The database went away.")

    text = "".join(_lines(ExitStack(), rows(), None, None))
    assert text.splitlines()[-1].startswith("(cut),")
    assert "could not be read to its end: The database went away." in text


@pytest.mark.parametrize("day", ["0001-01-01", "1999-12-31", "monday"])
def test_a_day_without_deliveries_to_be_is_refused(day: str) -> None:
    """Before the year 2000 nothing was delivered, and the strip cannot be drawn."""
    with pytest.raises(NotUnderstood, match="is no day of a delivery"):
        Asked.of({"until": day}).filter()

"""The page *Amili deliveries* as a person uses it in Airflow: finds, filters, reads, downloads; and its pictures."""

from __future__ import annotations

import csv
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.common.by import By

from tests.deliveries import LONG, ApiServer, amili_connection, api_server, date_off, ledger_of, some_weeks
from tests.suites.browser.pages import Page

_SHOWN_FOLDER = Path(tempfile.gettempdir(), "amili")
"""The page shows to an administrator where a ledger is, and so does a picture: a name of no machine in particular."""
_WIDE, _BETWEEN, _NARROW = (1400, 980), (960, 980), (800, 980)


class DeliveriesPage(Page):
    """The page within Airflow's frame."""

    def open(self, asked: str = "", *, theme: str = "light") -> None:
        """Open the page in Airflow, as *Browse* leads to it, in a theme of Airflow's."""
        self._driver.switch_to.default_content()
        self._driver.execute_script(f"localStorage.setItem('theme', '{theme}')")
        self._driver.get(f"{self._url}/plugin/amili-deliveries{asked}")
        self.enter()
        self._wait(lambda: self._driver.execute_script("return document.documentElement.dataset.theme") == theme)

    def enter(self) -> None:
        """Go on within the frame."""
        self._driver.switch_to.default_content()
        self._driver.switch_to.frame(self.find("//iframe"))
        self.find("//main")

    def search(self, text: str) -> None:
        """Type a part of a name, and press the button."""
        box = self.find("//input[@name='q']")
        box.clear()
        box.send_keys(text)
        self.click("//form[@role='search']//button")
        self._wait(lambda: self.find("//input[@name='q']").get_attribute("value") == text and self._loaded())

    def _loaded(self) -> bool:
        return bool(self._driver.execute_script("return document.readyState === 'complete'"))

    def names(self) -> list[str]:
        """Return the files that are listed."""
        return [found.text for found in self._driver.find_elements(By.CSS_SELECTOR, "td.file > a")]

    def days_without(self) -> list[str]:
        """Return the weekdays that are said to have no delivery."""
        return [found.text for found in self._driver.find_elements(By.CSS_SELECTOR, ".strip p a")]

    def overflows(self) -> bool:
        """Return whether the page is wider than its frame, or its rows wider than their place."""
        wider = "const e = document.querySelector(arguments[0]); return e.scrollWidth > e.clientWidth"
        return any(self._driver.execute_script(wider, part) for part in ("html", ".scroll"))

    def take(self, path: Path) -> None:
        """Take a picture of Airflow with the page in it."""
        self._driver.switch_to.default_content()
        self.picture(path)
        self.enter()

    def text(self) -> str:
        """Return what can be read."""
        return str(self.find("//main").text)


@contextmanager
def _server() -> Iterator[ApiServer]:
    _SHOWN_FOLDER.mkdir()
    ledger = _SHOWN_FOLDER / "ledger.db"
    try:
        with tempfile.TemporaryDirectory(prefix="amili-deliveries-") as home:
            connection = amili_connection(ledger_of(ledger, some_weeks(datetime.now(UTC))))
            with api_server(Path(home), {"AIRFLOW_CONN_AMILI_DEFAULT": connection}) as server:
                yield server
    finally:
        for end in ("", "-wal", "-shm"):
            Path(f"{ledger}{end}").unlink(missing_ok=True)
        _SHOWN_FOLDER.rmdir()


def _days_without() -> list[str]:
    day_off = date_off(datetime.now(UTC))
    return [f"{day_off:%a %-d %b}"] if day_off.weekday() < 5 else []


def _widths(page: DeliveriesPage) -> Iterator[tuple[str, bool]]:
    """Yield whether the page fits into narrow windows, to the narrowest."""
    for width, height in (_BETWEEN, _NARROW):
        page.resize(width, height)
        for theme in ("dark", "light"):
            for searched in (LONG[:20], "_0001.csv"):
                page.open(f"/amili/deliveries?q={searched}", theme=theme)
                yield f"the rows with {searched} fit into {width} points ({theme})", not page.overflows()


def look(driver: webdriver.Chrome, images: Path) -> list[str]:
    """
    Use the page as a person does, and return what was not as it should be.

    :param driver: a browser.
    :param images: folder of the pictures.
    """
    wrong: list[str] = []

    def expect(what: str, *, holds: bool) -> None:
        if not holds:
            wrong.append(f"deliveries page: {what}")

    with _server() as server, tempfile.TemporaryDirectory(prefix="amili-downloads-") as downloads:
        page = DeliveriesPage(driver, server.url)
        driver.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": downloads})
        passwords = json.loads(Path(server.environment["AIRFLOW_HOME"], "passwords.json").read_text())
        page.resize(*_WIDE)
        page.sign_in("anna", passwords["anna"])

        page.open()
        page.take(images / "deliveries-light.png")
        page.search("REFUSED_0001")
        expect("a file is found by a part of its name in any case", holds=page.names() == ["invoice_refused_0001.csv"])
        page.click("//td[contains(@class, 'file')]/a")
        page.find("//h2[contains(., '1 attempt')]")
        expect("Amili's words are read on the file's page", holds="row 14: no such debtor" in page.text())

        page.open()
        page.click("//li[contains(@class, 'card unknown')]/a")
        page.find("//option[@value='unknown'][@selected]")
        unknown = ["invoice_lost_0001.csv", "invoice_lost_0002.csv"]
        expect("what is unknown is filtered, without what was settled", holds=sorted(page.names()) == unknown)
        page.click("//a[@download]")
        page._wait(lambda: list(Path(downloads).glob("*.csv")))
        (file,) = Path(downloads).glob("*.csv")
        with file.open(encoding="utf-8", newline="") as opened:
            listed = sorted(row["name"] for row in csv.DictReader(opened))
        expect("the CSV holds what is filtered", holds=listed == unknown)

        page.open()
        page.click("//a[normalize-space()='Not delivered']")
        page.find("//option[@value='not_delivered'][@selected]")
        listed = page.names()
        expect(
            "what is not delivered is one click away, without what was settled",
            holds={*unknown, "invoice_refused_0001.csv", "invoice_sending_0001.csv"} <= {*listed}
            and "invoice_settled_0001.csv" not in listed,
        )
        expect("the weekday without a delivery is named below the strip", holds=page.days_without() == _days_without())

        page.open("/amili/deliveries?outcome=rejected", theme="dark")
        expect("a name is text, whatever it holds", holds="<script>alert('name')</script>" in page.text())
        page.open(theme="dark")
        page.take(images / "deliveries-dark.png")
        page.search("settled_0001")
        page.click("//td[contains(@class, 'file')]/a")
        page.find("//h2[contains(., '2 attempts')]")
        page.take(images / "deliveries-file.png")
        page.click("//a[contains(., 'Log of upload')]")
        driver.switch_to.default_content()
        page._wait(lambda: "/tasks/upload" in driver.current_url)
        expect("a link to Airflow's pages fills the window", holds="/plugin/" not in driver.current_url)

        for what, fits in _widths(page):
            expect(what, holds=fits)
        page.take(images / "deliveries-narrow.png")
        driver.switch_to.default_content()
    return wrong

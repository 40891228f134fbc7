"""The pages of Airflow's UI as far as a person with an Amili connection uses them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

from amili_provider.connection.fields import ConnectionField

SECONDS = 90
_DIALOG = "//div[@role='dialog']"
_FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)
Found = TypeVar("Found")


def open_browser(profile: Path) -> webdriver.Chrome:
    """
    Start a headless Chromium.

    :param profile: an empty folder.
    """
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for flag in (*_FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    return webdriver.Chrome(options=options, service=webdriver.ChromeService("/usr/bin/chromedriver"))


class Page:
    """
    What is open in the browser.

    :param driver: the browser.
    :param url: of Airflow.
    """

    def __init__(self, driver: webdriver.Chrome, url: str) -> None:
        self._driver = driver
        self._url = url

    def _wait(self, ready: Callable[[], Found | None]) -> Found:
        found: Found = WebDriverWait(self._driver, SECONDS).until(lambda _driver: ready() or False)
        return found

    def find(self, xpath: str) -> WebElement:
        """Return the first element of *xpath*, once it is there."""
        return self._wait(lambda: next(iter(self._driver.find_elements(By.XPATH, xpath)), None))

    def click(self, xpath: str) -> None:
        """Click on *xpath*, once that has an effect."""

        def clicked() -> bool:
            element = self.find(xpath)
            self._driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
            if not element.is_enabled():
                return False
            element.click()
            return True

        self._wait(clicked)

    def sign_in(self, name: str, password: str) -> None:
        """Sign in as a person does."""
        self._driver.get(self._url)
        self.find("//input[@name='username']").send_keys(name)
        self.find("//input[@name='password']").send_keys(password)
        self.click("//button[@type='submit']")
        self.find("//a[@href='/dags']")

    def resize(self, width: int, height: int) -> None:
        """Give the page that many points."""
        self._driver.set_window_size(width, height)
        # The window's own frame does not belong to the picture.
        inner = self._driver.execute_script("return window.innerHeight")
        self._driver.set_window_size(width, height + height - inner)
        self._wait(lambda: self._driver.execute_script("return window.innerHeight") == height)

    def picture(self, path: Path) -> None:
        """Take a screenshot, once nothing moves any more."""
        pictures = [b""]

        def still() -> bool:
            pictures.append(self._driver.get_screenshot_as_png())
            return pictures[-1] == pictures[-2]

        self._wait(still)
        path.write_bytes(pictures[-1])


class ConnectionForm(Page):
    """The dialog in which a connection is made and changed."""

    def add(self, conn_id: str) -> None:
        """Open the empty form and choose Amili."""
        self._driver.get(f"{self._url}/connections")
        self.click("//button[contains(., 'Add Connection')]")
        self.find(f"{_DIALOG}//input[@name='connection_id']").send_keys(conn_id)
        self._choose(self.find(f"({_DIALOG}//input[@role='combobox'])[1]"), "Amili")

    def edit(self, conn_id: str) -> None:
        """Open the form of a connection that was saved, as a new visitor."""
        self._driver.get(f"{self._url}/connections")
        self.click(f"//tr[contains(., '{conn_id}')]//button[@aria-label='Edit Connection']")

    def _unfold(self, section: str) -> None:
        """Open one part of the form; the others close."""
        button = f"{_DIALOG}//button[normalize-space()='{section}']"
        if self.find(button).get_attribute("aria-expanded") != "true":
            self.click(button)
            self._wait(lambda: self.find(button).get_attribute("aria-expanded") == "true")

    def _choose(self, box: WebElement, word: str) -> None:
        box.send_keys(word)
        self.find(f"//div[@role='option'][contains(., '{word}')]")
        box.send_keys(Keys.ENTER)

    def _input(self, field: ConnectionField) -> WebElement:
        """Return what a person types into, next to the field's label."""
        self._unfold("Standard Fields" if field.standard else field.section or "Extra Fields")
        label = f"{_DIALOG}//label[normalize-space(translate(., '*', ''))='{field.label}']"
        return self.find(f"{label}/following::input[not(@type='hidden')][1]")

    def fill(self, field: ConnectionField, value: str) -> None:
        """Type or choose *value*."""
        box = self._input(field)
        self._wait(box.is_displayed)
        self._driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", box)
        if box.get_attribute("role") == "combobox":
            self._choose(box, value)
        else:
            box.send_keys(value)
            box.send_keys(Keys.TAB)

    def read(self, field: ConnectionField) -> str:
        """Return what the form shows."""
        box = self._input(field)
        if box.get_attribute("role") == "combobox":
            box = self.find(f"{_DIALOG}//input[@name='element_{field.name}']")
        return box.get_attribute("value") or ""

    def save(self) -> None:
        """Save, and wait until the dialog is gone."""
        self.click(f"{_DIALOG}//button[contains(., 'Save')]")
        self._wait(lambda: not self._driver.find_elements(By.XPATH, _DIALOG))

    def to_top(self) -> None:
        """Scroll to where the form begins, and leave the field that was filled last."""
        self._driver.execute_script(
            "document.activeElement.blur(); arguments[0].scrollIntoView({block: 'end'})",
            self.find("//*[normalize-space(text())='Add Connection']"),
        )


class Graph(Page):
    """The graph of a DAG."""

    def open(self, dag_id: str, task_ids: list[str]) -> None:
        """Show the graph and wait for its tasks."""
        self._driver.get(f"{self._url}/dags/{dag_id}")
        self.click("//button[starts-with(@aria-label, 'Show Graph')]")
        self.click("//button[@aria-label='Collapse Details Panel']")
        for task_id in task_ids:
            self.find(f"//*[contains(@class, 'react-flow')]//*[contains(text(), '{task_id}')]")
        self.click("//button[contains(@class, 'react-flow__controls-fitview')]")


class LogView(Page):
    """The log of a task."""

    _RECTANGLES = """
        const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), found = [];
        for (let text = texts.nextNode(); text; text = texts.nextNode()) {
            const at = text.data.indexOf(arguments[0]);
            if (at < 0) continue;
            const range = document.createRange();
            range.setStart(text, at);
            range.setEnd(text, at + arguments[0].length);
            let box = {left: 0, top: 0, right: innerWidth, bottom: innerHeight};
            for (let e = text.parentElement; e; e = e.parentElement) {
                if (getComputedStyle(e).overflowX === "visible") continue;
                const outer = e.getBoundingClientRect();
                box = {left: Math.max(box.left, outer.left), top: Math.max(box.top, outer.top),
                       right: Math.min(box.right, outer.right), bottom: Math.min(box.bottom, outer.bottom)};
            }
            for (const r of range.getClientRects())
                found.push(r.width > 0 && r.left >= box.left && r.right <= box.right + 1
                           && r.top >= box.top && r.bottom <= box.bottom + 1);
        }
        return found.length > 0 && found.some(Boolean);
    """

    def open(self, dag_id: str, run_id: str, task_id: str) -> None:
        """Show the log, as who comes from the grid does, and wait until its end is there."""
        self._driver.get(f"{self._url}/dags/{dag_id}/runs/{run_id}/tasks/{task_id}?try_number=1")
        self.find("//*[contains(text(), 'Task failed with exception')]")

    def shows(self, words: str) -> bool:
        """Return whether *words* can be read without unfolding or scrolling anything."""
        return bool(self._driver.execute_script(self._RECTANGLES, words))

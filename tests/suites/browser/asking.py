"""Required Actions, where a person answers the question of a task."""

from __future__ import annotations

import tempfile
from pathlib import Path

from selenium.webdriver.common.by import By

from tests.suites.browser.pages import Page, open_browser


class RequiredActions(Page):
    """Airflow's list of questions, and the form of one."""

    def open(self, dag_id: str) -> None:
        """Open the list, as *Browse* leads to it, and the question of a DAG: others may ask the same."""
        self._driver.get(f"{self._url}/required_actions")
        self.click(f"//a[contains(@href, '/dags/{dag_id}/runs/') and contains(@href, '/required_actions')]")
        self.find("//*[@name='element_reason']")

    def text(self) -> str:
        """Return what can be read."""
        return str(self.find("//main | //body").text)

    def answer(self, option: str, reason: str) -> None:
        """Type why, and press the button of an option."""
        self.find("//*[@name='element_reason']").send_keys(reason)
        self.click(f"//button[normalize-space()='{option}']")
        # It can be pressed once.
        open_one = f"//button[normalize-space()='{option}'][not(@disabled)]"
        self._wait(lambda: not self._driver.find_elements(By.XPATH, open_one))


def answered(url: str, name: str, password: str, *, dag_id: str, option: str, reason: str) -> str:
    """
    Answer a question in a browser, as a person does, and return what they read.

    :param url: of Airflow.
    :param name: as whom the person signs in.
    :param password: of theirs.
    :param dag_id: whose task asks.
    :param option: what they choose.
    :param reason: what they type.
    """
    with tempfile.TemporaryDirectory(prefix="amili-chromium-") as profile:
        driver = open_browser(Path(profile))
        try:
            driver.set_window_size(1400, 1200)
            page = RequiredActions(driver, url)
            page.sign_in(name, password)
            page.open(dag_id)
            read = page.text()
            page.answer(option, reason)
        finally:
            driver.quit()
    return read

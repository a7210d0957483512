"""A headless Chromium for the tests of examples that have pages."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.webdriver.common.by import By

from examples.activity.visitors import browser
from interop.process import wait_until

BROWSER_WAIT_S = 30.0


@contextmanager
def a_browser() -> Iterator[webdriver.Chrome]:
    """A browser that nobody has used before; it ends with the block."""
    with tempfile.TemporaryDirectory(prefix="ottla-chromium-", ignore_cleanup_errors=True) as directory:
        driver = browser(Path(directory))
        try:
            yield driver
        finally:
            driver.quit()


def click(driver: webdriver.Chrome, selector: str) -> None:
    """Click on it, as soon as it is there."""
    _show(driver, selector)
    driver.find_element(By.CSS_SELECTOR, selector).click()


def write(driver: webdriver.Chrome, selector: str, text: str) -> None:
    """Write into a field, as soon as it is there."""
    _show(driver, selector)
    driver.find_element(By.CSS_SELECTOR, selector).send_keys(text)


def _show(driver: webdriver.Chrome, selector: str) -> None:
    find = "const e = document.querySelector(arguments[0])"
    script = f"{find}; e?.scrollIntoView({{block: 'center'}}); return !!e"
    wait_until(lambda: driver.execute_script(script, selector), BROWSER_WAIT_S, f"{selector} on the page")


def text_of(driver: webdriver.Chrome, selector: str) -> str:
    """What is to be read there; nothing if it is not there."""
    script = "return document.querySelector(arguments[0])?.innerText ?? ''"
    return str(driver.execute_script(script, selector))


def until(driver: webdriver.Chrome, script: str, what: str) -> Any:
    """The first truthy value of a script."""
    run: Callable[[], Any] = lambda: driver.execute_script(script)  # noqa: E731
    return wait_until(run, BROWSER_WAIT_S, what)

"""Visitors: a headless Chromium that really clicks through the shop, each visitor with cookies of its own.

Each one looks around for some seconds, agrees to be counted or does not, and leaves, most of them without
having bought. At its end the program reports what those who agreed did, by session, and what those who did
not agree left behind: nothing, or the example has a fault.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import tempfile
import time
import urllib.request
from collections import Counter, deque
from collections.abc import Iterator
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

from examples.common.command import stop_event

PRODUCTS = ("mug", "lamp", "kettle", "bowl", "chair", "clock", "plant", "notebook")
QUERIES = ("lamp", "coffee", "tea", "clay", "sofa", "green", "hammock", "paper", "clock", "wood")
WAIT_S = 30.0
# How many who left keep their window and cookies for a while: a browser sends the last events of a page when
# the page is gone, but hardly those of a window that is gone with all its cookies.
GONE_KEPT = 8
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--window-size=1440,1040",
)
SHOWN = "return document.querySelector('main').dataset.page === arguments[0]"
# The shop counts what a click on an element does; so do we, apart from it.
Deeds = Counter[str]


def program(*names: str) -> str:
    """The first of the programs that is there."""
    for name in names:
        if path := shutil.which(name):
            return path
    raise SystemExit(f"{names[0]} is not installed")


def browser(directory: Path) -> webdriver.Chrome:
    """A Chromium with nobody's profile, which it keeps in `directory`."""
    options = webdriver.ChromeOptions()
    options.binary_location = program("chromium", "chromium-browser", "google-chrome")
    options.enable_bidi = True  # for windows with cookies of their own
    for flag in (*FLAGS, f"--user-data-dir={directory}"):
        options.add_argument(flag)
    return webdriver.Chrome(options=options, service=Service(program("chromedriver")))


def leftovers(driver: webdriver.Chrome) -> list[str]:
    """What the page that is shown has left behind: cookies, storage, requests to the collector."""
    names: list[str] = driver.execute_script(
        "return performance.getEntriesByType('resource').map(e => e.name)"
    )
    stored = driver.execute_script("return [...Object.keys(localStorage), ...Object.keys(sessionStorage)]")
    cookies = [cookie["name"] for cookie in driver.get_cookies()]
    return [*cookies, *stored, *(name for name in names if name.endswith("/events"))]


class Visitor:
    """One visitor in a window. Each step does something, and gives the seconds to think after it."""

    def __init__(self, driver: webdriver.Chrome, shop: str, chance: random.Random) -> None:
        self.deeds: Deeds = Counter()
        self.session: str | None = None
        self.leftovers: list[str] = []
        self._came = False
        self._driver = driver
        self._shop = shop
        self._chance = chance
        self.context = driver.browser.create_user_context()
        self.window = driver.browsing_context.create(type="window", user_context=self.context)

    def steps(self) -> Iterator[float]:
        """The visit. Between two steps other visitors have theirs."""
        chance = self._chance
        self._driver.get(self._shop)
        self._came = True
        self._wait("return document.body.dataset.ready")
        yield self._think()
        self._decide(chance.random() < 0.8)
        yield self._think()
        if chance.random() < 0.45:
            self._search(chance.choice(QUERIES))
            yield self._think()
            self._click(".brand", "click", "view", page="home")
            yield self._think()
        if chance.random() < 0.2:
            self._find("#letter").send_keys("somebody@example.org")
            self._click(".newsletter button", "click", "form")
            yield self._think()
        for _ in range(chance.choice((0, 1, 1, 2, 3))):
            self._click(
                f'.card[href="#/product/{chance.choice(PRODUCTS)}"]',
                "click",
                "view",
                "product",
                page="product",
            )
            yield self._think()
            if chance.random() < 0.55:
                self._click("#add", "click", "cart")
                yield self._think()
                if chance.random() < 0.6:
                    yield from self._buy()
                    return
            self._click(".back", "click", "view", page="home")
            yield self._think()

    def _buy(self) -> Iterator[float]:
        self._click(".then", "click", "view", page="cart")
        yield self._think()
        self._click("#to-checkout", "click", "view", "checkout", page="checkout")
        yield self._think()
        if self._chance.random() < 0.7:
            for name, text in (("name", "A. Nobody"), ("email", "nobody@example.org"), ("address", "Here 1")):
                self._find(f".order [name={name}]").send_keys(text)
            self._click(".order button", "click", "form", "view", page="thanks")
            yield self._think()

    def leave(self, patiently: bool = False) -> None:
        """Leave the page, which sends what it still has; or wait `patiently` until it has sent it."""
        if self._came and self.session is None:
            self.leftovers = leftovers(self._driver)
        elif self._came and patiently:
            self._wait("return window.activity.pending() === 0")
        self._driver.get("about:blank")

    def _decide(self, granted: bool) -> None:
        self._click("#accept" if granted else "#decline")
        self._wait("return document.body.dataset.consent")
        if granted:
            cookie = self._driver.get_cookie("session")
            assert cookie is not None, "agreed, and no session"
            self.session = cookie["value"]
            self.deeds["view"] += 1

    def _search(self, query: str) -> None:
        field = self._find("#search input")
        field.send_keys(query)
        field.submit()
        self.deeds.update(("search", "view"))
        self._wait(SHOWN, "search")

    def _think(self) -> float:
        return self._chance.uniform(0.1, 0.6)

    def _find(self, selector: str) -> WebElement:
        return self._driver.find_element(By.CSS_SELECTOR, selector)

    def _click(self, selector: str, *deeds: str, page: str | None = None) -> None:
        """Click, and wait for the page that it leads to, as somebody who looks at it would."""
        element = WebDriverWait(self._driver, WAIT_S, 0.05).until(lambda _: self._find(selector))
        # The bar at the top and the question at the bottom lie above the page: not under them.
        self._driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
        element.click()
        self.deeds.update(deeds)
        if page is not None:
            self._wait(SHOWN, page)

    def _wait(self, script: str, *arguments: str) -> None:
        WebDriverWait(self._driver, WAIT_S, 0.05).until(
            lambda driver: driver.execute_script(script, *arguments)
        )


class Crowd:
    """Several visitors at once, in one browser: each in its turn takes the step that is due."""

    def __init__(self, driver: webdriver.Chrome, shop: str, size: int, seed: int) -> None:
        self.agreed: dict[str, Deeds] = {}
        self.declined = 0
        self.leftovers: list[str] = []
        self._driver = driver
        self._shop = shop
        self._size = size
        self._chance = random.Random(seed)
        # When the next step is due (the monotonic clock, seconds), whose it is, and the rest of the visit.
        self._visits: list[tuple[float, Visitor, Iterator[float]]] = []
        self._gone: deque[str] = deque()

    def step(self) -> float:
        """Take the step that is due first; the seconds until there is one, if there is none yet."""
        while len(self._visits) < self._size:
            visitor = Visitor(self._driver, self._shop, self._chance)
            self._visits.append((time.monotonic(), visitor, visitor.steps()))
        due_s, visitor, rest = min(self._visits, key=lambda visit: visit[0])
        if (wait_s := due_s - time.monotonic()) > 0:
            return wait_s
        self._visits.remove((due_s, visitor, rest))
        self._driver.switch_to.window(visitor.window)
        think_s = next(rest, None)
        if think_s is None:
            self._leave(visitor)
        else:
            self._visits.append((time.monotonic() + think_s, visitor, rest))
        return 0.0

    def _leave(self, visitor: Visitor, patiently: bool = False) -> None:
        visitor.leave(patiently)
        if visitor.session is None:
            self.declined += 1
            self.leftovers += visitor.leftovers
        else:
            self.agreed[visitor.session] = visitor.deeds
        self._gone.append(visitor.context)
        while len(self._gone) > GONE_KEPT:
            self._driver.browser.remove_user_context(self._gone.popleft())

    def close(self) -> None:
        """All of them leave, and what they did is on its way."""
        for _, visitor, _ in self._visits:
            self._driver.switch_to.window(visitor.window)
            self._leave(visitor, patiently=True)
        self._visits.clear()
        # The pictures are taken with the window that was there first.
        self._driver.switch_to.window(self._driver.window_handles[0])
        wanted = sum(deeds.total() for deeds in self.agreed.values())
        deadline = time.monotonic() + WAIT_S / 3
        while time.monotonic() < deadline:
            with urllib.request.urlopen(f"{self._shop}/health", timeout=WAIT_S) as answer:
                if json.load(answer)["accepted"] >= wanted:
                    return
            time.sleep(0.05)


def take_pictures(driver: webdriver.Chrome, shop: str, dashboard: str, path: Path) -> None:
    """The dashboard to `path`, the shop beside it."""
    for url, ready, file in (
        (shop, "return document.body.dataset.ready", path.with_stem(f"{path.stem}-shop")),
        (dashboard, "return document.querySelectorAll('#funnel .row').length", path),
    ):
        driver.get(url)
        WebDriverWait(driver, WAIT_S, 0.1).until(lambda d, script=ready: d.execute_script(script))
        driver.save_screenshot(str(file))


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--shop", required=True, metavar="URL")
    options.add_argument("--dashboard", metavar="URL", help="for the picture")
    options.add_argument("--visitors", type=int, default=3, help="how many at once")
    options.add_argument("--seed", type=int, default=1, help="of what they choose")
    options.add_argument("--report", type=Path, required=True, help="write what they did there, as JSON")
    options.add_argument("--picture", type=Path, help="at the end, save a picture of the dashboard there")
    arguments = options.parse_args()
    stop = stop_event()
    with tempfile.TemporaryDirectory(prefix="ottla-chromium-", ignore_cleanup_errors=True) as directory:
        driver = browser(Path(directory))
        try:
            crowd = Crowd(driver, arguments.shop, arguments.visitors, arguments.seed)
            while not stop.is_set():
                stop.wait(crowd.step())
            crowd.close()
            if arguments.picture and arguments.dashboard:
                take_pictures(driver, arguments.shop, arguments.dashboard, arguments.picture)
        finally:
            driver.quit()
    content = {"agreed": crowd.agreed, "declined": crowd.declined, "leftovers": crowd.leftovers}
    draft = arguments.report.with_suffix(".draft")
    draft.write_text(json.dumps(content))
    draft.rename(arguments.report)


if __name__ == "__main__":
    main()

"""Every view and every control of the page, in a real browser: both themes, three widths (docs/page.md)."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser import Browser, Scheme, browsing
from tests.running import Running, until
from tests.web.pages.scenes import served, signed_in

VIEWS = (
    "rules",
    "targets",
    "spend",
    "requests",
    "requests/00000000000000000000000000000001",
    "explain",
    "reloads",
)
WIDTHS = (390, 820, 1440)


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with served(tmp_path_factory.mktemp("page")) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with browsing() as browser:
        yield browser


@pytest.fixture
def signed(proxy: Running, browser: Browser) -> Browser:
    name, _, value = signed_in(proxy, "key-of-ops").partition("=")
    address = f"{proxy.url}/-/"
    browser.call(
        "Network.setCookie", name=name, value=value, url=address, path="/-/", httpOnly=True, sameSite="Strict"
    )
    return browser


def looked_at(browser: Browser, proxy: Running) -> None:
    """What must be so of whatever the browser shows."""
    assert browser.complaints == []
    assert [url for url in browser.asked_for if not url.startswith(f"{proxy.url}/-/")] == []
    wider = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert browser.evaluate(wider) <= 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_every_view_is_shown_without_a_complaint_and_within_its_width(
    proxy: Running, signed: Browser, width: int, scheme: Scheme
) -> None:
    for view in VIEWS:
        signed.open(f"{proxy.url}/-/{view}", width=width, scheme=scheme)
        looked_at(signed, proxy)
        title = signed.evaluate("document.querySelector('h1').textContent")
        assert title.lower().split()[0] == view.partition("/")[0].removesuffix("s" if "/" in view else "")
        folder = os.environ.get("ROUTEPROXY_SCREENSHOTS")
        if folder:
            signed.screenshot(Path(folder) / f"{view.replace('/', '-')}-{width}-{scheme}.png")


def axe() -> str:
    """The judge of accessibility; skips where it is not installed."""
    clients = Path(os.environ.get("ROUTEPROXY_TEST_CLIENTS", "clients-not-installed"))
    script = clients / "node_modules" / "axe-core" / "axe.min.js"
    if not script.exists():
        pytest.skip("ROUTEPROXY_TEST_CLIENTS names no folder with axe-core")
    return script.read_text(encoding="utf-8")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(proxy: Running, signed: Browser, scheme: Scheme) -> None:
    script = axe()
    for view in (*VIEWS, "sign-in"):
        for width in (390, 1440):
            signed.open(f"{proxy.url}/-/{view}", width=width, scheme=scheme)
            found = serious(signed, script)
            assert found == [], f"{view} at {width}"


def serious(browser: Browser, script: str) -> list[str]:
    browser.evaluate(f"{script}; null")
    browser.evaluate("axe.run().then((found) => { window.found = found; }); null")
    result: dict[str, Any] = until(
        lambda: browser.evaluate(
            "window.found && {violations: window.found.violations.map((one) => ({id: one.id,"
            " impact: one.impact, where: one.nodes.slice(0, 3).map((node) => node.html.slice(0, 120))}))}"
        ),
        20,
    )
    bad = [one for one in result["violations"] if one["impact"] in ("serious", "critical")]
    return [f"{one['impact']} {one['id']}: {one['where']}" for one in bad]


def press(browser: Browser, key: str) -> None:
    for kind in ("keyDown", "keyUp"):
        text = {"text": key} if kind == "keyDown" and len(key) == 1 else {}
        browser.call("Input.dispatchKeyEvent", type=kind, key=key, **text)


def test_somebody_signs_in_looks_around_by_keys_and_signs_out(proxy: Running, browser: Browser) -> None:
    browser.call("Network.clearBrowserCookies")
    browser.open(f"{proxy.url}/-/spend", width=1440)
    assert browser.evaluate("location.pathname") == "/-/sign-in"
    browser.evaluate("document.getElementById('key').value = 'wrong'; document.forms[0].submit(); null")
    arrive(browser, "document.querySelector('[role=alert]') !== null")
    browser.events.clear()  # a browser complains of the 401
    browser.evaluate("document.getElementById('key').value = 'key-of-ops'; document.forms[0].submit(); null")
    arrive(browser, "location.pathname === '/-/spend'")
    assert browser.evaluate("document.cookie") == ""  # no script reads it
    for number, view in enumerate(("rules", "targets", "spend", "requests", "explain", "reloads"), 1):
        press(browser, str(number))
        arrive(browser, f"location.pathname === '/-/{view}'")
    looked_at(browser, proxy)
    browser.evaluate("document.querySelector('.viewer button').click(); null")
    arrive(browser, "location.pathname === '/-/sign-in'")
    browser.open(f"{proxy.url}/-/rules", width=1440)
    assert browser.evaluate("location.pathname") == "/-/sign-in"


def arrive(browser: Browser, condition: str) -> None:
    """Waits until that is so of a page which is there in full, with its script at work."""
    until(lambda: browser.evaluate(f"document.readyState === 'complete' && ({condition})"), 10)


def shown_rows(browser: Browser) -> int:
    count: int = browser.evaluate("document.querySelectorAll('section.table tbody tr:not([hidden])').length")
    return count


def test_rows_are_filtered_as_somebody_types_and_all_are_back_after_escape(
    proxy: Running, signed: Browser
) -> None:
    signed.open(f"{proxy.url}/-/requests", width=1440)
    assert shown_rows(signed) == 50
    press(signed, "/")
    assert signed.evaluate("document.activeElement.id") == "filter"
    for letter in "corp llama":
        press(signed, letter)
    assert signed.evaluate("document.getElementById('filter').value") == "corp llama"
    assert 0 < shown_rows(signed) < 50
    press(signed, "Escape")
    assert shown_rows(signed) == 50


def test_periods_pages_details_and_the_box_are_reached_by_their_links(
    proxy: Running, signed: Browser
) -> None:
    def follow(selector: str, condition: str) -> None:
        signed.evaluate(f"document.querySelector({selector!r}).click(); null")
        arrive(signed, condition)

    signed.open(f"{proxy.url}/-/spend", width=1440)
    follow(".choices a[href*='since=30d']", "location.search === '?since=30d'")
    assert signed.evaluate("document.querySelector('.choices [aria-current]').textContent") == "30 days"
    signed.open(f"{proxy.url}/-/requests", width=1440)
    follow(".choices a", "location.search.startsWith('?until=')")
    follow("tbody a", "location.pathname.startsWith('/-/requests/0')")
    signed.open(f"{proxy.url}/-/explain", width=1440)
    follow("main form button", "document.querySelector('.words pre') !== null")
    assert "Nobody is asked" in signed.evaluate("document.body.innerText")
    looked_at(signed, proxy)


def test_times_are_those_of_whoever_looks(proxy: Running, signed: Browser) -> None:
    signed.call("Emulation.setTimezoneOverride", timezoneId="Asia/Tokyo")
    try:
        signed.open(f"{proxy.url}/-/requests", width=1440)
        first = "document.querySelector('td time, th time')"
        shown, was = signed.evaluate(f"[{first}.textContent, {first}.title]")
    finally:
        signed.call("Emulation.setTimezoneOverride", timezoneId="")
    assert was.endswith(" UTC")
    assert shown != was


def test_the_page_works_without_its_script(proxy: Running, signed: Browser) -> None:
    signed.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        signed.open(f"{proxy.url}/-/rules", width=1440)
        assert signed.complaints == []
    finally:
        signed.call("Emulation.setScriptExecutionDisabled", value=False)


def test_what_is_focused_can_be_seen_and_comes_in_order(proxy: Running, signed: Browser) -> None:
    signed.open(f"{proxy.url}/-/rules", width=1440)
    reached = []
    for _ in range(9):
        for kind in ("keyDown", "keyUp"):
            signed.call("Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab", windowsVirtualKeyCode=9)
        reached.append(signed.evaluate("document.activeElement.textContent.trim()"))
        outline = "getComputedStyle(document.activeElement).outlineStyle"
        assert signed.evaluate(outline) != "none" or reached[-1] == "To the content"
    assert reached[:3] == ["To the content", "routeproxy", "Rules"]
    assert reached[8] == "Sign out"

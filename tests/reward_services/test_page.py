"""The page at `/`: its files over HTTP, and what a person can do with it in a real browser."""

import hashlib
import json
import os
import re
import shutil
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

from reward_services.page import FILES, HEADERS, asset

Running = Callable[..., AbstractAsyncContextManager[Any]]
OWN = [path for path, (package, *_) in FILES.items() if package == "reward_services.static"]

REWARD = """
import os, time
from reward_services import ItemError, Scored

class Shown:
    name = "shown"
    version = "1"
    units = "kB"
    direction = "minimize"
    range = (-1.0, 1.0)
    max_batch_size = 4

    def score(self, items):
        return [self.one(item) for item in items]

    def one(self, item):
        if item.prompt == "refuse":
            return ItemError("<b>too</b> dark", code="too_dark")
        while item.prompt == "wait" and not os.path.exists("go"):
            time.sleep(0.01)
        return Scored(-item.image.mean() / 255 / 3, {
            "caption": f"{item.prompt} <img src=x onerror=alert(1)>",
            "words": ["cat", "hat"],
            "parts": {"f1": 0.5},
            "sides": [item.image.shape[1], item.image.shape[0]],
        })
"""
SCORE = -153 / 255 / 3
KEY = "a-key-of-the-service"


# The files over HTTP


@pytest.mark.parametrize("path", FILES)
async def test_every_file_is_served_and_may_load_nothing_from_elsewhere(
    stack: Running, path: str
) -> None:
    async with stack() as service:
        answer = await service.http.get(path)
        again = await service.http.get(path, headers={"if-none-match": answer.headers["etag"]})
    assert (answer.status_code, answer.content) == (200, asset(path).content)
    assert answer.headers["content-type"] == asset(path).media_type
    assert {name: answer.headers[name] for name in HEADERS} == HEADERS
    assert (again.status_code, again.content) == (304, b"")
    policy = dict(part.split(" ", 1) for part in HEADERS["Content-Security-Policy"].split("; "))
    assert policy["default-src"] == "'none'"
    sources = {source for sources in policy.values() for source in sources.split()}
    assert sources == {"'none'", "'self'", "blob:", "data:"}


@pytest.mark.parametrize("path", OWN)
def test_our_files_name_no_other_host_and_no_missing_file(path: str) -> None:
    text = asset(path).content.decode()
    assert set(re.findall(r"\w+://[\w.]+", text)) <= {"http://www.w3.org"}
    named = re.findall(r'(?:src|href)="(?!data:)([^"]+)"|from "\./([^"]+)"', text)
    for reference, module in named:
        assert (f"/{reference}" if reference else f"/page/{module}") in FILES


def test_swagger_ui_is_the_published_one() -> None:
    """swagger-ui-dist 5.34.0, as on npm: a change of the package that carries it must be seen."""
    hashes = [
        hashlib.sha256(asset(f"/page/swagger-ui{name}").content).hexdigest()
        for name in (".css", "-bundle.js")
    ]
    assert hashes == [
        "c3cfe8248c4b0b89673600fb829924eafbac6de4bc4b2b06f5f5243483074d0a",
        "3f6abf70480db7e07914df4c98a77385f22ea585eaf457a3e6415ba0eae2d167",
    ]


async def test_the_pages_are_public_and_say_nothing_about_the_reward(stack: Running) -> None:
    async with stack(api_keys=KEY) as service:
        for path in OWN:
            answer = await service.http.get(path)
            assert answer.status_code == 200
            assert service.info.name not in answer.text
            assert KEY not in answer.text
        for outside in ("/page/", "/page/../api.py", "/page/%2e%2e/api.py", "/page/index.html"):
            assert (await service.http.get(outside)).status_code == 401


def colours(scheme: str) -> dict[str, tuple[float, ...]]:
    """The custom properties of one colour scheme; the dark ones lie over the light ones."""
    blocks = re.findall(r":root \{(.+?)\}", asset("/page/page.css").content.decode(), re.DOTALL)
    found: dict[str, tuple[float, ...]] = {}
    for block in blocks if scheme == "dark" else blocks[:1]:
        for name, value in re.findall(r"--([\w-]+): #(\w{6});", block):
            found[name] = tuple(int(value[at : at + 2], 16) / 255 for at in (0, 2, 4))
    return found


def luminance(colour: tuple[float, ...]) -> float:
    """Relative luminance as in WCAG 2.2."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_the_contrast_that_wcag_asks_for(scheme: str) -> None:
    of = colours(scheme)
    pairs = [(text, on) for text in ("text", "muted", "accent") for on in ("ground", "card")]
    pairs += [
        ("on-accent", "accent"),
        ("text", "bad-tint"),
        ("muted", "bad-tint"),
        ("bad", "card"),
        ("wait", "ground"),
    ]
    for text, on in pairs:
        low, high = sorted((luminance(of[text]), luminance(of[on])))
        assert (high + 0.05) / (low + 0.05) >= 4.5, f"{text} on {on}"


# In a browser


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    binary, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (binary and driver) and not os.environ.get("CI"):
        pytest.skip("no browser: the page is tested with Debian's chromium and chromium-driver")
    assert binary is not None, "CI needs Debian's package chromium"
    assert driver is not None, "CI needs Debian's package chromium-driver"
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for flag in (
        "headless",
        "no-sandbox",
        "disable-gpu",
        "disable-quic",
        "disable-dev-shm-usage",
        "no-first-run",
        "disable-background-networking",
        "disable-component-update",
        "disable-sync",
        "window-size=1200,1000",
        f"user-data-dir={tmp_path_factory.mktemp('chromium')}",
    ):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    running = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield running
    running.quit()


@dataclass(frozen=True)
class Page:
    """The page in a tab of its own."""

    browser: webdriver.Chrome
    url: str

    def open(self, path: str = "/") -> None:
        self.browser.get(self.url + path)

    def at(self, name: str) -> WebElement:
        return self.browser.find_element(By.ID, name)

    def until(self, holds: Callable[[], object]) -> None:
        """Wait for what must come; how long it takes decides nothing."""
        WebDriverWait(self.browser, 30, poll_frequency=0.05).until(lambda _: holds())

    def ready(self) -> None:
        self.open()
        self.until(lambda: self.at("phase").text == "ready" and self.at("about").is_displayed())

    def ask(self, picture: Path, prompt: str) -> None:
        self.at("file").send_keys(str(picture))
        self.at("prompt").clear()
        self.at("prompt").send_keys(prompt)
        self.at("submit").click()

    def score(self, picture: Path, prompt: str = "a cat") -> str:
        """Ask, and wait for the text of the answer."""
        self.ask(picture, prompt)
        self.until(lambda: self.browser.find_elements(By.CSS_SELECTOR, "#result .score"))
        return self.at("result").text

    def complaint(self) -> str:
        self.until(lambda: self.at("complaint").text)
        return self.at("complaint").text

    def run(self, script: str, *arguments: object) -> Any:
        return self.browser.execute_script(script, *arguments)

    def console(self) -> list[str]:
        return [entry["message"] for entry in self.browser.get_log("browser")]  # type: ignore[no-untyped-call]

    def requested(self) -> set[str]:
        """Every URL that the browser asked for since this was last called."""
        entries = self.browser.get_log("performance")  # type: ignore[no-untyped-call]
        messages = [json.loads(entry["message"])["message"] for entry in entries]
        return {
            message["params"]["request"]["url"]
            for message in messages
            if message["method"] == "Network.requestWillBeSent"
        }


@pytest.fixture
def tab(chromium: webdriver.Chrome) -> Iterator[webdriver.Chrome]:
    """A tab without storage, logs or emulation left by another test."""
    first = chromium.current_window_handle
    chromium.switch_to.new_window("tab")
    for kind in ("browser", "performance"):
        chromium.get_log(kind)  # type: ignore[no-untyped-call]
    yield chromium
    chromium.close()
    chromium.switch_to.window(first)


@pytest.fixture(scope="module")
def shown(start_service: Callable[..., Any]) -> Any:
    return start_service("shown:Shown", REWARD)


@pytest.fixture
def page(tab: webdriver.Chrome, shown: Any) -> Page:
    return Page(tab, shown.url)


@pytest.fixture(scope="module")
def locked(start_service: Callable[..., Any]) -> Any:
    return start_service("shown:Shown", REWARD, REWARD_API_KEYS=KEY)


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pictures") / "cat's.png"
    Image.new("RGB", (40, 30), (153, 153, 153)).save(path)
    return path


def test_a_picture_gets_its_score(page: Page, picture: Path) -> None:
    page.ready()
    assert page.browser.title == "shown · reward service"
    assert "in kB; lower is better" in page.at("meaning").text
    assert "−1 to 1" in page.at("facts").text.replace("-1", "−1")
    text = page.score(picture)
    assert "−0.2 kB" in text
    assert "Lower is better" in text
    assert "sides\n40, 30".replace("\n", " ") in text.replace("\n", " ")
    for stage in ("Receiving", "Decoding", "in the queue", "batch", "Scoring", "Network"):
        assert stage in text
    # Every stage that the service tells has a colour, and a name in words of its own.
    styles = asset("/page/page.css").content.decode()
    for swatch in page.browser.find_elements(By.CSS_SELECTOR, ".timings .swatch"):
        selector = f'[data-stage="{swatch.get_attribute("data-stage")}"]'
        assert selector in styles
    assert page.browser.find_elements(By.CSS_SELECTOR, ".bar [data-stage=inference]")
    assert page.at("news").get_attribute("textContent") == "Score −0.2 kB, lower is better."
    dot = page.browser.find_element(By.CSS_SELECTOR, ".scale .dot")
    assert dot.get_attribute("style") == "left: 40%;"
    assert page.console() == []


def test_the_request_can_be_repeated_from_a_terminal(page: Page, picture: Path) -> None:
    page.ready()
    page.score(picture)
    page.browser.find_element(By.CSS_SELECTOR, "#result summary").click()
    command = page.browser.find_element(By.CSS_SELECTOR, "#result pre").text
    assert command == f"curl -F images=@'cat'\\''s.png' -F prompts='a cat' {page.url}/score"


def test_what_a_reward_says_is_text_and_never_markup(page: Page, picture: Path) -> None:
    page.ready()
    assert "a cat <img src=x onerror=alert(1)>" in page.score(picture)
    assert not page.browser.find_elements(By.CSS_SELECTOR, "#result img")


def test_an_item_error_is_shown_as_no_score(page: Page, picture: Path) -> None:
    page.ready()
    text = page.score(picture, "refuse")
    assert "No score" in text
    assert "<b>too</b> dark." in text
    assert "too_dark" in text
    assert "kB" not in text.replace("shown", "")


def test_a_file_that_is_no_picture(page: Page, tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"no picture")
    page.ready()
    assert "image_unreadable" in page.score(tmp_path / "x.png")
    assert not page.at("preview").is_displayed()


def test_nothing_is_asked_of_another_host(page: Page, picture: Path) -> None:
    page.ready()
    page.score(picture)
    page.open("/docs")
    page.until(lambda: "Score pictures" in page.at("docs").text)
    own = {url for url in page.requested() if not url.startswith(("blob:", "data:"))}
    assert {f"{page.url}/{path}" for path in ("score", "page/page.js", "openapi.json")} <= own
    assert all(url.startswith(f"{page.url}/") for url in own)
    assert page.console() == []


def test_the_browser_is_told_to_load_nothing_from_elsewhere(page: Page, service: Any) -> None:
    page.ready()
    script = """
        const [foreign, done] = arguments;
        document.addEventListener("securitypolicyviolation", (e) => done(e.effectiveDirective));
        fetch(foreign).then(() => done("reached"), () => {});
    """
    blocked = page.browser.execute_async_script(script, f"{service.url}/livez")
    assert blocked == "connect-src"


def test_the_keyboard_is_enough(page: Page, picture: Path) -> None:
    page.ready()
    order = []
    for _ in range(4):
        ActionChains(page.browser).send_keys(Keys.TAB).perform()
        focused = page.browser.switch_to.active_element
        order.append(focused.accessible_name)
    assert order == [
        "API documentation",
        "Choose a picture, drop it here, or paste it",
        "Prompt",
        "Score",
    ]
    page.at("file").send_keys(str(picture))
    page.at("prompt").send_keys("a", Keys.SHIFT, Keys.ENTER, Keys.NULL, "cat", Keys.ENTER)
    page.until(lambda: "−0.2 kB" in page.at("result").text)
    assert page.at("file").accessible_name == "Chosen picture: cat's.png"


def test_what_is_missing_is_said_and_focused(page: Page, picture: Path) -> None:
    page.ready()
    page.at("submit").click()
    assert page.complaint() == "Choose a picture first."
    assert page.browser.switch_to.active_element == page.at("file")
    page.at("file").send_keys(str(picture))
    page.at("submit").click()
    page.until(lambda: page.at("complaint").text.startswith("This reward needs a prompt"))
    assert page.browser.switch_to.active_element == page.at("prompt")
    assert page.at("complaint").get_attribute("role") == "alert"


DROP = """
    const [kind, target, encoded] = arguments;
    const bytes = Uint8Array.from(atob(encoded), (each) => each.charCodeAt(0));
    const data = new DataTransfer();
    data.items.add(new File([bytes], "given.png", { type: "image/png" }));
    const options = { bubbles: true, cancelable: true };
    const event = kind === "paste"
      ? new ClipboardEvent(kind, { ...options, clipboardData: data })
      : new DragEvent(kind, { ...options, dataTransfer: data });
    target.dispatchEvent(event);
    return event.defaultPrevented;
"""


@pytest.mark.parametrize(
    ("kind", "target"), [("drop", "drop"), ("drop", "name"), ("paste", "form")]
)
def test_a_picture_can_be_dropped_and_pasted(
    page: Page, picture: Path, kind: str, target: str
) -> None:
    """Dropped beside the field too: the browser would leave the page for the picture."""
    page.ready()
    size = picture.stat().st_size
    encoded = b64encode(picture.read_bytes()).decode()
    prevented = page.run(DROP, kind, page.at(target), encoded)
    assert prevented or kind == "paste"
    page.until(lambda: page.at("file-hint").text == f"given.png · {size} bytes · 40 × 30")
    page.at("prompt").send_keys("a cat", Keys.ENTER)
    page.until(lambda: "−0.2 kB" in page.at("result").text)


def test_a_request_can_be_cancelled(page: Page, picture: Path, shown: Any) -> None:
    page.ready()
    page.ask(picture, "wait")
    page.until(lambda: page.at("cancel").is_displayed())
    page.at("cancel").click()
    page.until(lambda: page.at("result").text == "Cancelled.")
    assert page.at("submit").text == "Score"
    page.until(lambda: '"status": 499' in shown.log)
    (shown.folder / "go").touch()
    assert "−0.2 kB" in page.score(picture)


def test_earlier_scores_stay_in_sight(page: Page, picture: Path) -> None:
    page.ready()
    page.score(picture, "first")
    assert not page.at("earlier").is_displayed()
    page.score(picture, "refuse")
    page.until(lambda: "refuse" in page.at("history").text)
    assert page.at("history").text.splitlines() == ["No score", "refuse", "−0.2 kB", "first"]


def test_a_service_that_goes_and_comes_back(
    tab: webdriver.Chrome, own_service: Any, picture: Path
) -> None:
    page = Page(tab, own_service.url)
    page.ready()
    own_service.kill()
    page.ask(picture, "a cat")
    assert "The service did not answer" in page.complaint()
    page.until(lambda: page.at("phase").text == "not answering")
    page.until(lambda: page.at("trouble").text)
    own_service.start()
    page.until(lambda: page.at("phase").text == "ready")
    assert page.at("trouble").text == ""
    assert "kB" in page.score(picture)
    assert page.at("complaint").text == ""


def test_a_reward_that_was_replaced_is_described_anew(
    tab: webdriver.Chrome, own_service: Any, picture: Path
) -> None:
    page = Page(tab, own_service.url)
    page.ready()
    own_service.kill()
    own_service.start("jpeg_incompressibility")
    page.score(picture)
    assert page.at("name").text == "jpeg_incompressibility"


def test_a_service_with_keys_asks_for_one(
    tab: webdriver.Chrome, locked: Any, picture: Path
) -> None:
    page = Page(tab, locked.url)
    page.open()
    page.until(lambda: page.at("key").is_displayed())
    assert page.at("complaint").text == "", "nobody has done anything wrong yet"
    assert page.browser.switch_to.active_element == page.at("key")
    page.at("key").send_keys("another", Keys.ENTER)
    assert page.complaint() == "The service does not know this API key.\nHTTP 401"
    page.at("key").clear()
    page.at("key").send_keys(KEY, Keys.ENTER)
    page.until(lambda: page.at("about").is_displayed())
    assert "−0.2 kB" in page.score(picture)
    assert KEY not in page.browser.current_url
    assert page.run("return localStorage.length") == 0
    page.open("/docs")
    page.until(lambda: "Score pictures" in page.at("docs").text)


def test_the_documentation_of_a_service_with_keys_says_where_to_enter_one(
    tab: webdriver.Chrome, locked: Any
) -> None:
    page = Page(tab, locked.url)
    page.open("/docs")
    page.until(lambda: "start page" in page.at("docs").text)
    page.browser.find_element(By.TAG_NAME, "a").click()
    page.until(lambda: page.at("key").is_displayed())


@pytest.mark.parametrize("width", [320, 700, 1400])
def test_no_width_needs_to_scroll_sideways(page: Page, picture: Path, width: int) -> None:
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
    page.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    page.ready()
    page.score(picture, "motorcycle" * 30)
    wide = page.run("return document.documentElement.scrollWidth")
    assert wide <= width


def test_the_page_follows_the_systems_colours(page: Page) -> None:
    seen = []
    for scheme in ("light", "dark"):
        feature = {"name": "prefers-color-scheme", "value": scheme}
        page.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
        page.ready()
        seen.append(page.at("form").value_of_css_property("background-color"))
    wanted = [tuple(round(c * 255) for c in colours(each)["card"]) for each in ("light", "dark")]
    assert [tuple(map(int, re.findall(r"\d+", each)[:3])) for each in seen] == wanted

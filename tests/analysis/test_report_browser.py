"""The pages in a real browser: nothing fails to load, nothing is wider than the screen, both colour schemes work."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

from analysis.report import write_comparison, write_report
from tests.analysis.evaluations import an_evaluation, change
from tests.analysis.transfers import a_transfer

BROWSER, DRIVER = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(not (BROWSER and DRIVER), reason="chromium and chromedriver are not installed")
FLAGS = (
    "headless no-sandbox disable-gpu disable-quic no-first-run disable-background-networking disable-component-update"
    " disable-sync"
)
PHONE, DESK = 400, 1400


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = str(BROWSER)
    for flag in (*FLAGS.split(), f"user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    found = webdriver.Chrome(options=options, service=Service(str(DRIVER)))
    yield found
    found.quit()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """With long words of all kinds, which are what makes pages too wide."""
    root, word = tmp_path_factory.mktemp("pages"), "robustnet_adv_with_a_name_that_goes_on_and_on_" * 3
    folders = [an_evaluation(root / name, f"{name}_{word}", seed=seed) for seed, name in enumerate("abcd")]
    check = {"name": word, "verdict": "doubt", "text": word, "figures": {word: 1.0}, "source": word}
    change(folders[0], command=word * 2, checks=[check])
    change(folders[0], "manifest.json", attacks={"pgd": word * 3})
    transfer = a_transfer(root / "transfer", [word, *"abcdefghijk"], [word, "pgd"], command=word * 2)
    return {
        "report": write_report(folders[0]),
        "comparison": write_comparison(folders, root / "comparison.html"),
        "transfer": write_report(transfer),
    }


def show(browser: Any, page: Path, width: int, scheme: str = "light") -> None:
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    browser.get(page.as_uri())


@pytest.mark.parametrize("name", ["report", "comparison", "transfer"])
@pytest.mark.parametrize("width", [PHONE, DESK])
def test_the_page_fits_and_says_nothing_to_the_console(
    browser: Any, pages: dict[str, Path], name: str, width: int
) -> None:
    show(browser, pages[name], width)
    wide = "return [document.documentElement.scrollWidth, document.body.scrollWidth, window.innerWidth]"
    whole, body, window = browser.execute_script(wide)
    assert window == width
    assert max(whole, body) <= width
    assert browser.get_log("browser") == []


@pytest.mark.parametrize("name", ["report", "transfer"])
def test_wide_tables_scroll_in_their_own_box(browser: Any, pages: dict[str, Path], name: str) -> None:
    show(browser, pages[name], PHONE)
    boxes = "return [...document.querySelectorAll('.scroll')].map(box => [box.scrollWidth, box.clientWidth])"
    found = browser.execute_script(boxes)
    assert any(content > box for content, box in found)
    assert all(box <= PHONE for _, box in found)


def test_all_images_load_and_stay_crisp(browser: Any, pages: dict[str, Path]) -> None:
    show(browser, pages["report"], DESK)
    images = "return [...document.images].map(i => [i.naturalWidth, i.clientWidth, getComputedStyle(i).imageRendering])"
    found = browser.execute_script(images)
    assert len(found) == 3 * (1 + 2 * 2)
    assert {tuple(image) for image in found} == {(32, 100, "pixelated")}


@pytest.mark.parametrize("name", ["report", "comparison", "transfer"])
def test_dark_and_light_differ_and_both_can_be_read(browser: Any, pages: dict[str, Path], name: str) -> None:
    shots, ratios = set(), []
    for scheme in ("light", "dark"):
        show(browser, pages[name], DESK, scheme)
        shots.add(browser.get_screenshot_as_base64())
        ratios += browser.execute_script(CONTRASTS)
    assert len(shots) == 2
    assert len(ratios) > 10
    assert min(ratio for ratio, _ in ratios) >= 4.5, min(ratios)  # WCAG 2.2, 1.4.3


# Of all elements with text of their own: contrast to what is behind, with what shines through.
CONTRASTS = """
const numbers = colour => colour.match(/[\\d.]+/g).map(Number);
const light = colour => colour.slice(0, 3).map(v => v / 255)
  .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
  .reduce((sum, v, k) => sum + v * [0.2126, 0.7152, 0.0722][k], 0);
const behind = one => {
  if (!one) return [255, 255, 255];
  const [r, g, b, alpha = 1] = numbers(getComputedStyle(one).backgroundColor);
  if (alpha === 1) return [r, g, b];
  return behind(one.parentElement).map((under, k) => alpha * [r, g, b][k] + (1 - alpha) * under);
};
return [...document.querySelectorAll("body *")]
  .filter(one => [...one.childNodes].some(node => node.nodeType === 3 && node.textContent.trim()))
  .map(one => {
    const style = getComputedStyle(one), ink = light(numbers(one.closest("svg") ? style.fill : style.color));
    const [high, low] = [ink, light(behind(one.closest("svg") ?? one))].sort((a, b) => b - a);
    return [(high + 0.05) / (low + 0.05), one.outerHTML.slice(0, 80)];
  });
"""


@pytest.mark.parametrize("name", ["report", "transfer"])
def test_on_paper_the_ink_is_dark_and_every_column_is_there(browser: Any, pages: dict[str, Path], name: str) -> None:
    browser.get(pages[name].as_uri())
    features = [{"name": "prefers-color-scheme", "value": "dark"}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print", "features": features})
    page, ink, scroll = browser.execute_script(
        "const style = getComputedStyle(document.body);"
        "return [style.backgroundColor, style.color, getComputedStyle(document.querySelector('.scroll')).overflowX]"
    )
    assert (page, ink, scroll) == ("rgb(255, 255, 255)", "rgb(0, 0, 0)", "visible")

"""The page of a real run, opened in a browser: every section has its figures, nothing is asked of a network, no word of
others is obeyed, and people who cannot see it can read it.
"""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits
from tiny_runs import tiny_recipe

from penjing.cli import main
from penjing.core import RunError
from penjing.pipeline import read_report, shape, write_report
from penjing.pipeline._files import write_sealed
from penjing.pipeline._run import read_ledger
from penjing.report import report_lines

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SHOTS = Path(__file__).parents[2] / "runs" / "screenshots"
EVIL = "<img src=x onerror=document.title=1>"
RECIPE = {
    "task": "image-classification",
    "budget": "macs<=0.6x",
    "image_size": 8,
    "margin": 3.0,
    "seeds": 2,
    "steps": {
        "transfer": {"epochs": 6, "probe_epochs": 1, "lr": 0.01},
        "prune": {"criterion": "obs", "round_to": 1, "calibration": 128},
        "recover": {"epochs": 2, "lr": 0.01},
        "measure": {"elsewhere": False, "repeats": 3, "rounds": 3, "batch_sizes": [8]},
        "explain": {"examples": 24, "shown": 12},
        "stability": {"examples": 120},
    },
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose class 3 has a name that a careless page would obey."""
    desk = tmp_path_factory.mktemp("desk")
    images, labels = load_digits(return_X_y=True)
    rows = []
    for number, (image, label) in enumerate(zip(images[:1200], labels, strict=False)):
        file = desk / f"{number}.png"
        Image.fromarray((image.reshape(8, 8) * 15.9).astype(np.uint8)).save(file)
        rows.append(f'{file.name},"{EVIL if label == 3 else label}"')
    (desk / "digits.csv").write_text("\n".join(["path,label", *rows]) + "\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PENJING_CACHE", str(desk / "cache"))
        shape(tiny_recipe({**RECIPE, "data": str(desk / "digits.csv")}, desk), desk / "run", trust=True)
    return desk / "run"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    if BROWSER is None:
        pytest.skip("no Chromium on this machine")
    with playwright.sync_playwright() as started:
        options = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        opened = started.chromium.launch(executable_path=BROWSER, args=options)
        yield opened
        opened.close()


def opened(browser: Any, run: Path, **options: Any) -> tuple[Any, list[str], list[str]]:
    """The page, what it asked for beside itself, and what went wrong in it."""
    page = browser.new_context(**options).new_page()
    asked: list[str] = []
    wrong: list[str] = []
    page.on("request", lambda one: asked.append(one.url))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
    page.goto((run / "report.html").as_uri(), wait_until="load")
    own = (run / "report.html").as_uri()
    return page, [url for url in asked if url != own and not url.startswith("data:")], wrong


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("light", {"viewport": {"width": 1200, "height": 900}, "color_scheme": "light"}),
        ("dark", {"viewport": {"width": 1200, "height": 900}, "color_scheme": "dark"}),
        ("phone", {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 2}),
    ],
)
def test_it_opens_anywhere_asks_for_nothing_and_is_accessible(
    browser: Any, run: Path, name: str, options: dict[str, Any]
) -> None:
    page, asked, wrong = opened(browser, run, **options)
    assert (asked, wrong) == ([], [])
    assert "Penjing" in page.title()
    assert page.evaluate("document.documentElement.scrollWidth") == options["viewport"]["width"]
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    found = axe.run(page).response["violations"]
    assert [(one["id"], one["nodes"][0]["html"]) for one in found] == []
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SHOTS / f"report-{name}.png", full_page=True)
    page.context.close()


def test_every_section_has_its_figures(browser: Any, run: Path) -> None:
    page, _, _ = opened(browser, run)
    metrics, explain = (json.loads((run / f"{name}.json").read_text()) for name in ("metrics", "explain"))
    stability = json.loads((run / "stability.json").read_text())

    def texts(section: str, what: str) -> list[str]:
        return page.locator(f"#{section} {what}").all_inner_texts()

    assert texts("networks", "tbody th")[: len(metrics["rows"])] == [row["name"] for row in metrics["rows"]]
    assert page.locator("#networks svg circle").count() == len(metrics["rows"]) - 1  # base has no head
    assert page.locator("#certificate table").count() == 3
    assert "seeds" in " ".join(texts("networks", "p"))
    assert len(texts("structure", "tbody tr")) == len(explain["layers"])
    assert texts("latency", "tbody tr")
    cut = [group for group in explain["removed"]["groups"] if group["removed"]]
    assert page.locator("#sensitivity svg").count() == len(cut) > 0
    assert len(texts("sensitivity", ".scroll > table > tbody tr")) >= len(explain["removed"]["groups"])
    assert page.locator("#flips .flips > li").count() == len(explain["flips"]["shown"]) > 0
    assert page.locator("#flips .looks figure").count() == 3 * len(explain["flips"]["shown"])
    assert page.locator("#stability svg").count() == len({row["kind"] for row in stability["disturbed"]}) - 1
    assert len(texts("looks", "tbody tr")) == 2
    assert page.locator("#looks svg").count() == 1
    assert "budget: macs<=0.6x" in page.locator("#made pre").text_content()
    verdict = json.loads((run / "certificate.json").read_text())["verdict"]
    assert page.locator(".pill").inner_text().lower() == verdict
    page.context.close()


def test_words_of_others_are_shown_and_not_obeyed(browser: Any, run: Path) -> None:
    page, asked, _ = opened(browser, run)
    assert page.title() != "1"
    assert asked == []
    assert page.get_by_text(EVIL[:40]).count() > 0
    page.context.close()


def test_it_can_be_used_by_keyboard(browser: Any, run: Path) -> None:
    page, _, _ = opened(browser, run)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the report"
    page.keyboard.press("Enter")
    page.locator("summary").first.focus()
    page.keyboard.press("Enter")
    assert page.locator("details[open]").count() == 1
    page.context.close()


def test_nothing_is_folded_away_on_paper(browser: Any, run: Path) -> None:
    page, _, _ = opened(browser, run, viewport={"width": 900, "height": 1200})
    tables = page.locator("details .scroll table")
    assert tables.count() > 0
    assert not tables.first.is_visible()
    page.emulate_media(media="print")
    assert all(tables.nth(number).is_visible() for number in range(tables.count()))
    assert page.locator("details pre").is_visible()
    page.pdf(path=SHOTS / "report.pdf", format="A4")
    page.context.close()


@pytest.mark.parametrize("file", ["metrics.json", "explain.json", "certificate.json"])
@pytest.mark.parametrize("content", [None, "null", "{}"])
def test_a_run_with_altered_files_has_no_report(
    run: Path, tmp_path: Path, file: str, content: str | None
) -> None:
    shutil.copytree(run, tmp_path / "run")
    altered = tmp_path / "run" / file
    if content is None:
        altered.unlink()
    else:
        altered.write_text(content)
    with pytest.raises(RunError, match=rf"{file}.* is (missing|torn)|not come to its figures"):
        write_report(tmp_path / "run")


def test_an_unfinished_run_says_what_is_to_come(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    ledger = read_ledger(tmp_path / "run")
    for step in ledger["steps"]:
        if step["name"] in ("save", "stability", "explain"):
            step.pop("files")
            step["state"] = "pending"
    ledger["state"] = "stopped"
    write_sealed(tmp_path / "run" / "run.json", ledger)
    for name in ("certificate", "stability", "explain"):
        (tmp_path / "run" / f"{name}.json").unlink()
    page = write_report(tmp_path / "run").read_text()
    assert "This run has not come to its steps save, stability, explain." in page
    assert "--resume" in page
    assert "No certificate yet" in page or "no certificate yet" in page
    assert "not asked for" not in page
    assert "has not come to explaining yet" in page
    told = [part for part in report_lines(read_report(tmp_path / "run")) if isinstance(part, str)]
    assert told[0].startswith("This run has not come to")
    assert "no certificate yet" in told


def test_it_is_small(run: Path) -> None:
    assert (run / "report.html").stat().st_size < 6e6


def test_the_page_holds_no_script_and_no_address(run: Path) -> None:
    text = (run / "report.html").read_text()
    assert "<script" not in text
    assert not re.findall(r"(?:src|href)=\"(?!data:|#)", text)
    assert EVIL not in text


def test_it_is_written_anew_and_told_in_words(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def told(*arguments: str) -> str:
        monkeypatch.setattr("sys.argv", ["penjing", *arguments])
        with pytest.raises(SystemExit) as left:
            main()
        assert left.value.code == 0
        return capsys.readouterr().out

    before = (run / "report.html").read_bytes()
    words = told("report", str(run))
    assert "answers changed" in words
    assert "falls furthest behind" in words
    assert (run / "report.html").read_bytes() == before
    assert told("report", str(run), str(run)).count("report.html") == 2
    explained = told("explain", str(run))
    assert "predicted loss" in explained
    assert "network output" in explained
    assert json.loads(told("explain", str(run), "--json"))["flips"]["of"] >= 0


def test_a_folder_without_a_run_has_no_report(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="holds no run"):
        write_report(tmp_path)

"""The page in a real browser, opened from a file. Debian's Chromium, or one that Playwright has installed."""

from __future__ import annotations

import os
import re
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
from test_page import EVIL, ROOT, data, make, named, page  # noqa: E402
from test_page_tables import changed, grids  # noqa: E402

from ssl_bench.config.compose import compose  # noqa: E402
from ssl_bench.page import contents, serve  # noqa: E402
from ssl_bench.training.run import run  # noqa: E402

pytestmark = pytest.mark.slow
AXE = {
    "light": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"],
    "dark": ["color-contrast"],  # all else is the same
}
VIEWS = ("findings", "tables", "curves", "cost", "compare", "runs")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make(tmp_path_factory.mktemp("browser"))
    (folder / "runs" / "foreign").mkdir()
    (folder / "runs" / "foreign" / "record.json").write_text("{}", encoding="utf-8")
    page(folder, folder / "site", named(folder))
    return folder / "site"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    path = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    with playwright.sync_playwright() as driver:
        try:
            browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        except playwright.Error as error:
            pytest.skip(f"no browser starts here: {str(error).splitlines()[0]}")
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of two short runs, with their images."""
    folder = tmp_path_factory.mktemp("trained")
    for method in ("simclr", "byol"):
        run(compose([f"method={method}", "scale=smoke", "trainer.threads=1", f"runs_dir={folder / 'runs'}"]))
    page(folder, folder / "site", "images=60")
    return folder / "site"


@pytest.fixture(scope="module")
def figure(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a finding whose picture is of curves."""
    folder = make(tmp_path_factory.mktemp("figure"))
    file = folder / "experiments" / "evil" / "rows.yaml"
    show = {"kind": "curves", "title": EVIL, "network": "student", "protocol": "knn1"}
    file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text(encoding="utf-8")) | {"show": show}), encoding="utf-8")
    page(folder, folder / "site", named(folder))
    return folder / "site"


@pytest.fixture
def opened(chromium: Any, site: Path) -> Iterator[Any]:
    """The page, which may ask for nothing but its own files and print no error."""
    context = chromium.new_context(viewport={"width": 1100, "height": 900}, color_scheme="light")
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    tab = context.new_page()
    tab.set_default_timeout(10_000)
    wrong: list[str] = []
    tab.on("console", lambda message: wrong.append(message.text) if message.type in ("error", "warning") else None)
    tab.on("pageerror", lambda error: wrong.append(str(error)))
    tab.on("dialog", lambda dialog: (wrong.append("an alert"), dialog.dismiss()))
    tab.on(
        "request", lambda request: wrong.append(request.url) if not request.url.startswith(("file:", "data:")) else None
    )
    tab.goto(f"{(site / 'index.html').as_uri()}#findings")
    yield tab
    context.close()
    assert wrong == []


def go(tab: Any, view: str) -> None:
    tab.evaluate("hash => { location.hash = hash }", view)
    name = view.partition("?")[0]
    tab.wait_for_selector(f"[data-view={name}]:visible" + ("" if name == "findings" else " .view > *"))


def first_cells(tab: Any, view: str, place: int = 0) -> list[str]:
    rows = f"[data-view={view}] table.data >> nth=0 >> tbody tr"
    return list(
        tab.eval_on_selector_all(rows, "(rows, n) => rows.map(row => row.children[n].textContent.trim())", place)
    )


def test_findings_show_names_as_text_and_the_figure_behind_them(opened: Any) -> None:
    assert EVIL in opened.inner_text("article h3")
    assert "does not hold" in opened.inner_text("article .verdict")
    opened.wait_for_selector("article .figure svg")
    assert opened.locator("article .figure svg").count() == 2
    assert opened.locator("main img").count() == 0
    opened.click("text=Commands that make it")
    opened.click("article details button:has-text('Copy')")
    opened.wait_for_selector("article details button:has-text('Copied')")
    copied = opened.evaluate("navigator.clipboard.readText()")
    assert copied.splitlines()[-1].startswith("python -m ssl_bench report ")


def test_a_table_sorts_and_a_figure_opens_its_seeds_and_commands(opened: Any) -> None:
    go(opened, "tables")
    assert first_cells(opened, "tables") == [EVIL, "CLBO", "random weights", "raw pixels"]
    button = opened.locator("[data-view=tables] thead th button").last
    button.evaluate("one => one.firstChild.textContent = 'fashion_mnist, time of training on one core'")
    assert button.evaluate("one => one.scrollWidth <= one.clientWidth")  # a long heading wraps
    opened.click("[data-view=tables] th button:has-text('digits, knn1')")
    percents = [float(cell.split()[0]) for cell in first_cells(opened, "tables", 1)]
    assert percents == sorted(percents, reverse=True)
    opened.keyboard.press("Enter")  # the heading still has the focus
    percents = [float(cell.split()[0]) for cell in first_cells(opened, "tables", 1)]
    assert percents == sorted(percents)
    assert opened.get_attribute("[data-view=tables] th >> nth=1", "aria-sort") == "ascending"
    opened.click("[data-view=tables] tbody tr:has-text('CLBO') td button >> nth=0")
    dialog = opened.locator("dialog[open]")
    dialog.locator("pre.command").first.wait_for()
    assert dialog.locator("pre.command").count() == 3
    assert "method=clbo dataset=digits scale=smoke seed=0" in dialog.inner_text()
    assert dialog.locator("p:text-is('knn1 v1, code 0123456, 60 s of training')").count() == 3
    opened.keyboard.press("Escape")
    assert opened.locator("dialog[open]").count() == 0


def test_views_begin_with_their_widest_comparison_and_keep_what_is_chosen(
    opened: Any, figure: Path, tmp_path: Path
) -> None:
    (_, lines), evil = grids(tmp_path), figure.parent / "experiments" / "evil"
    table = tmp_path / "table.yaml"
    described = yaml.safe_load((evil / "rows.yaml").read_text(encoding="utf-8"))
    table.write_text(yaml.safe_dump(described | {"show": {"kind": "table"}}), encoding="utf-8")
    shutil.copytree(figure.parent / "runs", tmp_path / "runs", dirs_exist_ok=True)
    page(tmp_path, tmp_path / "site", lines, str(evil), str(table), "scale=smoke")
    opened.goto(f"{(tmp_path / 'site' / 'index.html').as_uri()}#tables")
    for view, name in (("tables", "table"), ("cost", "table"), ("compare", "table"), ("curves", "evil")):
        opened.click(f"nav a:text-is('{view.title()}')")
        opened.wait_for_selector(f"[data-view={view}] select")
        assert opened.locator(f"[data-view={view}] select").first.input_value() == name
    opened.select_option("[data-view=curves] label:has-text('Experiment') select", "lines")
    for view in ("runs", "cost", "tables"):
        opened.click(f"nav a:text-is('{view.title()}')")
        opened.wait_for_selector(f"[data-view={view}]:visible select")
        assert opened.get_attribute(f"nav a:text-is('{view.title()}')", "aria-current") == "page"
    assert opened.locator("[data-view=tables] select").first.input_value() == "lines"
    assert opened.locator("[data-view=tables] tbody .swatch").count() == 0  # of places, which the lines do not show


def test_what_an_address_asks_for_in_vain_is_stated(opened: Any) -> None:
    go(opened, "curves?experiment=other&dataset=cifar10&protocol=linear")
    sentence = opened.locator("[data-view=curves] .problem")
    sentence.wait_for()
    assert sentence.inner_text() == "Not here: experiment=other, dataset=cifar10."
    assert opened.locator("[data-view=curves] label:has-text('Protocol') select").input_value() == "linear"
    opened.select_option("[data-view=curves] label:has-text('Dataset') select", "digits")
    opened.wait_for_function("!document.querySelector('[data-view=curves] .problem')?.textContent.includes('dataset')")
    go(opened, "compare?one=CLBO")
    opened.wait_for_selector("[data-view=compare] caption")
    assert opened.locator("[data-view=compare] .problem").count() == 0


def test_the_table_of_all_claims_leads_to_its_findings_and_is_read_on_a_phone(opened: Any, tmp_path: Path) -> None:
    folder = make(tmp_path / "made")
    row = f"| [`evil`](evil/README.md) | a paper | {'claimed ' * 9} | {'found ' * 9} | [picture](evil/figure.png) |"
    text = f"# Claims\n\n| | source | claim | verdict | shown |\n|---|---|---|---|---|\n{row}\n"
    (folder / "experiments" / "README.md").write_text(text, encoding="utf-8")
    page(folder, tmp_path / "site", str(folder / "experiments"), named(folder))
    opened.set_viewport_size({"width": 360, "height": 740})
    opened.goto(f"{(tmp_path / 'site' / 'index.html').as_uri()}#findings")
    opened.wait_for_selector("article .figure svg")
    assert opened.locator("article :is(h1, h2, h3):has-text('Claims')").count() == 1
    cells = [cell.bounding_box() for cell in opened.locator("article td:visible").all()]
    assert all(cell["width"] > 280 for cell in cells)
    assert len(cells) == 4
    opened.click("article td a:has-text('evil')")
    assert opened.evaluate("location.hash") == "#finding-evil"


def test_a_finding_leads_to_what_its_experiment_has(opened: Any, tmp_path: Path) -> None:
    links = "[data-view=findings] article p a[href^='#']"
    assert opened.locator(links).all_text_contents() == ["Table with every seed", "curves", "cost"]
    page(tmp_path, tmp_path / "site", str(ROOT / "experiments" / "table2"))
    opened.goto(f"{(tmp_path / 'site' / 'index.html').as_uri()}#findings")
    assert opened.locator(links).all_text_contents() == ["Table"]


def test_a_table_sorts_by_what_its_rows_cost(opened: Any) -> None:
    go(opened, "tables")
    assert first_cells(opened, "tables", 3) == ["60 s", "60 s", "–", "–"]
    opened.click("[data-view=tables] th button:has-text('digits, time')")
    assert opened.get_attribute("[data-view=tables] th >> nth=3", "aria-sort") == "descending"
    assert "Time: of training a run" in opened.inner_text("[data-view=tables] .view > ul")


def test_skipping_to_the_content_keeps_the_view(opened: Any) -> None:
    go(opened, "tables")
    opened.focus("#skip")
    opened.keyboard.press("Enter")
    assert opened.evaluate("document.activeElement.id") == "main"
    assert opened.evaluate("location.hash").startswith("#tables")
    assert opened.locator("[data-view=tables] table").first.is_visible()


def test_curves_switch_methods_and_networks_and_state_a_point_under_the_pointer(opened: Any) -> None:
    go(opened, "curves")
    lines = "[data-view=curves] svg [data-mark=line] path"
    opened.wait_for_selector(lines)
    assert opened.locator(lines).count() == 2
    opened.uncheck("[data-view=curves] label:has-text('CLBO') input")
    opened.wait_for_function(f"document.querySelectorAll({lines!r}).length === 1")
    opened.select_option("[data-view=curves] label:has-text('Network') select", "both")
    opened.check("[data-view=curves] label:has-text('CLBO') input")
    opened.wait_for_function(f"document.querySelectorAll({lines!r}).length === 3")
    below = opened.locator("[data-view=curves] svg [data-mark='x-axis tick label'] text").all_text_contents()
    assert below == [str(int(epoch)) for epoch in below]
    opened.click("[data-view=curves] button:text-is('None')")
    opened.wait_for_selector("[data-view=curves] p:text-is('Nothing is chosen.')")
    assert opened.locator("[data-view=curves] svg[role=img]").count() == 0
    opened.click("[data-view=curves] button:text-is('All')")
    opened.wait_for_function(f"document.querySelectorAll({lines!r}).length === 3")
    box = opened.locator("[data-view=curves] svg [data-mark=dot] path").first.bounding_box()
    opened.mouse.move(box["x"] + 2, box["y"] + 2)
    opened.wait_for_selector("[data-view=curves] svg [data-mark=tip] text")
    assert re.search(r"epoch \d+: [\d.]+ %", opened.text_content("[data-view=curves] svg [data-mark=tip]"))


@pytest.mark.parametrize(
    ("spent", "width", "labels"),
    [
        ([132, 958], 1100, [200, 300, 400, 500, 600, 700, 800, 900]),
        ([132, 958], 330, [200, 400, 600, 800]),
        ([40, 9000], 330, [50, 100, 200, 500, 1000, 2000, 5000]),
    ],
)
def test_costs_have_round_numbers_below_them(opened: Any, spent: list[int], width: int, labels: list[int]) -> None:
    points = [{"x": cost} for cost in spent]
    assert opened.evaluate("([points, width]) => roundNumbers(points, width)", [points, width]) == labels


def test_a_comparison_states_the_difference_with_its_interval(opened: Any) -> None:
    go(opened, "compare")
    opened.select_option("[data-view=compare] label:text-is('Row') select", "CLBO")
    opened.wait_for_selector("[data-view=compare] caption:has-text('CLBO minus')")
    assert first_cells(opened, "compare") == ["digits, knn1", "digits, linear"]
    assert re.fullmatch(r"−?[\d.]+ to −?[\d.]+", first_cells(opened, "compare", 2)[0])


def test_runs_are_filtered_opened_and_told_apart(opened: Any) -> None:
    go(opened, "runs")
    assert len(first_cells(opened, "runs")) == 6
    titles = opened.locator("[data-view=runs] thead th button").all_text_contents()
    assert titles[:6] == ["Run", "Method", "Dataset", "Scale", "Seed", "knn1"]
    assert first_cells(opened, "runs", 9)[0] in ("student", "teacher")
    opened.select_option("[data-view=runs] label:has-text('Method') select", "CLBO")
    names = first_cells(opened, "runs")
    assert len(names) == 3
    opened.fill("[data-view=runs] input[type=search]", names[1])
    assert first_cells(opened, "runs") == [names[1]]
    assert "1 file was no record" in opened.inner_text("[data-view=runs] .problem")
    opened.click(f"button:has-text('{names[1]}')")
    opened.wait_for_selector("dialog[open]")
    opened.fill("dialog input", names[0])
    opened.wait_for_selector("dialog caption:has-text('1 options differ'), dialog caption:has-text('differ from')")
    rows = opened.eval_on_selector_all("dialog table >> nth=1 >> tbody tr", "rows => rows.map(row => row.innerText)")
    assert [row.split()[0] for row in rows] == ["seed"]


def test_a_table_over_options_is_a_heat_map_or_lines_with_its_figures(opened: Any, tmp_path: Path) -> None:
    page(tmp_path, tmp_path / "site", *grids(tmp_path), "scale=smoke")
    opened.goto(f"{(tmp_path / 'site' / 'index.html').as_uri()}#tables?experiment=heat")
    squares = opened.locator("[data-view=tables] .wide [data-mark=cell] rect")
    squares.first.wait_for()
    assert squares.count() == 2 * 4  # the means of rows among them, and the one that is missing
    columns = data(tmp_path / "site", "e0")["grid"]["panels"][0]["squares"]
    texts = opened.locator("[data-view=tables] .wide [data-mark=text] text").all_text_contents()
    assert sorted(text.split("±")[0].strip() for text in texts) == sorted(one["lines"][0] for one in columns)
    box = squares.first.bounding_box()
    opened.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    opened.wait_for_selector("[data-view=tables] .wide [data-mark=tip] text")
    assert re.search(r"SimCLR, batch_size 16", opened.text_content("[data-view=tables] .wide [data-mark=tip]"))
    go(opened, "tables?experiment=lines")
    opened.wait_for_selector("[data-view=tables] .wide [data-mark=line] path")
    assert (
        opened.locator("[data-view=tables] .wide [data-mark=line] path").count() == 2 * 2 + 2
    )  # accuracy and cost, random weights and raw pixels
    assert EVIL in opened.inner_text("[data-view=tables] .legend")
    below = opened.locator("[data-view=tables] .wide figure >> nth=0 >> [data-mark='x-axis tick label'] text")
    assert below.all_text_contents() == ["16", "32", "64"]
    opened.set_viewport_size({"width": 360, "height": 740})
    assert opened.evaluate("document.documentElement.scrollWidth") <= 360
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    found = axe.run(opened, options={"runOnly": AXE["light"], "preload": False}).response["violations"]
    assert [one["id"] for one in found if one["impact"] in ("serious", "critical")] == []


def test_a_finding_shows_the_runs_it_is_about_and_states_that_its_definition_has_changed(
    opened: Any, tmp_path: Path
) -> None:
    folder = changed(tmp_path)
    page(folder, tmp_path / "site", named(folder))
    opened.goto(f"{(tmp_path / 'site' / 'index.html').as_uri()}#findings")
    opened.wait_for_selector("article .figure svg")
    assert "made before its definition changed" in opened.inner_text("article .figure")
    go(opened, "tables")
    assert len(first_cells(opened, "tables")) == 4


def test_lines_of_a_finding_are_named_by_colour_dash_and_mark(opened: Any, figure: Path) -> None:
    opened.goto(f"{(figure / 'index.html').as_uri()}#findings")
    opened.wait_for_selector("article .figure svg[role=img]")
    assert opened.locator("article .legend li").all_text_contents() == [EVIL, "CLBO"]
    for part in ("line", "path"):
        looks = opened.locator(f"article .legend .swatch {part}").evaluate_all("all => all.map(one => one.outerHTML)")
        assert len(set(looks)) == 2
    marks = opened.locator("article .figure [data-mark=dot]")
    for mark in marks.all():  # some are strokes without an area
        assert mark.get_attribute("stroke") == mark.get_attribute("fill")
    assert marks.count() == 2


def test_triangles_point_four_ways_and_no_two_marks_are_one(opened: Any) -> None:
    outlines = opened.evaluate("Object.entries(SYMBOLS).map(([name, symbol]) => [name, d3.symbol(symbol, 50)()])")
    corners = {name: re.findall(r"(-?[\d.]+),(-?[\d.]+)", outline) for name, outline in outlines}
    assert len({tuple(found) for found in corners.values()}) == 12
    reach = {mark: [(min(along), max(along)) for along in np.array(corners[mark], float).T] for mark in "^v<>"}
    farther = {mark: (left > -right * 0.9, up > -down * 0.9) for mark, ((left, right), (up, down)) in reach.items()}
    assert (farther["<"][0], farther[">"][0], farther["^"][1], farther["v"][1]) == (False, True, False, True)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_view_has_a_serious_finding_of_axe_or_is_wider_than_a_phone(opened: Any, scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    opened.emulate_media(color_scheme=scheme)
    opened.set_viewport_size({"width": 360, "height": 740})
    for view in VIEWS:
        go(opened, view)
        opened.wait_for_selector(f"[data-view={view}] :is(svg, table)")
        assert opened.evaluate("document.documentElement.scrollWidth") <= 360, view
        found = axe.run(opened, options={"runOnly": AXE[scheme], "preload": False}).response["violations"]
        serious = [(one["id"], one["nodes"][0]["html"]) for one in found if one["impact"] in ("serious", "critical")]
        assert not serious, (view, serious)


def test_tables_begin_with_one_that_has_its_runs_and_lines_of_a_run_have_no_signs_of_sorting(opened: Any) -> None:
    go(opened, "runs")
    sign = "row => getComputedStyle(document.querySelector(row), '::after').content"
    assert opened.evaluate(sign, "[data-view=runs] thead th button") != "none"
    assert opened.evaluate(sign, "[data-view=runs] tbody th button") == "none"


def test_in_print_there_are_findings_tables_and_charts_and_nothing_to_press(opened: Any) -> None:
    go(opened, "tables")
    go(opened, "findings")
    opened.wait_for_selector("article .figure svg")
    opened.emulate_media(media="print")
    for nothing in ("nav", "header .skip", "article details button"):
        assert opened.locator(f"{nothing}:visible").count() == 0
    assert opened.locator("article .verdict:visible").count() == 1
    assert opened.locator("article .figure svg:visible").count() == 2
    assert opened.pdf(format="A4").startswith(b"%PDF")
    opened.evaluate("location.hash = 'tables'")
    opened.wait_for_selector("[data-view=tables] table")
    assert opened.locator("[data-view=tables] table:visible").count() == 1
    assert opened.locator("[data-view=tables] td button:visible").count() > 0  # figures, which are text here
    assert opened.locator("[data-view=tables] .controls:visible").count() == 0
    assert opened.locator("[data-view=tables] thead th button:visible").count() == 4
    sign = "getComputedStyle(document.querySelector('[data-view=tables] thead th button'), '::after').display"
    assert opened.evaluate(sign) == "none"
    opened.evaluate("location.hash = 'runs'")
    opened.wait_for_selector("[data-view=runs] table")
    assert opened.locator("[data-view=runs] tbody th button:visible").count() == 6
    assert re.search(r"\d\d\.\d", first_cells(opened, "tables", 1)[0])


def test_charts_are_drawn_when_they_come_near_and_all_of_them_for_print(opened: Any) -> None:
    opened.set_viewport_size({"width": 360, "height": 100})
    go(opened, "tables")
    opened.wait_for_selector("[data-view=tables] figure")
    assert opened.locator("[data-view=tables] figure svg").count() == 0
    opened.pdf(format="A4")
    figures = opened.locator("[data-view=tables] figure").count()
    assert opened.locator("[data-view=tables] figure svg").count() == figures == 2


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of four findings with charts."""
    folder = make(tmp_path_factory.mktemp("many"))
    own = [named(folder), *(named(folder) + str(number) for number in (1, 2, 3))]
    for other in own[1:]:
        shutil.copytree(own[0], other)
    page(folder, folder / "site", *own)
    return folder / "site"


def test_a_link_to_a_finding_leads_to_it(opened: Any, many: Path) -> None:
    opened.set_viewport_size({"width": 800, "height": 200})
    address = (many / "index.html").as_uri()
    opened.goto(f"{address}#tables")
    opened.wait_for_selector("[data-view=tables] table")
    for name in ("evil3", "evil1", "evil2"):
        opened.evaluate("hash => { location.hash = hash }", f"finding-{name}")
        opened.wait_for_selector(f"#finding-{name} .figure svg")
        above = f"Math.abs(document.getElementById('finding-{name}').getBoundingClientRect().top)"
        opened.wait_for_function(f"{above} < 1")
    opened.wait_for_timeout(300)  # the charts around it have been drawn
    assert opened.evaluate(above) < 1


def test_all_findings_are_printed_with_their_charts(opened: Any, many: Path) -> None:
    opened.set_viewport_size({"width": 800, "height": 200})
    opened.goto(f"{(many / 'index.html').as_uri()}#findings")
    opened.wait_for_function("document.querySelectorAll('article figure').length === 8")
    assert opened.locator("article figure svg").count() < 8
    opened.pdf(format="A4")
    assert opened.locator("article figure svg").count() == 8


def test_names_beside_charts_are_whole_on_a_phone(opened: Any) -> None:
    opened.set_viewport_size({"width": 360, "height": 740})
    go(opened, "tables")
    opened.locator("[data-view=tables] figure").first.scroll_into_view_if_needed()
    opened.wait_for_selector("[data-view=tables] figure svg")
    name = opened.locator("[data-view=tables] figure >> nth=0 >> [data-mark='y-axis tick label'] text").first
    assert name.locator("tspan").count() == 2
    assert " ".join(name.locator("tspan").all_text_contents()) == EVIL
    assert name.bounding_box()["x"] >= 0


def test_a_panel_without_predictions_states_it(opened: Any, site: Path, tmp_path: Path) -> None:
    folder = site.parent
    page(folder, tmp_path, named(folder), "images=10")
    opened.goto(f"{(tmp_path / 'index.html').as_uri()}#images")
    opened.wait_for_selector("[data-view=images] summary:has-text('Of 2 runs no images can be shown')")
    go(opened, "compare")
    assert "There are no predictions of both on the same images" in opened.inner_text("[data-view=compare] .view")


def test_a_watched_page_shows_a_run_by_itself_once_its_record_is_there(
    chromium: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make(tmp_path / "made")
    (late, *_) = (folder / "runs").iterdir()
    late.rename(tmp_path / "late")
    asked = contents.request([f"runs_dir={folder / 'runs'}", f"out={tmp_path / 'site'}", "port=0"])
    ready, end = threading.Event(), threading.Event()

    def wait(seconds: float) -> None:
        ready.set()
        if end.wait(0.2):
            raise KeyboardInterrupt

    given = (asked, contents.contents(asked), serve.stamp_of(asked))
    server = threading.Thread(target=serve.serve, args=given, kwargs={"wait": wait})
    server.start()
    try:
        assert ready.wait(60)
        tab = chromium.new_page()
        tab.goto(f"{capsys.readouterr().out.split()[0]}/#runs")
        tab.wait_for_selector("caption:has-text('5 of 5 runs')")
        (tmp_path / "late").rename(late)
        tab.wait_for_selector("caption:has-text('6 of 6 runs')")
        tab.close()
    finally:
        end.set()
        server.join(60)


def test_images_are_compared_arranged_and_neighboured_as_the_runs_saw_them(opened: Any, trained: Path) -> None:
    opened.goto(f"{(trained / 'index.html').as_uri()}#compare?one=SimCLR&other=BYOL&protocol=knn1")
    sentence = opened.locator("[data-view=compare] p:has-text('test images both get')").inner_text()
    total, both, first, second, neither = map(int, re.findall(r"\d+", sentence))
    assert total == both + first + second + neither
    index = data(trained, "index")
    knn1, method = index["fields"].index("knn1"), index["fields"].index("method")
    assert {one[method]: round(one[knn1] * total / 100) for one in index["runs"]} == {
        "SimCLR": both + first,
        "BYOL": both + second,
    }
    assert opened.locator("[data-view=compare] .thumbnails li").count() > 0
    go(opened, "images")
    opened.wait_for_selector("[data-view=images] .chart circle")
    assert opened.locator("[data-view=images] [data-mark=dot] circle").count() == 60
    assert [opened.locator("[data-view=images] .thumbnails").nth(place).locator("li").count() for place in (0, 1)] == [
        8,
        8,
    ]
    dot = opened.locator("[data-view=images] [data-mark=dot] circle").nth(30).bounding_box()
    before = opened.get_attribute(".under .thumbnail", "style")
    opened.mouse.move(dot["x"] + 2, dot["y"] + 2)
    opened.wait_for_function(
        "before => document.querySelector('.under .thumbnail').getAttribute('style') !== before", arg=before
    )
    opened.locator(".views").scroll_into_view_if_needed()
    assert opened.evaluate("document.querySelector('.views').naturalWidth") > 100
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    found = axe.run(opened, options={"runOnly": AXE["light"], "preload": False}).response["violations"]
    assert [one["id"] for one in found if one["impact"] in ("serious", "critical")] == []

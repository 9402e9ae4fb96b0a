"""The clinic page in headless Chromium: fill, screen, read, ask on, print, and what goes wrong."""

import json
import re
import shutil

import mlflow
import pandas as pd
import pytest

from rarealert.calibration.prevalence import shift_prevalence
from rarealert.registry.versions import register_version
from rarealert.screening.service.batching import RegistrySource

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine"),
]
QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PATIENCE_MS = 60_000  # the first question loads the disease knowledge


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as running:
        chromium = running.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
        yield chromium
        chromium.close()


@pytest.fixture
def open_page(browser, serve):
    """``open_page(width=400)`` opens a page on a server of its own; its errors fail the test."""
    contexts, wrong = [], []

    def opened(server=None, width=1280, height=900, **options):
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        context.set_default_timeout(PATIENCE_MS)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda said: "Content Security" in said.text and wrong.append(said.text))
        page.server = server or serve()
        page.goto(page.server.url)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not wrong


def fill(page, **fields):
    told = {"chief_complaint": "Muscle cramps", "history_of_present_illness": "Legs are stiff."}
    for field, text in {**told, **fields}.items():
        page.fill(f"#{field}", text)


def screen(page, **fields):
    fill(page, **fields)
    page.click("button[type=submit]")
    page.wait_for_selector("#answer:not([hidden])")


def expect(page, selector, text):
    playwright.expect(page.locator(selector)).to_contain_text(text, timeout=PATIENCE_MS)


def test_a_visit_is_filled_in_screened_read_and_asked_on(open_page, tmp_path):
    page = open_page()
    page.check("input[value=female]")
    screen(page, age="34", onset="3 months", physical_examination="Calves firm, gait stiff.")
    expect(page, "#band", "Alert")
    expect(page, "#patient", "34 years, female")
    expect(page, "#dial-title", "interval")
    expect(page, "#model", "version 1")
    assert page.locator("#evidence mark.raises").count() == 2
    expect(page, "#evidence", "Onset: 3 months.")
    assert page.locator("#questions li").count() == 3 or page.wait_for_selector("#questions li")
    expect(page, "#heads-title ~ .help", "not from the model")
    assert page.locator("#heads li").count() > 1
    expect(page, "body", "Decision support, not a diagnosis")

    question = page.locator("#questions li").first
    asked = question.locator(".question").inner_text()
    expect(page, "#questions", "if yes")
    expect(page, "#questions", "expected change")
    expect(page, "#fields", "family")
    assert page.locator("#fields li").count() == 3  # family and past history, vitals
    question.get_by_role("button", name="Yes").click()
    playwright.expect(page.locator("#chips li")).to_have_count(1)
    playwright.expect(page.locator("#questions")).not_to_contain_text(asked, timeout=PATIENCE_MS)

    page.click("#explain")
    expect(page, "#rationale", "Stiffness")
    page.pdf(path=tmp_path / "visit.pdf", format="A4")
    assert (tmp_path / "visit.pdf").stat().st_size > 10_000
    page.emulate_media(media="print")
    assert not page.locator("form").is_visible()
    assert page.locator("#band").is_visible()


def test_the_whole_visit_goes_by_keyboard_alone(open_page):
    page = open_page()
    keys = page.keyboard
    for _ in range(2):
        keys.press("Tab")  # past the skip link
    keys.type("18")
    keys.press("Tab")
    keys.press("m")  # months
    keys.press("Tab")
    keys.press("Space")
    keys.press("Tab")
    keys.type("Falls often")
    for field in ("since yesterday", "Calves stiff.", "Walks on toes."):
        keys.press("Tab")
        keys.type(field)
    keys.press("Tab")
    keys.type("no short of br")
    page.wait_for_selector("[role=option]")
    assert page.get_attribute("#finding", "aria-activedescendant") == "finding-0"
    keys.press("ArrowDown")
    keys.press("ArrowUp")
    keys.press("Enter")
    expect(page, "#chips", "no short of breath")
    sent = []
    page.on("request", lambda asked: asked.url.endswith("screen") and sent.append(asked))
    keys.press("Control+Enter")
    page.wait_for_selector("#answer:not([hidden])")
    visit = sent[0].post_data_json["visits"][0]
    assert visit["age_years"] == 1.5
    assert visit["findings_excluded"] == ["HP:0002094"]
    expect(page, "#patient", "18 months")
    page.wait_for_selector("#questions button")
    assert page.evaluate("document.activeElement.id") == "finding"


def test_the_slider_restates_the_risk_as_the_model_does(open_page):
    page = open_page()
    grid = [0.001, 0.02, 0.3, 0.5, 0.97]
    cases = [(risk, here, there) for risk in (0, *grid, 1) for here in grid for there in grid]
    restated = page.evaluate(
        "async (cases) => (await import('/page/dial.js')).restate && Promise.all(cases.map("
        "async (each) => (await import('/page/dial.js')).restate(...each)))",
        cases,
    )
    assert restated == pytest.approx([float(shift_prevalence(*case)) for case in cases])
    screen(page)
    before = page.locator("#dial-title").text_content()
    page.locator("#prevalence").fill("100")
    expect(page, "#prevalence-said", "50 %")
    assert page.locator("#dial-title").text_content() != before
    expect(page, "#dial-title", "Risk 89 %")  # log-odds 3 bits at one half, by the scorer


def test_text_of_a_visit_is_never_markup_and_nothing_is_stored(open_page):
    page = open_page()
    hostile = "<img src=x onerror=\"document.title='owned'\"> stiff <script>1</script> 😀 stiff"
    screen(page, history_of_present_illness=hostile)
    expect(page, "#evidence", "<img src=x")
    assert page.title() == "RareAlert: first visit"
    assert page.locator("#evidence img, #evidence script").count() == 0
    assert (
        page.evaluate("localStorage.length + sessionStorage.length + document.cookie.length") == 0
    )
    page.click("#clear")
    assert not page.locator("#answer").is_visible()
    assert page.input_value("#history_of_present_illness") == ""


def test_a_visit_is_gone_when_the_page_is_left(open_page):
    page = open_page()
    screen(page, age="44")
    assert page.request.get(page.server.url).headers["cache-control"] == "no-store"
    for leave in (lambda: (page.goto("about:blank"), page.go_back()), page.reload):
        fill(page, age="44")
        leave()
        page.wait_for_selector("#visit")
        for field in ("age", "chief_complaint", "history_of_present_illness"):
            assert page.input_value(f"#{field}") == ""
        assert not page.locator("#answer").is_visible()


@pytest.mark.parametrize(
    ("words", "warning"),
    [
        ("undecided", "abstains"),
        ("unlike the others", "unlike those"),
        ("Schmerzen im Bein", "not read like English"),
    ],
)
def test_doubts_stand_before_the_number(open_page, words, warning):
    page = open_page()
    screen(page, history_of_present_illness=words)
    expect(page, "#warnings", warning)
    assert page.locator("#warnings li").count() == 1  # each doubt is told once
    if "Schmerzen" in words:  # muscle cramps and stiff legs would be an alert in English
        expect(page, "#band", "Not read")
        for told in ("#dial", "#interval", "#questions", "#explain", "#heads"):
            assert not page.locator(told).is_visible()
        assert "%" not in page.locator("#result").inner_text()
        return
    above = (
        page.locator("#warnings").bounding_box()["y"] < page.locator("#dial").bounding_box()["y"]
    )
    assert above


def test_the_form_is_in_reach_beside_a_long_answer_on_a_low_screen(open_page):
    page = open_page(width=1366, height=650)
    screen(page)
    page.wait_for_selector("#questions li")
    page.click("summary")
    page.mouse.move(1000, 300)
    page.mouse.wheel(0, 400)
    playwright.expect(page.get_by_role("button", name="Screen")).to_be_in_viewport(ratio=1)
    page.locator("#vitals").scroll_into_view_if_needed()
    playwright.expect(page.locator("#vitals")).to_be_in_viewport(ratio=1)


def test_a_chosen_finding_is_marked_where_it_was_chosen(open_page):
    page = open_page()
    page.fill("#finding", "muscle stiff")
    page.wait_for_selector("[role=option]")
    with page.expect_response("**/v1/screen"):
        page.keyboard.press("Enter")
        expect(page, "#chips", "stiff")
        screen(page, history_of_present_illness="Cramps.")
    expect(page, "#evidence dd:last-child mark", "stiff")
    playwright.expect(page.locator("#evidence mark")).to_have_count(1)


def test_an_absent_field_leads_to_its_place_in_the_form(open_page):
    page = open_page()
    screen(page, age="34", family_history="Parents are well.")
    page.wait_for_selector("#fields button")
    assert page.locator("#fields li").count() == 3  # sex, past history, vitals
    told = page.locator("#fields small").all_inner_texts()
    page.locator("#prevalence").fill("100")
    assert page.locator("#fields small").all_inner_texts() != told
    page.locator("#fields li", has_text="pulse").get_by_role("button").click()
    assert page.evaluate("document.activeElement.id") == "vitals"
    page.fill("#vitals", "Pulse 70.")
    page.check("input[value=male]")
    page.keyboard.press("Control+Enter")
    playwright.expect(page.locator("#fields li")).to_have_count(1, timeout=PATIENCE_MS)


def test_errors_stand_beside_their_field(open_page):
    page = open_page()
    page.click("button[type=submit]")
    expect(page, "#chief_complaint-error", "Write why")
    assert page.evaluate("document.activeElement.id") == "chief_complaint"
    fill(page, age="340")
    page.keyboard.press("Control+Enter")
    expect(page, "#age_years-error", "from 0 to 120 years")
    assert page.get_attribute("#age", "aria-invalid") == "true"
    fill(page, age="ten")
    page.keyboard.press("Control+Enter")
    expect(page, "#age_years-error", "Not a number")
    fill(page, age="10", history_of_present_illness="a" * 20_001)
    page.keyboard.press("Control+Enter")
    expect(page, "#history_of_present_illness-error", "20000 characters")
    fill(page, history_of_present_illness="a" * 1_100_000)
    page.keyboard.press("Control+Enter")
    expect(page, "#failure", "too long")
    assert not page.locator("#answer").is_visible()


def test_a_server_that_is_gone_is_said_and_the_text_stays(open_page):
    page = open_page()
    fill(page)
    page.server.stop()
    page.click("button[type=submit]")
    expect(page, "#failure", "be reached; is it running")
    assert page.input_value("#chief_complaint") == "Muscle cramps"
    assert page.is_enabled("button[type=submit]")


def test_a_changed_visit_marks_the_answer_as_old(open_page):
    page = open_page()
    screen(page)
    page.wait_for_selector("#questions li")
    page.fill("#chief_complaint", "Something else")
    expect(page, "#status", "has changed")
    assert "stale" in page.get_attribute("#result", "class")


def test_an_edit_while_the_answer_is_awaited_marks_it_as_old(open_page):
    page = open_page()
    fill(page)
    held = []
    page.route("**/v1/screen", lambda route: held.append(route))
    page.click("button[type=submit]")
    playwright.expect(page.locator("#status")).to_contain_text("Reading")
    page.fill("#chief_complaint", "A cough since Monday")
    held[0].continue_()
    page.wait_for_selector("#answer:not([hidden])")
    expect(page, "#status", "has changed")
    assert "stale" in page.get_attribute("#result", "class")


def test_a_reply_that_is_not_answered_leaves_the_answer_marked_as_old(open_page):
    page = open_page()
    screen(page)
    page.wait_for_selector("#questions li")
    assert "stale" not in (page.get_attribute("#result", "class") or "")
    page.server.stop()
    page.locator("#questions li").first.get_by_role("button", name="Yes").click()
    expect(page, "#failure", "be reached")
    assert "stale" in page.get_attribute("#result", "class")


def test_a_service_with_a_token_asks_for_it(open_page, serve):
    page = open_page(serve(token="0123456789abcdef"))
    fill(page)
    page.click("button[type=submit]")
    expect(page, "#failure", "access token")
    page.fill("#token", "0123456789abcdef")
    page.click("button[type=submit]")
    expect(page, "#band", "Alert")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1280])
def test_no_accessibility_rule_is_broken_and_nothing_overflows(open_page, width, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    # a frame of axe's own is evaluated in the page, which the page's policy forbids
    page = open_page(width=width, color_scheme=scheme, bypass_csp=True)
    screen(page, age="34", history_of_present_illness="Legs are stiff, no cough. Undecided unlike.")
    page.wait_for_selector("#questions li")
    page.fill("#finding", "fever")
    page.wait_for_selector("[role=option]")
    results = axe.Axe().run(page)
    assert results.violations_count == 0, results.generate_report()
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_the_page_asks_for_nothing_from_elsewhere(open_page):
    page = open_page()
    hosts = set()
    page.on("request", lambda asked: hosts.add(re.match(r"\w+://[^/]*|data:", asked.url).group()))
    page.reload()
    screen(page)
    page.wait_for_selector("#questions li")
    assert hosts <= {page.server.url.rstrip("/"), "data:"}


def test_the_page_says_what_the_registered_student_says(
    open_page, serve, mlflow_store, package, tiny_student
):
    """The student itself behind the page, packaged and found by its alias as in a clinic."""
    with mlflow.start_run():
        version = register_version("toy", package(tiny_student), {})
    page = open_page(serve(RegistrySource("toy", "challenger", mlflow_store)))
    fill(page, chief_complaint="Seizures", history_of_present_illness="Fever, no cough.", age="34")
    with page.expect_response("**/v1/screen") as waited:
        page.click("button[type=submit]")
    asked = waited.value.request.post_data_json
    visit = {name: text for name, text in asked["visits"][0].items() if isinstance(text, str)}
    own = mlflow.pyfunc.load_model(version.uri).predict(
        pd.DataFrame([{**visit, "case_id": "a", "age_years": 34.0}]),
        params={"prevalence": asked["prevalence"]},
    )
    [answer] = waited.value.json()["answers"]
    for name in ("risk", "risk_low", "risk_high", "ood_score"):
        assert answer[name] == pytest.approx(own[name][0], abs=1e-6)
    told = page.evaluate(
        "async (risks) => risks.map((await import('/page/dial.js')).percent)",
        [float(own[name][0]) for name in ("risk", "risk_low", "risk_high")],
    )
    expect(page, "#dial-title", "Risk {}, interval {} to {}".format(*told))
    expect(page, "#model", f"version {version.version}")
    found = json.loads(own["evidence"][0])
    assert {item["label"] for item in found} == {"Seizure", "Fever", "Cough"}
    weighing = [item["words"] for item in found if item["direction"] != "not read"]
    assert page.locator("#evidence mark").count() == len(weighing) > 0
    page.wait_for_selector("#questions li")
    assert page.locator("#heads li").count() > 1
    page.click("#explain")
    expect(page, "#rationale", "because of")

"""What the page to draw on does in a browser: Chromium, steered by Playwright."""

import contextlib
import shutil
import threading
import time

import numpy as np
import pytest
from PIL import Image

from classifier.predictions import Prediction
from digits.reading import digit_reader
from tests.networks import DATA
from web.server import listen

playwright = pytest.importorskip("playwright.sync_api")
expect = playwright.expect

SEVEN = [[(0.1, 0.1), (0.9, 0.1), (0.4, 0.95)]]
FOUR = [[(0.6, 0.05), (0.1, 0.6), (0.95, 0.6)], [(0.65, 0.3), (0.65, 0.98)]]
ONE = [[(0.5, 0.05), (0.5, 0.95)]]


@pytest.fixture(scope="module")
def browser():
    installed = filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome")))
    with playwright.sync_playwright() as engine:
        try:
            browser = engine.chromium.launch(
                executable_path=next(installed, None), args=["--no-sandbox"]
            )
        except playwright.Error as error:
            pytest.skip(f"no browser: {error.message.splitlines()[0]}")
        expect.set_options(timeout=20_000)
        yield browser


@pytest.fixture(scope="module")
def read(shipped):
    return digit_reader(*shipped)


@pytest.fixture
def start(browser, read, tmp_path):
    """A function that opens the page in a window; it may ask nothing of any other server."""
    problems = []
    with contextlib.ExitStack() as stack:

        def window(read=read, handwriting=True, **options):
            server = stack.enter_context(listen(read, tmp_path, handwriting, "127.0.0.1", 8100))
            threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
            stack.callback(server.shutdown)
            options = {"viewport": {"width": 1280, "height": 800}, "locale": "en-US"} | options
            context = browser.new_context(**options)
            stack.callback(context.close)
            page = context.new_page()
            address = f"http://127.0.0.1:{server.server_address[1]}/"
            own = (address, f"blob:{address}", "data:")
            page.on("request", lambda it: it.url.startswith(own) or problems.append(it.url))
            page.on("pageerror", lambda it: problems.append(it))
            page.goto(address)
            return page

        yield window
    assert problems == []


@pytest.fixture
def page(start):
    return start()


def write(page, digits, left=0.3, width=0.08):
    """Write digits beside one another with the mouse, in parts of the sheet's width."""
    sheet = page.locator("#sheet").bounding_box()
    side = width * sheet["width"]
    for number, strokes in enumerate(digits):
        corner = sheet["x"] + left * sheet["width"] + 1.5 * number * side, sheet["y"] + 60
        for stroke in strokes:
            places = [(corner[0] + x * side, corner[1] + 1.5 * y * side) for x, y in stroke]
            page.mouse.move(*places[0])
            page.mouse.down()
            for place in places[1:]:
                page.mouse.move(*place, steps=5)
            page.mouse.up()


def answered(page, text):
    expect(page.locator("#answer")).to_have_text(text)


def ink(page):
    """How many pixels of the sheet are written on."""
    return page.locator("#sheet").evaluate(
        """sheet => sheet.getContext("2d").getImageData(0, 0, sheet.width, sheet.height)
            .data.filter((value, n) => n % 4 == 3 && value).length"""
    )


def test_a_digit_is_read_as_the_pen_is_lifted(page):
    answered(page, "")
    write(page, [SEVEN])
    answered(page, "7")
    expect(page.locator("#bars li")).to_have_count(10)
    assert page.locator("#bars li").all_inner_texts()[7].split()[0] == "7"
    expect(page.locator("#certainty")).to_contain_text("sure: ")
    assert page.locator("#input").evaluate("image => image.naturalWidth") == 28
    assert page.locator("#frames rect").count() == 0


def test_each_of_several_digits_is_framed_where_it_is(page):
    write(page, [SEVEN, FOUR, ONE])
    answered(page, "741")
    expect(page.locator("#certainty")).to_have_text("3 digits, all sure")
    sheet = page.locator("#sheet").bounding_box()
    for n, frame in enumerate(page.locator("#frames rect").all()):
        box = frame.bounding_box()
        middle = (box["x"] + box["width"] / 2 - sheet["x"]) / sheet["width"]
        assert middle == pytest.approx(0.34 + 0.12 * n, abs=0.02)
    assert page.locator("#frames text").all_text_contents() == ["7", "4", "1"]
    assert page.locator("#bars").is_hidden()


def test_undo_and_clear_take_ink_and_answer_away_and_undo_brings_it_back(page):
    write(page, [SEVEN, ONE])
    answered(page, "71")
    page.click("#undo")
    answered(page, "7")
    page.click("#clear")
    answered(page, "")
    assert ink(page) == 0 and page.locator("#clear").is_disabled()
    page.keyboard.press("Control+z")
    answered(page, "7")
    page.keyboard.press("Control+z")
    answered(page, "")
    assert ink(page) == 0 and page.locator("#undo").is_disabled()


def test_the_pen_can_be_thick_or_thin(page):
    written = []
    for thickness in ("4", "40"):
        page.fill("#pen", thickness)
        write(page, [SEVEN])
        written.append(ink(page))
        answered(page, "7")
        page.click("#clear")
    assert written[1] > 5 * written[0]


def transfer(page, path):
    """A file as the browser hands it to a page, with its name and bytes."""
    return page.evaluate_handle(
        """bytes => {
            const data = new DataTransfer();
            data.items.add(new File([new Uint8Array(bytes)], "picture", {type: "image/png"}));
            return data;
        }""",
        list(path.read_bytes()),
    )


def drop(page, path):
    page.dispatch_event("#sheet", "drop", {"dataTransfer": transfer(page, path)})


def paste(page, path):
    page.evaluate(
        """clipboardData => document.body.dispatchEvent(
            new ClipboardEvent("paste", {clipboardData, bubbles: true}))""",
        transfer(page, path),
    )


def choose(page, path):
    page.set_input_files("#file", path)


@pytest.mark.parametrize("give", [drop, paste, choose])
def test_a_picture_dropped_pasted_or_chosen_is_read(page, give):
    give(page, DATA / "tmp" / "8.png")
    answered(page, "8")
    expect(page.locator("#picture")).to_be_visible()
    write(page, [SEVEN])  # which begins a sheet of its own
    answered(page, "7")
    assert page.locator("#picture").is_hidden()
    page.click("#undo")
    answered(page, "8")
    page.click("#clear")
    answered(page, "")


def test_a_page_of_digits_has_its_frames_on_the_picture(page, tmp_path):
    digit = 255 - np.kron(np.asarray(Image.open(DATA / "tmp" / "4.png")), np.ones((3, 3), np.uint8))
    paper = np.full((700, 300), 255, np.uint8)  # taller than the sheet: it is shown smaller
    for top in (50, 300, 550):
        paper[top : top + 84, 100:184] = digit
    Image.fromarray(paper).save(tmp_path / "page.png")
    choose(page, tmp_path / "page.png")
    answered(page, "4 4 4")
    shown = page.locator("#picture").bounding_box()
    scale = shown["height"] / 700
    for top, frame in zip((50, 300, 550), page.locator("#frames rect").all(), strict=True):
        box = frame.bounding_box()
        middle = box["y"] + box["height"] / 2 - shown["y"]
        assert middle == pytest.approx((top + 42) * scale, abs=10)
        assert box["height"] < 84 * scale + 15


def test_what_is_no_picture_or_too_large_is_said_in_a_line(page, tmp_path):
    (tmp_path / "notes.png").write_text("no picture")
    choose(page, tmp_path / "notes.png")
    expect(page.locator("#message")).to_have_text("That is no picture.")
    (tmp_path / "large.png").write_bytes(bytes(20_000_001))
    choose(page, tmp_path / "large.png")
    expect(page.locator("#message")).to_have_text("Larger than 20 MB; make it smaller.")
    answered(page, "")


def test_a_drawing_is_saved_and_predict_reads_it_as_the_page_did(page, read, tmp_path):
    write(page, [SEVEN, FOUR])
    answered(page, "74")
    page.fill("#name", "mine.png")
    page.click("#save")
    expect(page.locator("#message")).to_have_text("Saved: mine.png")
    (row,) = read([str(tmp_path / "mine.png")])
    assert row.label == "74"
    before = (tmp_path / "mine.png").read_bytes()
    page.click("#undo")
    page.fill("#name", "mine")
    page.press("#name", "Enter")
    expect(page.locator("#message")).to_contain_text("mine.png is there already")
    assert (tmp_path / "mine.png").read_bytes() == before


def test_without_a_name_the_answer_is_the_name_and_a_number_if_it_is_taken(page, tmp_path):
    write(page, [SEVEN])
    answered(page, "7")
    for name in ("7.png", "7-2.png", "7-3.png"):
        page.click("#save")
        expect(page.locator("#message")).to_have_text(f"Saved: {name}")
        assert (tmp_path / name).exists()


def answer(label, confidence, **more):
    return Prediction("", label, confidence, "tulip", 0.3, None, None, **more)


def test_what_is_not_sure_is_shown_in_colour_and_word(start):
    page = start(lambda pictures, on_error: [answer("7", 0.4, is_unsure=True)])
    write(page, [SEVEN])
    expect(page.locator("#certainty")).to_have_text("unsure: 40%, or tulip")
    colours = [
        page.locator(name).evaluate("it => getComputedStyle(it).color")
        for name in ("#answer", "h1")
    ]
    assert colours[0] != colours[1]


def test_what_may_be_no_digit_is_asked(start):
    page = start(lambda pictures, on_error: [answer("7", 0.9, is_unsure=True, is_digit=0.2)])
    write(page, [SEVEN])
    expect(page.locator("#certainty")).to_have_text("no digit?")


def test_another_network_is_shown_pictures_and_names_its_classes(start):
    label = "<b>sunflower</b>"  # a folder's name, no HTML
    page = start(
        lambda pictures, on_error: [answer(label, 0.7, probabilities={label: 0.7, "tulip": 0.3})],
        handwriting=False,
    )
    for name in ("#undo", "#pen", "#save"):
        assert page.locator(name).is_hidden()
    write(page, [SEVEN])
    assert ink(page) == 0
    drop(page, DATA / "tmp" / "8.png")
    answered(page, label)
    assert page.locator("#bars li").all_inner_texts()[0].split() == [label, "70%"]


def test_strokes_never_wait_and_of_several_questions_the_newest_is_answered(start):
    asked = []

    def slow(pictures, on_error):
        time.sleep(0.5)
        asked.append(time.monotonic())
        return [answer(str(len(asked)), 0.9)]

    page = start(slow)
    begun = time.monotonic()
    write(page, [ONE] * 5, left=0.1)
    assert time.monotonic() - begun < 0.5 * 5
    page.wait_for_timeout(3000)  # in which all five would be answered
    assert len(asked) < 5
    answered(page, str(len(asked)))


def test_an_answer_that_comes_after_clear_is_not_shown(start):
    page = start(lambda pictures, on_error: time.sleep(0.5) or [answer("7", 0.9)])
    write(page, [SEVEN])
    page.click("#clear")
    page.wait_for_timeout(1000)
    answered(page, "")


def test_a_question_that_waits_is_not_asked_about_a_sheet_that_was_cleared(start):
    page = start(lambda pictures, on_error: time.sleep(0.5) or [answer("7", 0.9)])
    sheet = page.locator("#sheet").bounding_box()
    page.mouse.move(sheet["x"] + 60, sheet["y"] + 60)
    page.mouse.down()
    page.wait_for_timeout(400)
    page.mouse.move(sheet["x"] + 90, sheet["y"] + 90)  # so slowly that it is asked about meanwhile
    page.mouse.up()
    page.click("#clear")
    page.wait_for_timeout(1500)
    answered(page, "")


def test_on_a_phone_a_finger_writes_and_all_fits_the_screen_in_chinese(start):
    phone = {"width": 390, "height": 844}
    page = start(viewport=phone, has_touch=True, is_mobile=True, locale="zh-CN")
    touch = page.context.new_cdp_session(page)
    for kind, places in (("touchStart", [(100, 120)]), ("touchMove", [(250, 120), (180, 330)])):
        for x, y in places:
            touch.send(
                "Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y}]}
            )
    touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    answered(page, "7")
    assert page.locator("html").get_attribute("lang") == "zh"
    expect(page.locator("#save")).to_have_text("保存")
    expect(page.locator("#camera + label")).to_be_visible()
    assert page.evaluate("[document.body.scrollWidth, document.body.scrollHeight]") <= [390, 844]


def test_the_keyboard_reaches_every_control_and_each_has_a_name(page):
    write(page, [SEVEN])
    answered(page, "7")
    page.mouse.click(5, 5)
    reached = []
    for _ in range(6):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id"))
    assert reached == ["undo", "clear", "pen", "file", "name", "save"]
    tree = page.locator("main").aria_snapshot()
    for role in ('button "Undo"', 'button "Clear"', 'slider "Pen"', 'button "Picture…"',
                 'textbox "File name of the drawing"', 'img "Sheet to write on', "status: \"7\"",
                 'list "Probabilities"'):  # fmt: skip
        assert role in tree, tree
    assert page.locator("#answer").get_attribute("aria-live") == "polite"


def test_a_smaller_window_shows_all_that_was_written(page):
    write(page, [SEVEN], left=0.85)
    answered(page, "7")
    page.set_viewport_size({"width": 640, "height": 800})
    write(page, [ONE], left=0.2)
    answered(page, "17")


def test_that_the_program_has_ended_is_said(page):
    page.route("**/answer", lambda route: route.abort())
    write(page, [SEVEN])
    expect(page.locator("#message")).to_contain_text("has ended")

"""Checkpoints from the page, in a real Chromium: loaded by one visitor, there for all in every tab, unloaded; and none of it in public."""

from threading import Event

import pytest
from gradio_client import Client
from playwright.sync_api import expect

from bitune import Engine
from bitune.model.decoding import Decoder
from tests.browser.served import TEMPLATE, served, tiny_folders
from tests.browser.visitor import ARTIFACTS, SIZES, ended, every_screen, go, run, visit
from tests.tiny import bitune_on, tiny_base

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """`base`, `lora` and `bitune`, and `other`, one more Bitune checkpoint."""
    folder = tiny_folders(tmp_path_factory.mktemp("tiny"))
    bitune_on(tiny_base(), seed=7, prompt_template=TEMPLATE).save_pretrained(folder / "other")
    return folder


@pytest.fixture
def url(folder):
    """A page on which one checkpoint is loaded, and more can be."""
    engine = Engine(tiny_base())
    engine.add_checkpoint(folder / "lora")
    with served(engine, loads=True) as url:
        yield url


def open_section(page):
    page.get_by_role("button", name="Load or unload a checkpoint").click()
    expect(page.locator("#bt-models-source input")).to_be_visible()


def load(page, source, name=""):
    page.locator("#bt-models-source input").fill(str(source))
    page.locator("#bt-models-name input").fill(name)
    page.locator("#bt-models-load").click()


def names(page):
    return page.locator("#bt-variants label")


def test_what_one_visitor_loads_all_have_in_every_tab_until_it_is_unloaded(browser, url, folder):
    for page in visit(browser, url, "desktop", "light"):
        for other in visit(browser, url, "desktop", "light"):
            assert names(other).all_inner_texts() == ["base", "lora"]
            open_section(page)
            load(page, folder / "nothing")
            expect(page.locator("#bt-models-words").get_by_role("alert")).to_contain_text("There is no checkpoint folder")
            load(page, folder / "bitune", "mine")
            expect(page.locator("#bt-models-words")).to_contain_text("mine is loaded")
            expect(page.locator("#bt-variants input >> nth=2")).to_be_checked()
            expect(page.locator("#bt-models-source input")).to_have_value("")
            for each in (page, other):
                expect(names(each)).to_have_text(["base", "lora", "mine"])
                expect(each.locator("#bt-loaded summary")).to_contain_text("2 checkpoints")
            open_section(other)
            for each in (page, other):
                expect(each.locator("#bt-models-list .bt-chip")).to_have_text(["lora", "mine"])
            expect(other.locator("#bt-variants input >> nth=2")).not_to_be_checked()
            run(page, "hello there")
            ended(page)
            assert page.locator("#bt-results .bt-answer h3").all_inner_texts() == ["base", "lora", "mine"]
            go(other, "Mixing")
            other.locator("#bt-mixing-chosen input").last.check()
            expect(other.locator("#bt-ratios table")).to_contain_text("mine")
            expect(other.locator("#bt-sliders input[type=range] >> nth=0")).to_be_visible()
            other.locator("#bt-add").click()
            expect(other.locator(".bt-slot .bt-chip:visible")).to_have_count(1)
            go(other, "Attention")
            expect(other.locator("#bt-attention-variant label")).to_contain_text(["base", "lora", "mine"])
            go(other, "Many prompts")
            expect(other.locator("#bt-set-variants label")).to_contain_text(["base", "lora", "mine"])
            page.get_by_role("button", name="Unload mine").click()
            expect(page.locator("#bt-models-words")).to_contain_text("mine is unloaded")
            go(other, "Compare")
            for each in (page, other):
                expect(names(each)).to_have_text(["base", "lora"])
                expect(each.locator("#bt-loaded summary")).to_contain_text("1 checkpoint")
            go(other, "Mixing")
            expect(other.locator(".bt-slot .bt-chip:visible")).to_have_count(0)
            expect(page.locator("#bt-results .bt-answer h3")).to_have_count(3)


def test_what_another_visitor_found_stays(browser, url, folder):
    """The page learns of the new checkpoint, and what was looked at below its answers is not emptied."""
    for page in visit(browser, url, "desktop", "light"):
        run(page, "hello there")
        ended(page)
        page.locator("#bt-look-tokens").click()
        expect(page.locator("#bt-tokens .bt-strip")).to_have_count(2)
        for other in visit(browser, url, "desktop", "light"):
            open_section(other)
            load(other, folder / "bitune", "mine")
            expect(other.locator("#bt-models-words")).to_contain_text("mine is loaded")
        expect(names(page)).to_have_text(["base", "lora", "mine"])
        page.wait_for_timeout(1_000)  # the tabs are told one after the other
        expect(page.locator("#bt-tokens .bt-strip")).to_have_count(2)
        expect(page.locator("#bt-why")).to_be_visible()


@pytest.fixture
def go_on(monkeypatch):
    """No token is written before it is set."""
    forward, told = Decoder.next_logits, Event()

    def step(self):
        assert told.wait(120)
        return forward(self)

    monkeypatch.setattr(Decoder, "next_logits", step)
    yield told
    told.set()


def test_unloading_during_a_request_waits_for_it(browser, url, folder, go_on):
    for page in visit(browser, url, "desktop", "light"):
        open_section(page)
        load(page, folder / "bitune")
        expect(page.locator("#bt-variants input >> nth=2")).to_be_checked()
        run(page, "hello there")
        page.get_by_role("button", name="Unload bitune").click()
        expect(page.locator("#bt-models-words")).to_contain_text("have ended that still answer with it")
        expect(names(page)).to_have_text(["base", "lora"])
        go_on.set()
        ended(page)
        expect(page.locator("#bt-results .bt-answer h3")).to_have_count(3)
        expect(page.locator("#bt-models-words")).to_contain_text("bitune is unloaded", timeout=60_000)


def test_who_comes_later_finds_it(browser, url, folder):
    for page in visit(browser, url, "desktop", "light"):
        open_section(page)
        load(page, folder / "bitune")
        expect(names(page)).to_have_text(["base", "lora", "bitune"])
        page.reload()
        expect(names(page)).to_have_text(["base", "lora", "bitune"])


def test_a_page_without_checkpoints_gets_its_first_one(browser, folder):
    with served(Engine(tiny_base()), loads=True) as url:
        for page in visit(browser, url, "desktop", "light"):
            open_section(page)
            load(page, folder / "bitune")
            expect(names(page)).to_have_text(["base", "bitune"])
            go(page, "Mixing")
            expect(page.locator("#bt-ratios table")).to_contain_text("bitune")
            expect(page.locator("#bt-sweep-run")).to_be_visible()


def test_a_public_page_has_neither_section_nor_endpoint(browser, folder):
    engine = Engine(tiny_base())
    with served(engine) as url:
        for page in visit(browser, url, "desktop", "light"):
            expect(page.get_by_text("Load or unload a checkpoint")).to_have_count(0)
            config = page.evaluate("fetch('config').then((answer) => answer.json())")
        without = len(config["dependencies"])
        assert not [part for part in config["components"] if str(part["props"].get("elem_id")).startswith("bt-models")]
        public = set(Client(url, verbose=False).view_api(print_info=False, return_format="dict")["named_endpoints"])
    with served(engine, loads=True) as url:
        for page in visit(browser, url, "desktop", "light"):
            assert len(page.evaluate("fetch('config').then((answer) => answer.json())")["dependencies"]) > without
        assert set(Client(url, verbose=False).view_api(print_info=False, return_format="dict")["named_endpoints"]) == public, (
            "nothing for programs"
        )


@every_screen
def test_it_fits_every_screen(browser, url, folder, size, scheme):
    for page in visit(browser, url, size, scheme):
        ARTIFACTS.mkdir(exist_ok=True)
        page.screenshot(path=ARTIFACTS / f"models-closed-{size}-{scheme}.png")
        open_section(page)
        load(page, folder / "other", "a name that is rather long for a checkpoint")
        expect(page.locator("#bt-models-list .bt-chip")).to_have_count(2)
        load(page, folder / "nothing")
        expect(page.locator("#bt-models-words").get_by_role("alert")).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= SIZES[size]["width"], "nothing sticks out sideways"
        page.screenshot(path=ARTIFACTS / f"models-{size}-{scheme}.png")

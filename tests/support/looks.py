"""What a page has to look like, whatever it says."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.support.browser import Page

CONTRAST = 4.5
"""Of text, at least: WCAG 2.2, 1.4.3, level AA."""
SMALLEST, ON_PAPER = 11, 10
"""Pixels; on paper 10 of them are 7.5 points."""

BEYOND = """
[...document.querySelectorAll("body *")]
  .filter(element => !element.closest(".scroll") || element.matches(".scroll"))
  .filter(element => element.getBoundingClientRect().right > innerWidth + 0.5
    || element.getBoundingClientRect().left < -0.5)
  .map(element => `${element.tagName} ${element.className} ${element.textContent.trim().slice(0, 40)}`)
"""
"""What reaches out of the window, but for what is scrolled in a frame of its own."""

TEXTS = """
(() => {
  const numbers = colour => colour.match(/[\\d.]+/g).map(Number);
  const light = ([red, green, blue]) => [red, green, blue]
    .map(part => part / 255)
    .map(part => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
    .reduce((sum, part, index) => sum + part * [0.2126, 0.7152, 0.0722][index], 0);
  const behind = element => {
    for (let each = element; each; each = each.parentElement) {
      const colour = numbers(getComputedStyle(each).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  return [...document.querySelectorAll("body *")]
    .filter(element => [...element.childNodes].some(node => node.nodeType === 3 && node.data.trim()))
    .filter(element => element.checkVisibility())
    .map(element => {
      const style = getComputedStyle(element);
      const [darker, lighter] = [light(numbers(style.color)), light(behind(element))].sort((a, b) => a - b);
      return {
        text: element.textContent.trim().slice(0, 40),
        contrast: (lighter + 0.05) / (darker + 0.05),
        size: parseFloat(style.fontSize),
        paper: light(behind(element)),
      };
    });
})()
"""
"""Each text that is seen: its contrast to what is behind it, its size, and how light that is."""


def look(page: Page, width: int, *, dark: bool, smallest: int = SMALLEST) -> None:
    """Nothing is cut off or too small, every text stands out, and nothing was complained about.

    Args:
        page: what is open.
        width: of its window.
        dark: whether it should be dark.
        smallest: the size of its text, at least, in pixels.
    """
    assert page.run("document.scrollingElement.scrollWidth") <= width
    assert page.run(BEYOND) == []
    texts = page.run(TEXTS)
    assert texts
    assert [text for text in texts if text["contrast"] < CONTRAST] == []
    assert [text for text in texts if text["size"] < smallest] == []
    assert {text["paper"] < 0.2 for text in texts} == {dark}
    assert page.complaints == []

"""What the extraction knows about HTML: groups of element, role and class names, and the role of each in a page."""

from __future__ import annotations

from typing import Final

_GROUPS = """
boundary: address article body center details dialog dir div fieldset footer form header hgroup hr legend listing main
boundary: menu optgroup option p plaintext search section summary tbody tfoot thead xmp
heading: h1 h2 h3 h4 h5 h6
list: ul ol dl
item: li dt dd
quote: blockquote
code: pre
table: table
row: tr
cell: td th
caption: caption figcaption
figure: figure

never-text: script style template head title meta link base svg canvas iframe frameset object embed applet video audio
never-text: map annotation annotation-xml rp
aside: nav aside
control: button input select textarea label datalist output progress meter
section: main article section
banner: header footer
skipped-role: navigation banner contentinfo complementary search menu menubar toolbar dialog alert alertdialog
line-number-class: lineno linenos linenum line-number line-numbers linenumber line-numbers-rows gutter

void: area base br col embed hr img input link meta param source track wbr
ends-itself: html head body p a nobr li dt dd option optgroup rp rt colgroup
table-part: td th tr tbody thead tfoot caption
scope: table template object applet marquee select svg math
formatting: a b big code em font i nobr s small strike strong tt u
"""


def _group(*groups: str) -> frozenset[str]:
    lines = (line.partition(": ") for line in _GROUPS.splitlines())
    return frozenset(name for group, _, names in lines if group in groups for name in names.split())


# Elements that give a page its blocks; every other one is inline.
STRUCTURE: dict[str, str] = {
    name: role
    for role in (line.partition(": ")[0] for line in _GROUPS.partition("\n\n")[0].splitlines())
    for name in _group(role)
}
SKIPPED = _group("never-text", "aside", "control")
SKIPPED_ROLES = _group("skipped-role")
SECTIONS = _group("section")  # a <header> or <footer> inside one is its own, not the page's
BANNERS = _group("banner")
LINE_NUMBER_CLASSES = _group("line-number-class")

# What the walk does with an element; all others are inline. Numbers: they are compared for every element of a page.
NEVER: Final = 0
LEAF: Final = 1
INLINE: Final = 2
LINK: Final = 3
BLOCK: Final = 4
WALK_ROLES: dict[str, int] = {
    **dict.fromkeys(STRUCTURE, BLOCK),
    **dict.fromkeys(_group("never-text", "aside", "control"), NEVER),
    **dict.fromkeys(("img", "amp-img", "noscript", "br", "input", "iframe", "embed", "object"), LEAF),
    **dict.fromkeys(("-comment", "-doctype", ""), NEVER),
    "a": LINK,
}

# How the tree is built (HTML standard, 13.2.6).
VOID = _group("void")
ENDS_ITSELF = _group("ends-itself")  # never nest without another element between
TABLE_PARTS = _group("table-part")
SCOPES = _group("scope")  # an end tag does not reach beyond these
FORMATTING = _group("formatting")  # opened again in the paragraphs that follow, until closed

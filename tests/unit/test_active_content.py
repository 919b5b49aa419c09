"""What a hostile kernel sends cannot act in the page that shows it; what an honest one sends is still to be seen."""

from __future__ import annotations

import base64
import io
import json
import re
import time
from html import escape, unescape
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernelrepl.outputs import markup
from kernelrepl.outputs.sanitize import (
    MAX_HTML,
    MAX_LOOSE_HTML,
    MAX_LOOSE_TAGS,
    MAX_TAGS,
    answer,
    bundle,
    harmless,
    notice,
    reply,
    shown,
)

VOID = {"br", "col", "hr", "img", "wbr"}
ELEMENTS = {
    "a", "abbr", "b", "blockquote", "caption", "code", "colgroup", "dd", "del", "details", "div", "dl", "dt", "em",
    "figcaption", "figure", "h1", "h2", "h3", "h4", "h5", "h6", "i", "ins", "kbd", "li", "mark", "ol", "p", "pre", "q",
    "s", "samp", "small", "span", "strike", "strong", "style", "sub", "summary", "sup", "table", "tbody", "td", "tfoot",
    "th", "thead", "tr", "tt", "u", "ul", "var", *VOID,
}  # fmt: skip
CLASS = r"dataframe|data|blank|index_name|(row|col|level)\d+|(row|col)_(heading|trim)|(tex2jax|mathjax)_ignore"
ATTRIBUTES = {
    "class": rf"(({CLASS})( |$))+",
    "id": r"T_[0-9a-f]{16}_[\w-]*",
    "style": r"[a-z-]+: [\w#%., ()-]+(; [a-z-]+: [\w#%., ()-]+)*",
    "title": r"[^<>]*",
    "alt": r"[^<>]*",
    "href": r"(?i)https?://[^\s\"'<>\\]+",
    "src": r"data:image/(png|jpeg|gif|webp);base64,[A-Za-z0-9+/=]+",
    "rel": "noopener noreferrer",
    "target": "_blank",
    "scope": r"(row|col)(group)?",
    "open": "(open)?",
    **dict.fromkeys(("rowspan", "colspan", "border", "width", "height", "start"), r"\d{1,4}%?"),
}
"""What each may be. Nothing else is an attribute, so no `on...`, no `data-...`, no `srcdoc`."""

HARMFUL_STYLE = (
    r"(?i)url|@|\\|/|expression|import|behaviou?r|position|transform|inset|z-index|var\(|attr\(|image|fixed|-\d"
)
RULE = r"#T_[0-9a-f]{16}_[\w-]*(:hover)?( (>|[\w.:()-]+))*"
PICTURE = r"data:image/svg\+xml;base64,[A-Za-z0-9+/=]+"


class Reader(HTMLParser):
    """Reads HTML as strictly as it is written, and says what is wrong with it."""

    def __init__(self, picture: bool = False) -> None:
        super().__init__(convert_charrefs=True)
        self.wrong: list[str] = []
        self.inside: list[str] = []
        self.roots: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.rules = ""
        self.links: list[str] = []
        self._sources = f"{ATTRIBUTES['src']}|{PICTURE}" if picture else ATTRIBUTES["src"]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if not self.inside:
            self.roots.append((tag, dict(attrs)))
        if tag not in ELEMENTS or (tag == "style" and (self.inside or attrs)):
            self.wrong.append(f"<{tag}>")
        for name, value in attrs:
            pattern = self._sources if name == "src" else ATTRIBUTES.get(name)
            if pattern is None or not re.fullmatch(pattern, value or ""):
                self.wrong.append(f"{name}={value!r}")
            if name == "style" and re.search(HARMFUL_STYLE, value or ""):
                self.wrong.append(f"style={value!r}")
            if name == "href":
                self.links.append(value or "")
        if tag == "a" and ("rel", "noopener noreferrer") not in attrs:
            self.wrong.append("a link that lends its window")
        if tag not in VOID:
            self.inside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self.inside or self.inside.pop() != tag:
            self.wrong.append(f"</{tag}>")

    def handle_data(self, data: str) -> None:
        if self.inside[-1:] == ["style"]:
            self.rules += data
        else:
            self.text.append(data)
            if not self.inside and data.strip():
                self.wrong.append(f"outside of the frame: {data!r}")

    def handle_comment(self, data: str) -> None:
        self.wrong.append(f"comment {data!r}")

    def handle_decl(self, decl: str) -> None:
        self.wrong.append(f"declaration {decl!r}")

    def handle_pi(self, data: str) -> None:
        self.wrong.append(f"instruction {data!r}")

    def unknown_decl(self, data: str) -> None:
        self.wrong.append(f"declaration {data!r}")


def read(source: str, picture: bool = False) -> Reader:
    """Parse what passed, and prove that it is passive: it can neither act, nor load, nor paint over the page."""
    reader = Reader(picture)
    reader.feed(source)
    reader.close()
    if reader.inside:
        reader.wrong.append(f"left open: {reader.inside}")
    frames = [attributes for tag, attributes in reader.roots if tag != "style"]
    assert [tag for tag, _ in reader.roots] in (["div"], ["style", "div"]), reader.roots
    assert frames == [{"class": "tex2jax_ignore mathjax_ignore", "style": "contain: content; overflow: auto"}]
    for rule in filter(None, reader.rules.split("\n")):
        heads, _, declarations = rule.removesuffix("}").partition(" {")
        for head in heads.split(", "):
            if not re.fullmatch(RULE, head):
                reader.wrong.append(f"selector {head!r}")
        if not re.fullmatch(ATTRIBUTES["style"], declarations) or re.search(HARMFUL_STYLE, declarations):
            reader.wrong.append(f"rule {declarations!r}")
    assert not reader.wrong, source
    return reader


PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"\0" * 16).decode()
IMG = f'<img src="data:image/png;base64,{PNG}">'
GATE = "https://canary.example/x"

HTML = [
    "<script>alert(1)</script>",
    "<SCRIPT SRC=//canary.example/x></SCRIPT>",
    "<scr<script>ipt>alert(1)</scr</script>ipt>",
    "<script/x>alert(1)</script >",
    "<img src=x onerror=alert(1)>",
    '<img/src="x"/onerror=alert(1)>',
    "<img src=x onerror=alert(1)//",
    '<img src="data:image/png;base64,AAAA" onload=alert(1)>',
    f"<img src={GATE}>",
    "<img src=//canary.example/x>",
    "<img src=/api/contents>",
    f"<img srcset='{GATE} 1x'>",
    "<img src='data:image/png;base64,x\" onerror=alert(1) x='>",
    f"<img lowsrc={GATE} dynsrc={GATE} longdesc={GATE}>",
    "<img src='data:image/svg+xml;base64,PHN2ZyBvbmxvYWQ9YWxlcnQoMSk+'>",
    "<img src='data:text/html,<script>alert(1)</script>'>",
    "<img src='data:image/png,x' alt='\"><script>alert(1)</script>'>",
    f"<picture><source srcset={GATE}><img></picture>",
    "<a href=javascript:alert(1)>x</a>",
    "<a href=' java\tscript:alert(1)'>x</a>",
    "<a href='java\nscript:alert(1)'>x</a>",
    "<a href='\x01javascript:alert(1)'>x</a>",
    "<a href='&#106;avascript&colon;alert(1)'>x</a>",
    "<a href='&#x6A;&#x61;vascript&#58;alert(1)'>x</a>",
    "<a href='javascript&Tab;:alert(1)'>x</a>",
    "<a href='JaVaScRiPt://%0aalert(1)'>x</a>",
    "<a href='data:text/html;base64,PHNjcmlwdD4='>x</a>",
    "<a href='vbscript:x'>x</a><a href='blob:https://x/y'>y</a><a href='file:///etc/passwd'>z</a>",
    "<a href='/lab?reset'>x</a><a href='../api'>y</a><a href='#top'>z</a><a href='//canary.example'>w</a>",
    "<a href='https://x/\"onclick=alert(1) x='>x</a>",
    "<a href=https://x/ ping=https://canary.example/p target=_top download onclick=alert(1)>x</a>",
    "<a href='ht\ntps://x/'>x</a>",
    "<svg onload=alert(1)>",
    "<svg><script>alert(1)</script></svg>",
    "<svg><a xlink:href=javascript:alert(1)><text x=20 y=20>x</text></a></svg>",
    "<svg><animate onbegin=alert(1) attributeName=x dur=1s>",
    f"<svg><image href={GATE} /><use href={GATE}#x /></svg>",
    "<svg><foreignObject><iframe srcdoc='<script>alert(1)</script>'></foreignObject></svg>",
    "<math href=javascript:alert(1)>x</math>",
    "<math><maction actiontype=statusline xlink:href=javascript:alert(1)>x</maction></math>",
    "<iframe srcdoc='<script>parent.alert(1)</script>'></iframe>",
    "<iframe src=javascript:alert(1)></iframe><frameset onload=alert(1)><frame src=x></frameset>",
    f"<object data={GATE}></object><embed src={GATE}><applet code=x></applet>",
    "<form action=javascript:alert(1)><input type=submit></form>",
    "<form><button formaction=javascript:alert(1)>x</button></form>",
    "<input autofocus onfocus=alert(1)><select onfocus=alert(1) autofocus><textarea onfocus=alert(1) autofocus>",
    f"<isindex action={GATE} type=image><keygen autofocus onfocus=alert(1)>",
    f"<meta http-equiv=refresh content='0;url={GATE}'>",
    "<base href=https://canary.example/>",
    f"<link rel=stylesheet href={GATE}><link rel=preload as=script href={GATE}><link rel=dns-prefetch href={GATE}>",
    f"<video src={GATE} poster={GATE} onerror=alert(1)></video><audio src={GATE} autoplay></audio>",
    f"<body background={GATE} onload=alert(1)><table background={GATE}><td background={GATE}>x</table>",
    "<details open ontoggle=alert(1)>x</details>",
    "<marquee onstart=alert(1)>x</marquee><p onpointerrawupdate=alert(1) onfocusin=alert(1) tabindex=0>x</p>",
    "<div data-commandlinker-command='terminal:create-new' data-commandlinker-args='{}'>x</div>",
    "<button data-commandlinker-command=x>x</button><span class='jp-mod-accept jp-Button lm-Widget'>x</span>",
    "<div data-jupyter-id=x data-path=/etc/passwd data-mime-type=x data-MJX=x>x</div>",
    "<p class='mathjax_process tex2jax_process'>$\\href{javascript:alert(1)}{x}$</p>",
    "<p>$$\\require{html}\\style{position:fixed}{x}\\class{jp-Button}{y}$$ \\(\\cssId{x}{y}\\) \\begin{a}\\end{a}</p>",
    "<script type='math/tex'>\\href{javascript:alert(1)}{x}</script>",
    "<p id=main name=getElementById>x</p><img name=body><a id=jupyter-config-data>{}</a>",
    "<p id=T_x\"onclick=alert(1)>x</p>",
    f"<style>@import url({GATE});</style>x",
    f"<style>#T_a {{ background: url({GATE}) }}</style><p id=T_a>x</p>",
    f"<style>#T_a {{ background-color: u\\72l({GATE}); color: image-set('x' 1x) }}</style><p id=T_a>x</p>",
    "<style>#T_a { color: red; position: fixed; top: 0; inset: 0; z-index: 9 }</style><p id=T_a>x</p>",
    "<style>body { display: none } #T_a, body { color: red } #T_a ~ div { color: red }</style>x",
    "<style>#T_a{}</style><style>*{color:red}</style>x",
    "<style>#T_a td{color:red}/*</style><script>alert(1)</script>*/x",
    "<style>#T_a{color:red;x:y}</sty<style></style>le><script>alert(1)</script>",
    "<style>#T_a{color:</style><img src=x onerror=alert(1)>}</style>x",
    "<style>@font-face{font-family:x;src:url(x)} @media all { #T_a { color: red } } @keyframes x{}</style>x",
    "<style>#T_a:has(input[value^=a]) { color: red } #T_a::before { content: url(x) }</style>x",
    f"<p style='background:url({GATE})'>x</p>",
    "<p style='background:url(x.png);color:url(x)'>x</p>",
    "<p style='color:red;background-image:url(//canary.example/x);list-style:url(x);cursor:url(x)'>x</p>",
    "<p style='width:expression(alert(1));behavior:url(x);-moz-binding:url(x)'>x</p>",
    "<p style='position:fixed;top:0;left:0;width:100vw;height:100vh;z-index:9999'>log in again</p>",
    "<p style='margin-top:-500px;transform:translate(9px);float:left;text-indent:-9px'>x</p>",
    "<p style='color:/**/red;color:r\\65 d;--x:url(x);width:var(--x);width:calc(0px - 9px)'>x</p>",
    "<p style=\"font-family:'x;}</style><script>alert(1)</script>\">x</p>",
    # What a sanitizer and a browser may read in two ways.
    "<noscript><p title='</noscript><img src=x onerror=alert(1)>'>",
    "<math><mtext><table><mglyph><style><!--</style><img title='--&gt;&lt;img src=1 onerror=alert(1)&gt;'>",
    "<form><math><mtext></form><form><mglyph><style></math><img src onerror=alert(1)>",
    "<svg></p><style><a id='</style><img src=1 onerror=alert(1)>'>",
    "<svg><title><style><img src=x onerror=alert(1)></style></title></svg>",
    "<math><annotation-xml encoding='text/html'><style><img src=x onerror=alert(1)></style></annotation-xml></math>",
    "<template><img src=x onerror=alert(1)></template><div><template shadowrootmode=open><script>x</script>",
    "<textarea></textarea><img src=x onerror=alert(1)></textarea>",
    "<title></title><img src=x onerror=alert(1)>",
    "<xmp><p title='</xmp><img src=x onerror=alert(1)>'></xmp>",
    "<plaintext><img src=x onerror=alert(1)>",
    "<noembed><img title='</noembed><img src onerror=alert(1)>'></noembed>",
    "<select><option><style></option></select><img src=x onerror=alert(1)></style>",
    "<p>x<!-- --!><img src=x onerror=alert(1)> --><![CDATA[<script>alert(1)</script>]]><?php <script> ?>",
    "<!--[if IE]><script>alert(1)</script><![endif]-->",
    "</div></div></div><p>outside</p><div>",
    "</div></td></table></body></html><p>outside<li><div><li>",
    "<table><div>x</table></div></div><p>outside",
    "<b><p><i></b></p></i></div>x",
    "<a><table><a href=javascript:alert(1)>x</a></table>",
    "<p title='`onmouseover=alert(1)'>x</p><p title=`x`onmouseover=alert(1)>y</p>",
    "<p title='a\x00' on\x00click=alert(1)>x</p><scr\x00ipt>alert(1)</script>",
    "<img src=x on\u0130error=alert(1)><ſcript>alert(1)</ſcript><\u212aeygen>",
    "\ufeff<script>alert(1)</script>\u2028\ud800<p>\udfff</p>\x0b\x0c",
    "+ADw-script+AD4-alert(1)+ADw-/script+AD4-",
    "%3Cscript%3Ealert(1)%3C/script%3E &lt;script&gt;alert(1)&lt;/script&gt; &amp;lt;script&amp;gt;",
    "<img src=`x` onerror=alert(1)><img \t\n src=x \x0c onerror \n = alert(1)>",
    "<div is=x-y slot=x part=x exportparts=x popover popovertarget=x autofocus contenteditable>x</div>",
    "<p xml:base=javascript:alert(1) xmlns=x xlink:href=javascript:alert(1)>x</p>",
    "<portal src=x></portal><fencedframe></fencedframe><dialog open>x</dialog><slot></slot><x-y>z</x-y>",
    "<script>" + "x" * 100,
    "<",
    "<a",
    "<a href='",
    "",
]  # fmt: skip


@pytest.mark.parametrize("source", HTML)
def test_html_that_would_act(source: str) -> None:
    data, taken = bundle({"text/plain": "p", "text/html": source})
    assert data["text/plain"] == "p"
    assert data.keys() <= {"text/plain", "text/html"}
    if "text/html" in data:
        read(data["text/html"])
    else:
        assert taken == ("text/html",)
    for content in (
        harmless("display_data", {"data": {"text/html": source.splitlines(keepends=True)}}),
        reply({"status": "ok", "payload": [{"source": "page", "data": {"text/html": source}}]})["payload"][0],
        answer("inspect_reply", {"status": "ok", "found": True, "data": {"text/html": source}}),
    ):
        assert content is not None
        if "text/html" in content["data"]:
            read(content["data"]["text/html"])


@given(st.lists(st.sampled_from([*HTML, *(piece for source in HTML for piece in re.split(r"(?=[<>'\" ])", source))])))
def test_pieces_of_them(pieces: list[str]) -> None:
    data, _ = bundle({"text/html": "".join(pieces)})
    if "text/html" in data:
        read(data["text/html"])


@given(st.text(alphabet="<>/=\"'& \n#T_a{};:-pbdivtablesyhref\x00\ud800é"))
def test_letters_of_html(source: str) -> None:
    data, _ = bundle({"text/html": source})
    if "text/html" in data:
        read(data["text/html"])


def test_what_passes_is_a_fixed_point() -> None:
    """Without what is not allowed, a parser would no longer nest these items: so they are written as it reads them."""
    data, _ = bundle({"text/html": "<li>a<center><li>b</center>c"})
    assert "<li>a</li><li>b</li>c" in data["text/html"]


def test_html_that_says_what_it_lost() -> None:
    assert bundle({"text/html": "<b>x</b><script>1</script>"})[1] == ("text/html",)
    assert bundle({"text/html": f"<b>x</b><img src={GATE}>"})[1] == ("text/html",)
    assert bundle({"text/html": f"<b>x</b>{IMG}"})[1] == ()
    assert bundle({"text/html": "<div id=plot></div><script>plot()</script>"}) == ({}, ("text/html",))


MARKDOWN = [
    "# Title\n\n- a\n- b",
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "[x](javascript:alert(1))",
    "[x](java\nscript:alert(1)) [y](&#106;avascript:alert(1)) [z](<javascript:alert(1)>)",
    "[x]: javascript:alert(1)\n[x]",
    "[x](http://localhost:8888/lab) [y](/api) [z](https://canary.example/x)",
    f'![x]({GATE}) ![y](data:image/svg+xml;base64,PHN2Zz4=) ![z](x" onerror=alert(1) y=")',
    "<javascript:alert(1)>",
    "`</pre><script>alert(1)</script>`",
    '```mermaid\ngraph TD; A-->B; click A href "javascript:alert(1)"\n```',
    '```"onclick=alert(1)\nx\n```',
    "<details><summary data-commandlinker-command=x>x</summary></details>",
    "<div>\n\n# x\n\n</div></div></div>outside",
    "&lt;script&gt; &#60;script&#62; <!-- x --> ]]>",
    "|a|<script>|\n|-|-|\n|</table>|<style>*{}</style>|",
    "- [x] <input autofocus onfocus=alert(1)>",
    "<span class='mathjax_process tex2jax_process'>$\\href{javascript:alert(1)}{x}$</span>",
    '<span class="math">\\(\\href{javascript:alert(1)}{x}\\)</span>',
    "<span class='math'>\\(\\hr<wbr>ef{javascript:alert(1)}{x}\\)</span><span class='math'>\\hr<b>e</b>f{x}</span>",
    "<p class='math'>\\(x\\)</p><span class='math data'>\\(x\\)</span><span class='math' style='color: red'>$x$</span>",
    "$\\href{javascript:alert(1)}{x}$ $$\\style{position:fixed}{x}$$",
    "$\\hr$ef{javascript:alert(1)}{x}$ $`\\href{x}{y}`$",
    "*" * 20_000,
    "[" * 20_001,
]
FORMULAS = [
    "$\\href{javascript:alert(1)}{x}$",
    "\\href{java\tscript:alert(1)}{x}",
    "$\\url{javascript:x}$ \\(\\require{html}\\)",
    "$$\\unicode{x}\\style{background:url(x)}{x}\\class{jp-Button}{x}\\cssId{x}{y}\\require{html}$$",
    "\\def\\x{\\href}\\x{javascript:alert(1)}{y}\\let\\y\\href\\csname href\\endcsname{javascript:x}{y}",
    "\\newcommand{\\x}{\\x\\x}\\x \\begingroup \\renewenvironment{align}{}{}",
    "\\begin{html}x\\end{html} \\begin {align}x\\end {align}",
    "\\text{$\\href{javascript:x}{y}$}",
    "\\hskip -99em \\kern-9em \\raise9em{x} \\rule{99em}{99em} \\llap{x} \\hspace{-9em} \\moveleft 9em x",
    "x^^5chref{javascript:x}{y}",
    "\\hr%\nef{x}{y}",
    "\\texttip{x}{y} \\toggle{x}{y}\\endtoggle \\mathtip{x}{y} \\bbox[url(x)]{x} \\enclose{circle}{x}",
    "\\label{a} \\eqref{a} \\ref{a} \\tag{x}",
    "\\color{url(x)}{x} \\textcolor{red;x:y}{x} \\color[RGB]{1,2,3} \\colorbox{red}{x}",
    "\\hrefx \\HREF \\Href \\h\\ref",
    "}\\alpha{",
    "{" * 60 + "}" * 60,
    "\\sqrt" * 60 + "{x}",
    "\\hat \\bar\n" * 30 + "x",
    "\\textcolor{red}" * 60 + "{x}",
    "\\left(" * 60 + "x" + "\\right)" * 60,
    "\\begin{array}{c}" * 60 + "x" + "\\end{array}" * 60,
    "x" * 10_001,
]


def drawn(html: str) -> list[str]:
    """What MathJax would look at in HTML; all else must be within the frame that it passes over."""
    found = re.findall(r'<(?:span|div) class="tex2jax_process mathjax_process">([^<>]*)</', html)
    assert html.count("mathjax_process") == html.count("tex2jax_process") == len(found)
    return [unescape(text) for text in found]


def read_markup(html: str, picture: bool = False) -> Reader:
    """As `read`, with the formulas that MathJax may draw."""
    return read(html.replace(' class="tex2jax_process mathjax_process"', ""), picture)


@pytest.mark.parametrize("source", MARKDOWN)
def test_markdown_is_passive_html(source: str) -> None:
    """What it holds of HTML goes the way of all HTML; what is too long is source."""
    data, _ = bundle({"text/plain": "<IPython.core.display.Markdown object>", "text/markdown": source})
    assert data.keys() == {"text/plain", "text/html"}
    read_markup(data["text/html"])
    assert drawn(data["text/html"]) == []
    assert bundle({"text/plain": "√2", "text/markdown": source})[0] == {"text/plain": "√2"}
    assert bundle({"text/html": "<p>better</p>", "text/markdown": source})[0].keys() == {"text/html"}


@pytest.mark.parametrize("source", FORMULAS)
@pytest.mark.parametrize("form", ["text/latex", "text/markdown", "text/html"])
def test_formulas_that_would_act_are_source(source: str, form: str) -> None:
    """In LaTeX, in Markdown, in HTML as a renderer of Markdown makes it."""
    written = {
        "text/latex": source,
        "text/markdown": f"$$\n{source}\n$$",
        "text/html": f'<div class="math">{escape(source)}</div>',
    }
    data, taken = bundle({"text/plain": " ", form: written[form]})
    reader = read_markup(data["text/html"])
    assert drawn(data["text/html"]) == []
    if form == "text/latex":
        assert "".join(reader.text) == source
        assert taken == (form,)


PIECES = [
    *FORMULAS,
    *(piece for source in FORMULAS for piece in re.split(r"(?=[\\\\{}$])", source)),
    "\\alpha",
    "\\\\",
    "x",
]
DANGEROUS = re.compile(
    r"\\\\(?:href|url|class|cssId|style|unicode|require|def|let|newcommand|csname|label|ref|hskip|kern|raise|rule|Rule|hspace"
    r"|texttip|toggle|mathtip|bbox|enclose|colorbox|llap|moveleft)(?![a-zA-Z])"
)


@given(st.lists(st.sampled_from(PIECES)))
def test_pieces_of_formulas(pieces: list[str]) -> None:
    """However they are put together, what is drawn has no command but those that draw."""
    source = "".join(pieces)
    for form in ({"text/latex": source}, {"text/markdown": f"a $`{source}`$ ${source}$ $$\n{source}\n$$"}):
        html = bundle({"text/plain": "", **form})[0].get("text/html", "")
        for formula in drawn(html):
            commands = re.findall(r"\\\\([a-zA-Z]+|.)", formula, re.DOTALL)
            assert not [name for name in commands if DANGEROUS.fullmatch(f"\\{name}")], formula
            assert not re.search(r"\^\^|%(?<!\\\\%)|#", formula), formula


def test_markdown_is_rendered() -> None:
    """Headings, lists, tables, code, links that lead out; formulas are for MathJax, and nothing is missed."""
    source = (
        "# T\n\n- **a** `$b$`\n\n|x|\n|-|\n|1|\n\n[out](https://python.org) $x^2 < 3$ costs $5\n\n"
        "$$\n\\frac{a}{b}\n$$\n\n<b>html</b>\n\n```python\n1 < 2\n```\n"
    )
    data, taken = bundle({"text/plain": "<IPython.core.display.Markdown object>", "text/markdown": source})
    assert taken == ()
    reader = read_markup(data["text/html"])
    for piece in ("<h1>T</h1>", "<strong>a</strong>", "<code>$b$</code>", "<td>1</td>", "<b>html</b>", "1 &lt; 2"):
        assert piece in data["text/html"]
    assert reader.links == ["https://python.org"]
    assert [formula.strip() for formula in drawn(data["text/html"])] == ["\\(x^2 < 3\\)", "$$\n\\frac{a}{b}\n$$"]


@pytest.mark.parametrize(
    "source",
    [
        "$\\displaystyle \\frac{x^{2}}{\\sqrt{2 \\pi}}$",
        "$$\\int_{0}^{\\infty} e^{- x}\\, dx < \\sum_{k=1}^{n} \\left(\\alpha_k + 1\\right)$$",
        "$\\displaystyle \\left[\\begin{matrix}1 & 2\\\\3 & 4\\end{matrix}\\right]$",
        "\\begin{align*}a &= b \\\\ \\text{for all } 5\\% &\\geq c\\end{align*}",
        "\\begin{cases}\\color{red}{x} & \\text{for}\\: x > 0\\end{cases}",
        "Let $x \\in \\mathbb{R}$, so \\(x^2 \\ge 0\\).",
    ],
)
def test_latex_is_drawn(source: str) -> None:
    """As IPython, sympy and people write it."""
    data, taken = bundle({"text/plain": "<IPython.core.display.Latex object>", "text/latex": source})
    assert taken == ()
    read_markup(data["text/html"])
    assert drawn(data["text/html"]) == [source]


@pytest.mark.parametrize(
    "source",
    [
        "<svg xmlns='http://www.w3.org/2000/svg'><circle r='3'/></svg>",
        "<?xml version='1.0'?><!DOCTYPE svg><svg onload='alert(1)'><script>alert(1)</script></svg>",
        f"<svg><image href='{GATE}'/><foreignObject><iframe src='{GATE}'/></foreignObject></svg>",
        '"><script>alert(1)</script><svg>',
        "<svg>\ud800</svg>",
    ],
)
def test_svg_is_a_picture(source: str) -> None:
    data, taken = bundle({"text/plain": "p", "image/svg+xml": source})
    assert taken == ()
    assert data.keys() == {"text/plain", "text/html"}
    read(data["text/html"], picture=True)
    code = re.search(r"base64,([^\"]*)\"", data["text/html"])
    assert code is not None
    assert base64.b64decode(code[1]).decode() == source.encode(errors="replace").decode()
    better = {"image/png": PNG}
    assert bundle({**better, "image/svg+xml": source}) == (better, ("image/svg+xml",))


TAKEN_OUT = [
    "application/javascript", "text/javascript", "application/vnd.plotly.v1+json", "application/vnd.vega.v5+json",
    "application/vnd.vegalite.v5+json", "application/geo+json", "application/pdf", "text/vnd.mermaid",
    "application/vnd.holoviews_exec.v0+json", "application/vnd.jupyter.widget-view+json",
    "application/vnd.bokehjs_exec.v0+json",
    "application/vnd.jupyter.stderr", "application/vnd.jupyter.error", "application/vnd.jupyter.es6-rich-output",
    "text/html; charset=utf-8", "TEXT/HTML", " text/html", "image/bmp", "image/tiff", "image/svg", "application/xml",
    "application/xhtml+xml", "text/csv", "text/jsonl", "text/x-tex", "video/mp4", "audio/wav", "application/x-unknown",
]  # fmt: skip


@pytest.mark.parametrize("mime", TAKEN_OUT)
def test_other_types_are_taken_out(mime: str) -> None:
    values: list[Any] = ["<script>alert(1)</script>", ["alert(1)"], {"data": []}]
    for value in values:
        data, taken = bundle({"text/plain": "p", mime: value})
        assert data == {"text/plain": "p"}
        assert taken == ((mime,) if re.fullmatch(r"[\w/.+-]+", mime) else ("others",))


@pytest.mark.parametrize(
    "value",
    ["", "x", "<svg onload=alert(1)>", "iVBORw0KGgo", PNG + "!", PNG + '"><script>', PNG[:-4] + "é", PNG[4:],
     "R0lGODdi", {"a": 1}, None, 3, ["a", 3], base64.b64encode(b"<svg/>").decode(), "P" * 24_000_001],
    ids=range(15),
)  # fmt: skip
@pytest.mark.parametrize("mime", ["image/png", "image/jpeg", "image/gif", "image/webp"])
def test_pictures_that_are_none(mime: str, value: Any) -> None:
    assert bundle({"text/plain": "p", mime: value}) == ({"text/plain": "p"}, (mime,))
    if mime != "image/png":
        assert bundle({mime: PNG}) == ({}, (mime,))


@pytest.mark.parametrize(
    ("mime", "start"),
    [
        ("image/png", b"\x89PNG\r\n\x1a\n"),
        ("image/jpeg", b"\xff\xd8\xff\xe0"),
        ("image/gif", b"GIF89a"),
        ("image/webp", b"RIFF\n\0\0\0WEBPVP8 "),
    ],
)
def test_pictures(mime: str, start: bytes) -> None:
    code = base64.encodebytes(start + bytes(100)).decode()
    assert bundle({mime: code}) == ({mime: code.replace("\n", "")}, ())


def test_metadata_has_sizes_only() -> None:
    sizes = {"width": 10, "height": 2.5, "needs_background": "light"}
    harm = {"isolated": True, "unconfined": True, "fragment": "#x", "root": "x", "width ": 3}
    content = {
        "data": {"image/png": PNG, "text/html": "<b>x</b>", "application/json": {"a": [1]}},
        "metadata": {
            "image/png": {**sizes, **harm},
            "text/html": harm,
            "application/json": {"expanded": True},
            "text/javascript": sizes,
            "isolated": True,
        },
        "transient": {"display_id": "d", "x": 1},
    }
    passed = harmless("display_data", content)
    assert passed is not None
    assert passed["metadata"] == {"image/png": sizes, "application/json": {"expanded": True}}
    assert passed["transient"] == {"display_id": "d"}
    for size in (-1, 0, float("nan"), float("inf"), 10**400, "10", None, [3], "javascript:1"):
        passed = harmless("display_data", {**content, "metadata": {"image/png": {"width": size}}})
        assert passed is not None
        assert passed["metadata"] == {}


def test_kinds() -> None:
    text = "\x1b[31mred\x1b[0m https://x.org"
    error = {"ename": "E", "evalue": "v", "traceback": [text]}
    data = {"data": {"text/plain": "1"}, "metadata": {}, "transient": {}}
    more = {"x": "<script>", "buffers": [], "comm_id": "c"}
    passing: dict[str, dict[str, Any]] = {
        "stream": {"name": "stderr", "text": text},
        "execute_result": {"execution_count": 3, **data},
        "display_data": data,
        "update_display_data": {**data, "transient": {"display_id": "d"}},
        "clear_output": {"wait": True},
        "error": error,
        "execute_input": {"code": text, "execution_count": 3},
        "status": {"execution_state": "busy"},
    }
    for kind, content in passing.items():
        assert harmless(kind, {**content, **more}) == content
    for kind in ("comm_open", "comm_msg", "comm_close", "debug_event", "shutdown_reply", "input_request", "x", ""):
        assert harmless(kind, {**data, **more, "data": {"method": "update"}}) is None
    for state in ("dead", "restarting", "autorestarting", ["busy"], None):
        assert harmless("status", {"execution_state": state}) is None


def test_something_is_always_to_be_seen() -> None:
    plot = {"application/vnd.plotly.v1+json": {}, "<script>": 1}
    passed, taken = shown({"data": plot})
    assert taken == ("application/vnd.plotly.v1+json", "others")
    assert passed["data"] == {"text/plain": "<left out: application/vnd.plotly.v1+json, others>"}
    assert harmless("display_data", {"data": {}}) == {"data": {}, "metadata": {}, "transient": {}}


def test_notice() -> None:
    said = notice(("text/markdown", "application/pdf"), "a-session")
    assert "text/markdown, application/pdf" in said
    assert "`kernelrepl trust a-session`" in said
    assert len(notice(tuple(f"a/{n}" for n in range(60)), "s")) < 300


def test_reply() -> None:
    page = {"source": "page", "data": {"text/plain": "p", "text/javascript": "x"}, "start": 2, "text": "x"}
    passed = reply(
        {
            "status": "ok",
            "execution_count": 3,
            "payload": [
                page,
                {"source": "set_next_input", "text": "x = 1", "replace": True, "cell_type": "markdown"},
                {"source": "ask_exit", "keepkernel": False},
                {"source": "edit_magic", "filename": "/etc/passwd"},
                {"source": ["page"]},
                "page",
            ],
            "user_expressions": {
                "a": {
                    "status": "ok",
                    "data": {"text/plain": "1", "text/javascript": "x"},
                    "metadata": {"isolated": True},
                },
                "b": {"status": "error", "ename": "E", "evalue": "v", "traceback": ["t"], "x": 1},
            },
            "x": 1,
        }
    )
    assert passed == {
        "status": "ok",
        "execution_count": 3,
        "payload": [
            {"source": "page", "data": {"text/plain": "p"}, "metadata": {}, "start": 2},
            {"source": "set_next_input", "text": "x = 1", "replace": True},
        ],
        "user_expressions": {
            "a": {"status": "ok", "data": {"text/plain": "1"}, "metadata": {}},
            "b": {"status": "error", "ename": "E", "evalue": "v", "traceback": ["t"]},
        },
    }
    failed = {"status": "error", "ename": "E", "evalue": "v", "traceback": ["t"]}
    assert reply({**failed, "x": 1}) == {**failed, "execution_count": None, "payload": [], "user_expressions": {}}


def test_answers() -> None:
    one = {"start": 0, "end": 3, "text": "abs", "type": "function", "signature": "(x)"}
    asked = {
        "status": "ok",
        "matches": ["abs", {"x": 1}],
        "cursor_start": 0,
        "cursor_end": 3,
        "metadata": {"_jupyter_types_experimental": [{**one, "icon": "x"}, "x"], "x": 1},
    }
    passed = answer("complete_reply", asked)
    nothing = {"start": None, "end": None, "text": "", "type": "", "signature": ""}
    assert passed.pop("metadata") == {"_jupyter_types_experimental": [one, nothing]}
    assert passed == {"status": "ok", "matches": ["abs", ""], "cursor_start": 0, "cursor_end": 3}
    ok = {"status": "ok"}
    assert answer("inspect_reply", {**ok, "found": True, "data": {"text/html": "<b onclick=x>b</b>"}})["found"] is True
    assert answer("is_complete_reply", {"status": "incomplete", "indent": "  ", "x": 1}) == {
        "status": "incomplete", "indent": "  "
    }  # fmt: skip
    assert answer("is_complete_reply", {"status": "<b>"}) == {"status": "unknown", "indent": ""}
    entries = [[0, 1, "x"], [0, 2, ["x", None]]]
    assert answer("history_reply", {**ok, "history": entries}) == {**ok, "history": entries}
    assert answer("comm_info_reply", {**ok, "comms": {"c": {"target_name": "x"}}}) == {**ok, "comms": {}}
    assert answer("x_reply", {**ok, "x": 1}) == ok
    assert answer("x_reply", {"status": "aborted", "x": 1})["status"] == "aborted"
    assert answer("inspect_reply", {"status": "<b>"}) == {"status": "error", "ename": "", "evalue": "", "traceback": []}


def test_json_is_bounded() -> None:
    deep: Any = "x"
    for _ in range(50_000):
        deep = [deep]
    wide = {"a": [[n] * 1000 for n in range(1000)], "b": {str(n): float("nan") for n in range(100_000)}}
    for value in (deep, {"a": deep}, wide):
        data, _ = bundle({"application/json": value})
        assert len(json.dumps(data, allow_nan=False)) < 3_000_000
        for kind in ("display_data", "stream", "error", "status", "execute_input", "clear_output"):
            harmless(kind, {"data": value, "text": value, "traceback": value, "metadata": value, "code": value})
        answer("history_reply", {"status": "ok", "history": value})
        reply({"payload": value, "user_expressions": value})
    value = {"a": [1, 2.5, None, True, "<b>", float("nan"), float("inf"), "\ud800"]}
    data = {"application/json": {"a": [1, 2.5, None, True, "<b>", None, None, "?"]}}
    assert bundle({"application/json": value}) == (data, ())


WORDS = [
    "data", "metadata", "transient", "text", "name", "execution_count", "payload", "source", "page", "status",
    "matches", "ok", "error", "traceback", "history", "text/html", "text/plain", "image/png", "application/json",
    "image/svg+xml", "text/markdown", "text/latex", "execution_state", "busy", "_jupyter_types_experimental",
    "display_id", "width", "user_expressions", "set_next_input", "wait", "comms", "<svg", "<b>", PNG,
]  # fmt: skip
TEXT = st.sampled_from(WORDS) | st.text(st.characters(exclude_categories=()), max_size=8)  # surrogates as well
VALUES: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=6),
    max_leaves=20,
)
KINDS = [
    "stream", "execute_result", "display_data", "update_display_data", "clear_output", "error", "execute_input",
    "status", "comm_open", "inspect_reply", "complete_reply", "is_complete_reply", "history_reply", "comm_info_reply",
]  # fmt: skip


@settings(max_examples=400)
@given(kind=st.sampled_from(KINDS) | VALUES, value=VALUES)
def test_any_value_of_json(kind: Any, value: Any) -> None:
    data, taken = bundle(value)
    passed = [harmless(kind, value), answer(kind, value), reply(value), shown(value), data]
    for content in passed:
        json.dumps(content, allow_nan=False, ensure_ascii=False).encode()
    assert all(isinstance(mime, str) for mime in taken)
    assert data.keys() <= {"text/plain", "text/html", "image/png", "application/json"}
    if "text/html" in data:
        read_markup(data["text/html"], picture=True)


def filled(unit: str, size: int = MAX_HTML) -> str:
    return unit * (size // len(unit))


@pytest.mark.parametrize(
    "source",
    [
        "<div>" * 100_000,
        "<div>" * 100_000 + "</div>" * 100_000,
        filled("<b>"),
        filled("<p><b>", MAX_LOOSE_HTML),
        "".join(f"<p><b title={n}></p>" for n in range(100_000)),
        "".join(f"<p><b title={n}></p>" for n in range(MAX_LOOSE_TAGS // 3)),
        "".join(f"<p><b style='color:red;width:{n}px;{'color:red;' * 15}'></p>" for n in range(MAX_LOOSE_TAGS // 3)),
        "<p>" + "".join(f"<b title={n}>" for n in range(10)) + filled("<p>x</p>"),
        "<p>" + "".join(f"<b title={n}{'t' * 400}>" for n in range(25)) + "<p>x</p>" * 45_000 + "</b>" * 25 + "</p>",
        "<div>" * 31 + "<p></p>" * (MAX_TAGS // 2 - 40) + "</div>" * 31,
        "<table>" + "<i>x</i>" * 40_000 + "</table>",
        filled("<table>x</table>", 16 * 50_000),
        "<p " + " ".join(f"a{n}" for n in range(200_000)) + ">x",
        "<p " + " ".join(f"a{n}" for n in range(8000)) + ">x",
        filled("&"),
        filled("& xxxxxxxxxxxxxxxxxx"),
        filled("°xxxxxxxxxxxxxxxxxxx"),
        filled("<"),
        filled("<a"),
        filled("</"),
        filled("<!--"),
        filled("<style>"),
        filled("<style "),
        filled("<style>#T_a{color:red}</style>") + "x",
        "<style>" + filled("#T_a,", MAX_HTML - 40) + "{color:red}</style>x",
        "<style>" + filled("{", MAX_HTML - 40) + "</style>x",
        "<style>#T_a{" + filled(";", MAX_HTML - 40) + "}</style>x",
        f"<p style='{filled('color:linear-gradient(', MAX_HTML - 40)}'>x</p>",
        f"<p class='{filled('a ', MAX_HTML - 40)}'>x</p>",
        "<p" + " " * (MAX_HTML - 40) + ">x</p>",
        "<pre>" + "\n" * (MAX_HTML - 40) + "</pre>",
        "x" * (MAX_HTML + 1),
    ],
    ids=range(32),
)
def test_costs_are_bounded(source: str) -> None:
    start = time.process_time()
    data, _ = bundle({"text/plain": "p", "text/html": source})
    assert time.process_time() - start < 5
    assert sum(map(len, data.values())) < 3 * MAX_HTML
    assert data["text/plain"] == "p"


@pytest.mark.parametrize("unit", ["[x]", "[x][x]\n", "![y][x]"])
@pytest.mark.parametrize(
    "much", ["http://a.example/" + "é" * 9000, "/u '" + "&" * 9000 + "'"], ids=["address", "title"]
)
def test_markdown_does_not_become_much_longer(much: str, unit: str) -> None:
    """By references to one link, each of which has all of it."""
    source = f"[x]: {much}\n\n".ljust(markup.MAX_MARKDOWN, "*")
    source = source.rstrip("*") + filled(unit, source.count("*"))
    assert len(source) > 0.9 * markup.MAX_MARKDOWN
    assert len(markup.html_of(source)) < 20 * markup.MAX_MARKDOWN


def test_references_of_a_text_are_links() -> None:
    source = "[a] and [b][A]\n\n" * 50 + "[a]: https://example.org/" + "x" * 200 + " 'title'"
    assert markup.html_of(source).count('<a href="https://example.org/x') == 100


def test_large_text_is_cut() -> None:
    text = "é" * 5_000_000
    assert bundle({"text/plain": text})[1] == ("text/plain",)
    passed = harmless("stream", {"text": text})
    assert passed is not None
    assert len(passed["text"]) == 4_000_000
    assert bundle({f"a/{n}": 1 for n in range(100_000)})[1][0] == "others"


def test_data_frame() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"a<b": [1, 2], "text": ["<script>alert(1)</script>", "$5 & 6"]}, index=["x", "y"])
    data, taken = bundle({"text/plain": repr(frame), "text/html": frame._repr_html_()})
    assert taken == ()
    reader = read(data["text/html"])
    assert "".join(reader.text).split() == "a<b text x 1 <script>alert(1)</script> y 2 $5 & 6".split()  # noqa: SIM905
    assert '<table border="1" class="dataframe">' in data["text/html"]
    wide = pandas.DataFrame({"a": pandas.Series(range(60)), **{f"c{n}": pandas.Series(range(60)) for n in range(19)}})
    index = pandas.MultiIndex.from_product([["x", "y"], range(30)])
    for frame in (wide, wide.set_index(index), wide.describe(), wide.groupby("a").agg(["min", "max"])):
        data, taken = bundle({"text/html": frame.to_html()})
        assert taken == ()
        assert read(data["text/html"]).text


def test_data_frame_with_links() -> None:
    pandas = pytest.importorskip("pandas")
    links = ["https://example.org/a?b=1&c=2", "javascript:alert(1)", "http://example.org/ü"]
    frame = pandas.DataFrame({"url": [f'<a href="{link}">here</a>' for link in links]})
    data, _ = bundle({"text/html": frame.to_html(escape=False)})
    assert read(data["text/html"]).links == [links[0], links[2]]
    data, _ = bundle({"text/html": pandas.DataFrame({"url": links}).to_html(render_links=True)})
    assert read(data["text/html"]).links == [links[0], links[2]]


def test_styler() -> None:
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("jinja2")
    pytest.importorskip("matplotlib")
    frame = pandas.DataFrame({"a": [1.0, 2.0], "b": [3.0, 4.0]})
    styler = frame.style.background_gradient(subset=["a"]).bar(subset=["b"], color="#5fba7d").set_caption("A caption")
    styler.set_table_styles([
        {"selector": "th.col_heading", "props": [("font-size", "12px"), ("text-align", "center")]},
        {"selector": "tbody tr:hover", "props": "background-color: #ffff99;"},
        {"selector": "td", "props": "position: fixed; color: red"},
    ])  # fmt: skip
    data, taken = bundle({"text/html": styler._repr_html_()})
    assert taken == ()
    reader = read(data["text/html"])
    assert "A caption" in "".join(reader.text)
    for wanted in (
        "background-color: #fff7fb",
        "linear-gradient(90deg, #5fba7d",
        "tbody tr:hover {",
        "th.col_heading {",
    ):
        assert wanted in reader.rules
    for subject in re.findall(r"#(T_\w+_row\d_col\d)", reader.rules):
        assert f'id="{subject}"' in data["text/html"]
    assert " td {color: red}" in reader.rules
    large = pandas.DataFrame([[row + column for column in range(20)] for row in range(900)])
    data, taken = bundle({"text/html": large.style.background_gradient().to_html()})
    assert taken == ()
    assert read(data["text/html"]).rules


def test_rules_meet_no_other_table() -> None:
    def subject(source: str) -> str:
        found = re.search(r"T_\w+", bundle({"text/html": source})[0]["text/html"])
        assert found is not None
        return found[0]

    table = "<p id=T_abc>x</p>"
    assert subject(f"<style>#T_abc {{color: red}}</style>{table}") == subject(table)
    assert subject(table) != subject(f"{table}x")


def test_estimator() -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    data, taken = bundle({"text/html": linear_model.LinearRegression()._repr_html_()})
    assert taken == ("text/html",)
    assert "LinearRegression" in "".join(read(data["text/html"]).text)


def test_matplotlib() -> None:
    figure = pytest.importorskip("matplotlib.figure").Figure()
    figure.subplots().plot([1, 3, 2])
    for form, mime in (("png", "image/png"), ("svg", "image/svg+xml")):
        file = io.BytesIO()
        figure.savefig(file, format=form)
        if form == "png":
            code = base64.b64encode(file.getvalue()).decode()
            assert bundle({"text/plain": "<Figure>", mime: code}) == ({"text/plain": "<Figure>", mime: code}, ())
        else:
            data, taken = bundle({"text/plain": "<Figure>", mime: file.getvalue().decode()})
            assert taken == ()
            read(data["text/html"], picture=True)


def test_a_terminal_gets_colours_and_nothing_else() -> None:
    """A console prints what comes: no title, no clipboard, no questions that the terminal answers as if typed."""
    bad = "\x1b]52;c;ZXZpbA==\x07\x1b]0;title\x07\x1b[6n\x1bPq\x1b\\\x9b6n\x1b[2J\x1b[?1049h"
    good = "\x1b[31mred\x1b[0m \x1b[A\x1b[2K\r50%"
    for kind, content in (
        ("stream", {"name": "stdout", "text": bad + good}),
        ("error", {"ename": bad, "evalue": bad, "traceback": [bad + good]}),
        ("execute_result", {"execution_count": 1, "data": {"text/plain": bad + good}, "metadata": {}}),
    ):
        text = repr(harmless(kind, content))
        assert re.findall(r"\\x1b(?!\[[0-9;]*[AKm])|\\x9b", text) == []
        assert "\\x1b[31mred\\x1b[0m \\x1b[A\\x1b[2K\\r50%" in text

"""Markdown and LaTeX that nobody trusts, as HTML and as formulas that cannot act. Pure.

Renderers of a page take Markdown with raw HTML in it and formulas with macros that make links, load parts and set
styles. So Markdown is made HTML here, which then goes the way of all HTML, and a formula passes if each of its commands
is one of those that only draw.
"""

from __future__ import annotations

import html
import re
from functools import cache
from typing import Any

MAX_MARKDOWN = 20_000
"""Characters that are rendered; parsing them takes some milliseconds, however they are nested."""
MAX_REFERRED = 200_000
"""What links that are written once and referred to anywhere may come to: each reference has all of its address and of
its title in the end, so that a short text could become a thousand times as long."""
MAX_FORMULA = 10_000
MAX_NESTED = 50
"""How deep a formula may be nested, with braces or without: the argument of a command may be the next command."""

_WORDS = """
    alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa varkappa lambda mu nu xi omicron pi
    varpi rho varrho sigma varsigma tau upsilon phi varphi chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Upsilon
    Phi Psi Omega aleph beth hbar hslash ell imath jmath wp Re Im partial infty prime nabla surd top bot angle
    triangle forall exists nexists neg lnot flat natural sharp clubsuit diamondsuit heartsuit spadesuit emptyset
    varnothing backslash degree dagger ddagger S P copyright pounds checkmark square blacksquare lozenge star bigstar
    pm mp times div cdot ast circ bullet cap cup sqcap sqcup vee wedge lor land setminus oplus ominus otimes oslash
    odot uplus amalg wr diamond triangleleft triangleright bigtriangleup bigtriangledown leq le geq ge neq ne equiv
    sim simeq approx cong propto asymp doteq prec succ preceq succeq subset supset subseteq supseteq nsubseteq
    subsetneq in notin ni perp parallel mid nmid models vdash dashv bowtie ll gg lll ggg lesssim gtrsim leqslant
    geqslant not coloneqq triangleq leftarrow gets rightarrow to Leftarrow Rightarrow leftrightarrow Leftrightarrow
    iff implies impliedby mapsto uparrow downarrow updownarrow Uparrow Downarrow longleftarrow longrightarrow
    Longleftarrow Longrightarrow longleftrightarrow Longleftrightarrow longmapsto hookleftarrow hookrightarrow nearrow
    searrow swarrow nwarrow rightharpoonup rightleftharpoons leadsto xrightarrow xleftarrow ldots cdots vdots ddots
    dots dotsc dotsb dotsm dotsi sum prod coprod int iint iiint oint bigcap bigcup bigvee bigwedge bigoplus bigotimes
    bigsqcup limits nolimits arccos arcsin arctan arg cos cosh cot coth csc deg det dim exp gcd hom inf ker lg lim
    liminf limsup ln log max min Pr sec sin sinh sup tan tanh operatorname bmod pmod mod argmax argmin frac dfrac
    tfrac cfrac binom dbinom tbinom choose over atop sqrt root of stackrel overset underset substack hat widehat tilde
    widetilde bar vec dot ddot dddot acute grave breve check mathring overline underline overbrace underbrace
    overrightarrow overleftarrow boxed cancel bcancel xcancel left right middle big Big bigg Bigg bigl bigr Bigl Bigr
    biggl biggr Biggl Biggr lbrace rbrace langle rangle lfloor rfloor lceil rceil lvert rvert lVert rVert vert Vert
    lbrack rbrack lgroup rgroup mathrm mathbf mathit mathsf mathtt mathcal mathfrak mathbb mathscr boldsymbol bm pmb
    rm bf it sf tt cal text textrm textbf textit textsf texttt mbox displaystyle textstyle scriptstyle
    scriptscriptstyle tiny small normalsize large Large quad qquad enspace thinspace medspace thickspace nonumber
    notag hline mathbin mathrel mathop mathord mathopen mathclose bra ket braket
"""
_DRAW = frozenset(_WORDS.split())
"""Commands that draw letters, signs, and one thing over, under or beside another."""
_ENVIRONMENTS = (
    "equation|align|aligned|alignat|gather|gathered|multline|split|cases|array|matrix|pmatrix|bmatrix|Bmatrix|vmatrix"
    "|Vmatrix|smallmatrix"
)
_TOKEN = re.compile(
    rf"\\(?:begin|end)\{{(?:{_ENVIRONMENTS})\*?\}}|\\(?:text)?color\{{[a-zA-Z]{{1,20}}\}}|\\([a-zA-Z]+)"
    r"|\\[\\,;:!>|{}%$#&_ ()\[\]]|[^\\%#^]|\^(?!\^)"
)
_COMMAND = re.compile(r"\\[a-zA-Z]")
_DEPTH = {"{": 1, "}": -1, r"\left": 1, r"\right": -1, r"\begin": 1, r"\end": -1}
_PROCESS = ' class="tex2jax_process mathjax_process"'
FORMULA = "math"
"""The class of elements that hold formulas; none has it in the end."""
_MATH = re.compile(rf'<(span|div) class="{FORMULA}">([^<>]*)</\1>')
_LEFT = re.compile(rf'(<[^<>]*) class="{FORMULA}"')


def only_draws(formula: str) -> bool:
    """Whether a text in TeX has no command but such as draw within their own bounds."""
    if len(formula) > MAX_FORMULA:
        return False
    at = depth = row = 0
    while at < len(formula):
        token = _TOKEN.match(formula, at)
        if token is None or (token[1] is not None and token[1] not in _DRAW):
            return False
        depth += _DEPTH.get(token[0].partition("{")[0] or token[0], 0)
        if not token[0].isspace():
            row = row + 1 if _COMMAND.match(token[0]) else 0
        if not 0 <= depth <= MAX_NESTED or row > MAX_NESTED:
            return False
        at = token.end()
    return depth == 0


def html_of(markdown: str) -> str:
    """Return Markdown as HTML, which may hold whatever HTML can; nothing for more than is rendered."""
    return str(_renderer()(markdown)) if len(markdown) <= MAX_MARKDOWN else ""


def with_formulas(body: str) -> str:
    """In HTML that is passive already, have MathJax draw what does no more than that."""

    def formula(found: re.Match[str]) -> str:
        classes = _PROCESS if only_draws(html.unescape(found[2])) else ""
        return f"<{found[1]}{classes}>{found[2]}</{found[1]}>"

    return _LEFT.sub(r"\1", _MATH.sub(formula, body))


def html_of_latex(source: str) -> str:
    """Return LaTeX as HTML for `with_formulas`; nothing for what does more than draw."""
    return f'<div class="{FORMULA}">{html.escape(source, quote=False)}</div>' if only_draws(source) else ""


@cache
def _renderer() -> Any:
    import mistune

    renderer = mistune.create_markdown(escape=False, plugins=["math", "strikethrough", "table", "task_lists"])
    renderer.before_render_hooks.append(_bound_references)
    return renderer


def _bound_references(renderer: Any, state: Any) -> None:
    """Take references to links as text where they could come to more than they may."""
    links = state.env["ref_links"]
    longest = max((len(link["url"]) + len(link.get("title") or "") for link in links.values()), default=0)
    if longest * state.src.count("[") > MAX_REFERRED:
        links.clear()

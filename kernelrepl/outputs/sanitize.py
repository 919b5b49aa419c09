"""Of a kernel's messages, what cannot act in the page of the person who reads them.

JupyterLab trusts the outputs of cells that its user runs. A script in one runs with the person's token, which opens
terminals: the way out for code that the sandbox holds. So nothing of a session that nobody trusts goes to a notebook as
the kernel made it: messages are built anew from fields known to be passive, and all else is left out. The input is
hostile: no value of JSON raises, and the work is linear in its size, and bounded.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import html
import math
import re
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from itertools import islice
from typing import Any

from kernelrepl.outputs import forms, markup
from kernelrepl.outputs.links import leads_out
from kernelrepl.outputs.terminal_text import coloured

MAX_TEXT, MAX_HTML, MAX_PICTURE = 4_000_000, 2 << 20, 24_000_000
MAX_LOOSE_HTML, MAX_LOOSE_TAGS, MAX_TAGS, MAX_SQUARE = 1 << 16, 1000, 100_000, 10**10
MAX_ITEMS, MAX_TYPES, MAX_DEPTH = 10_000, 64, 32

_MAGIC = {
    "image/png": rb"\x89PNG\r\n\x1a\n", "image/jpeg": rb"\xff\xd8\xff", "image/gif": rb"GIF8[79]a",
    "image/webp": rb"(?s)RIFF.{4}WEBP",
}  # fmt: skip
_MIME = re.compile(r"[\w.+-]{1,60}/[\w.+-]{1,60}", re.ASCII)

Check = Callable[[Any], Any]
"""Makes of any value one that may pass."""


def harmless(kind: str, content: Mapping[str, Any]) -> dict[str, Any] | None:
    """Of an iopub message (its type and content) what cannot act; None if nothing of it may pass.

    Comms may not: they are how a kernel talks to scripts. Nor may any state but that of its own work: whether a kernel
    lives is not for itself to say.
    """
    content = _mapping(content)
    match kind:
        case "execute_result":
            return {"execution_count": _count(content.get("execution_count")), **shown(content)[0]}
        case "display_data" | "update_display_data":
            return shown(content)[0]
        case "status" if content.get("execution_state") not in _STATES:
            return None
        case "stream" | "clear_output" | "error" | "execute_input" | "status":
            return _MESSAGES[kind](content)
    return None


def shown(content: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Of what a kernel shows: data, metadata and transient that cannot act; and the types that were taken out.

    If no data remain, a line says what was there: a reader should not see nothing.
    """
    content = _mapping(content)
    data, taken = bundle(_mapping(content.get("data")))
    if taken and not data:
        data = {"text/plain": f"<left out: {', '.join(taken[:8])}>"}
    metadata = _mapping(content.get("metadata"))
    sizes = {mime: found for mime in data if (found := _size(_mapping(metadata.get(mime))))}
    display = _text(_mapping(content.get("transient")).get("display_id"))
    return {"data": data, "metadata": sizes, "transient": {"display_id": display} if display else {}}, taken


def bundle(data: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Of a MIME bundle what cannot act, and the types that were taken out, wholly or in part.

    Markdown and LaTeX become HTML (`markup`); their source, where they are long or a formula does more than draw. SVG
    becomes an `<img>`: a browser neither runs scripts of a picture nor loads what it refers to, in any client.
    """
    data = _mapping(data)
    given = dict(islice(data.items(), MAX_TYPES))
    kept: dict[str, Any] = {}
    taken = ["others"] if len(data) > len(given) else []
    for mime, value in given.items():
        found, whole = _passive(mime, value)
        if found is not None:
            kept[mime] = found
        if not whole:
            taken.append(mime)
    if kept.keys() <= {"text/plain"}:
        svg, markdown, latex = (_source(given.get(mime)) for mime in ("image/svg+xml", "text/markdown", "text/latex"))
        if "<svg" in svg and len(svg) <= MAX_HTML:
            code = base64.b64encode(svg.encode()).decode()
            kept["text/html"] = _FRAME.format(f'<img alt="" src="data:image/svg+xml;base64,{code}">')
            taken.remove("image/svg+xml")
        elif (source := markdown or latex) and forms.ONLY_A_NAME.fullmatch(kept.get("text/plain", "")):
            found, whole = _html(markup.html_of(markdown) if markdown else markup.html_of_latex(latex))
            if whole:
                taken.remove("text/markdown" if markdown else "text/latex")
            kept["text/html"] = found or _FRAME.format(_SOURCE.format(html.escape(source[:MAX_HTML])))
    return kept, tuple(dict.fromkeys(mime if _MIME.fullmatch(mime) else "others" for mime in taken))


def notice(taken: tuple[str, ...], session_id: str) -> str:
    """One sentence for a person: what was left out, and the remedy."""
    return (
        f"Left out because it could act in this page: {', '.join(taken[:8])}{' and more' if taken[8:] else ''}; run "
        f"`kernelrepl trust {session_id}` in a terminal if you trust what this session computes."
    )


def reply(content: Mapping[str, Any]) -> dict[str, Any]:
    """Of an execute_reply what cannot act: no payload that ends the client, or has it open a file."""
    return {**answer("execute_reply", content), **_REPLY(content)}


def answer(kind: str, content: Mapping[str, Any]) -> dict[str, Any]:
    """Of a reply to another request what cannot act: a kernel writes what Lab shows as help and as completions."""
    failed = _mapping(content).get("status") != "ok" and kind != "is_complete_reply"
    return (_FAILED if failed else _ANSWERS.get(_text(kind), _STATUS))(content)


def _passive(mime: str, value: Any) -> tuple[Any, bool]:
    """What of one representation may pass, and whether that is all of it."""
    source = _source(value)
    if mime == "application/json" and isinstance(value, dict | list):
        return _tree(value), True  # Lab's tree makes text of all of it
    if mime == "text/plain" and isinstance(value, str | list):
        return _text(source), len(source) <= MAX_TEXT
    if mime == "text/html" and len(source) <= MAX_HTML:
        return _html(source)
    if mime in _MAGIC and len(source) <= MAX_PICTURE:
        code = "".join(source.split())
        try:
            passes = re.match(_MAGIC[mime], binascii.a2b_base64(code, strict_mode=True))
        except ValueError:
            passes = None
        return (code, True) if passes else (None, False)
    return None, False


def _mapping(value: Any) -> Mapping[Any, Any]:
    return value if isinstance(value, Mapping) else {}


def _text(value: Any) -> str:
    """A console shows what a session prints as it comes: it gets colours, and bars redrawn."""
    return coloured(value[:MAX_TEXT]) if isinstance(value, str) else ""


def _source(value: Any) -> str:
    """The text of a representation, which nbformat may hold as a list of lines."""
    if isinstance(value, list) and all(isinstance(line, str) for line in value):
        value = "".join(value)
    return value.encode(errors="replace").decode() if isinstance(value, str) else ""


def _tree(value: Any, depth: int = 0, left: list[int] | None = None) -> Any:
    """JSON without what is not JSON, and not endless."""
    left = [10 * MAX_ITEMS] if left is None else left
    left[0] -= 1
    if depth > MAX_DEPTH or left[0] < 0:
        return "..."
    if isinstance(value, dict):
        return {_text(name): _tree(one, depth + 1, left) for name, one in islice(value.items(), MAX_ITEMS)}
    if isinstance(value, list):
        return [_tree(one, depth + 1, left) for one in value[:MAX_ITEMS]]
    if isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    return _text(value) if isinstance(value, str) else None


def _count(value: Any) -> int | None:
    return value if type(value) is int and 0 <= value < 1 << 53 else None


def _size(metadata: Mapping[Any, Any]) -> dict[str, Any]:
    """How large a picture is to be, and on what; whether a tree is open. Not `isolated`, which makes a page of it."""
    named = {name: metadata.get(name) for name in ("width", "height", "needs_background", "expanded")}
    return {
        name: value
        for name, value in named.items()
        if (isinstance(value, int | float) and 0 < value < 10_000) or value in ("light", "dark")
    }


def _one_of(*words: Any) -> Check:
    return lambda value: words[words.index(value)] if value in words else words[-1]


def _each(check: Check) -> Check:
    return lambda value: [check(one) for one in value[:MAX_ITEMS]] if isinstance(value, list) else []


def _record(**fields: Check) -> Callable[[Any], dict[str, Any]]:
    return lambda value: {name: check(_mapping(value).get(name)) for name, check in fields.items()}


def _expressions(value: Any) -> dict[str, Any]:
    return {_text(name): answer("user_expression", one) for name, one in islice(_mapping(value).items(), MAX_TYPES)}


def _payloads(value: Any) -> list[Any]:
    known = ((_PAYLOADS.get(_text(one.get("source"))), one) for one in _each(_mapping)(value)[:MAX_TYPES])
    return [check(one) for check, one in known if check]


_FLAG = _one_of(True, False)
_OK, _STATES = _one_of("ok"), ("busy", "idle", "starting")
_SHOWN: dict[str, Check] = {"data": lambda value: bundle(value)[0], "metadata": _record()}
_TRACE: dict[str, Check] = {"ename": _text, "evalue": _text, "traceback": _each(_text)}
_MESSAGES = {
    "stream": _record(name=_one_of("stderr", "stdout"), text=_text),
    "clear_output": _record(wait=_FLAG),
    "error": _record(**_TRACE),
    "execute_input": _record(code=_text, execution_count=_count),
    "status": _record(execution_state=_one_of(*_STATES)),
}
_STATUS = _record(status=_OK)
_FAILED = _record(status=_one_of("aborted", "error"), **_TRACE)
_PAYLOADS = {
    "page": _record(source=_one_of("page"), start=_count, **_SHOWN),
    "set_next_input": _record(source=_one_of("set_next_input"), text=_text, replace=_FLAG),
}
_REPLY = _record(execution_count=_count, user_expressions=_expressions, payload=_payloads)
_COMPLETION = _record(start=_count, end=_count, text=_text, type=_text, signature=_text)
_COMPLETIONS = _record(_jupyter_types_experimental=_each(_COMPLETION))
_ANSWERS = {
    "user_expression": _record(status=_OK, **_SHOWN),
    "inspect_reply": _record(status=_OK, found=_FLAG, **_SHOWN),
    "complete_reply": _record(
        status=_OK, matches=_each(_text), cursor_start=_count, cursor_end=_count, metadata=_COMPLETIONS
    ),
    "is_complete_reply": _record(status=_one_of("complete", "incomplete", "invalid", "unknown"), indent=_text),
    "history_reply": _record(status=_OK, history=_each(_tree)),
    "comm_info_reply": _record(status=_OK, comms=_record()),
}


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_INLINE = _names("a abbr b code del em i ins kbd mark q s samp small span strike strong sub sup tt u var")
_VOID = _names("br col hr img wbr")
_BLOCKS = _names(
    "blockquote caption colgroup dd details div dl dt figcaption figure h1 h2 h3 h4 h5 h6 li ol p pre summary table "
    "tbody td tfoot th thead tr ul"
)
_ELEMENTS = _INLINE | _VOID | _BLOCKS
# What goes with all that is in it: it is not text, or parsers do not agree on what it is.
_GONE = _names(
    "applet audio canvas embed frameset iframe math noembed noframes noscript object plaintext script select style svg "
    "template textarea title video xmp"
)
_ACTIVE = re.compile(rf"<(?:{'|'.join(_GONE)}|button|form|input|link)\b", re.IGNORECASE)
_CELL = {"rowspan", "colspan", "scope"}
_ATTRIBUTES = {
    "*": {"class", "id", "style", "title"}, "a": {"href"}, "img": {"src", "alt", "width", "height"}, "td": _CELL,
    "th": _CELL, "table": {"border"}, "ol": {"start"}, "details": {"open"},
}  # fmt: skip
_VALUES = {
    "src": re.compile(r"data:image/(?:png|jpeg|gif|webp);base64,[A-Za-z0-9+/]+={0,2}"),
    # An id is a name for the page's scripts, so only those of pandas' Styler, which its rules need.
    "id": re.compile(r"T_[A-Za-z0-9_-]{1,100}"),
    "scope": re.compile("(?:col|row)(?:group)?"),
    **{name: re.compile(value) for name, value in (("rel", "noopener noreferrer"), ("target", "_blank"))},
    **{name: re.compile(value) for name, value in (("open", "(?:open)?"), ("class", markup.FORMULA))},
    **dict.fromkeys(("title", "alt"), re.compile(r"[^<>]{0,500}")),
}
_NUMBER = re.compile(r"[0-9]{1,4}%?")
# Not Lab's own: with those something looks like its buttons, and `mathjax_process` undoes the frame.
_CLASS = re.compile(
    r"dataframe|(?:row|col|level)[0-9]{1,7}|data|blank|(?:row|col)_(?:heading|trim)|index_name|(?:tex2jax|mathjax)_ignore"
)
# MathJax passes over what is in it, but for formulas that only draw. And nothing in it paints outside of it.
_FRAME = '<div class="tex2jax_ignore mathjax_ignore" style="contain: content; overflow: auto">{}</div>'

_SOURCE = '<pre style="white-space: pre-wrap">{}</pre>'
_STYLE = re.compile(r"<style\b[^<>]{0,200}>", re.IGNORECASE)
_PROPERTY = re.compile(
    r"background(-color)?|border(-(top|right|bottom|left))?(-(color|style|width))?|border-(collapse|radius|spacing)"
    r"|caption-side|color|contain|display|font-(family|size|style|variant|weight)|line-height|list-style-type"
    r"|(margin|padding)(-(top|right|bottom|left))?|((max|min)-)?(width|height)|opacity|overflow(-wrap)?"
    r"|text-(align|decoration|transform)|vertical-align|white-space|word-break"
)
_FUNCTION = re.compile(r"\b(?:(?:rgb|hsl)a?|linear-gradient)\([0-9a-z%#., -]{0,300}\)", re.IGNORECASE)
_PLAIN = re.compile(r"(?:[0-9a-z%#., ]|(?<=[a-z])-(?=[a-z])){1,200}", re.IGNORECASE)  # nothing negative: it overlaps
_SUBJECT = re.compile(r"#T_[\w-]{1,100}(?::hover)?", re.ASCII)
_WITHIN = re.compile(
    r">|(?=[a-z.])[a-z0-9]{0,10}(?:\.[a-z][\w-]{0,40}){0,4}(?::hover|:(?:first|last)-child|:nth-child\((?:odd|even)\))?",
    re.ASCII | re.IGNORECASE,
)
_ESCAPED = re.compile("[&\x80-\xbf]")
_TAG = re.compile(
    r"<(?P<end>/?)(?P<name>[a-zA-Z][a-zA-Z0-9]{0,15}+)"
    r"(?:\s++[a-zA-Z][\w:.-]*+(?:\s*+=\s*+(?:\"[^\"<>]*+\"|'[^'<>]*+'|[^\s\"'<>=`]++))?+){0,16}+\s*+/?>",
    re.ASCII,
)


def _html(source: str) -> tuple[str | None, bool]:
    """HTML without anything that runs, loads, or reaches outside of its frame.

    What passes is a fixed point: parsed again, it is what the sanitizer wrote. So no second reading of it was hidden
    in what came, as mutations of HTML do; and as it is nested, nothing in it ends the frame.
    """
    parts = [part.partition("</style>") for part in _STYLE.split(f"</style>{source}")]
    source = "".join(rest for _, _, rest in parts)
    if not _bounded(source):
        return None, False
    body = _clean(source)
    for _ in range(2):
        if not _bounded(body):
            return None, False
        if _clean(framed := _FRAME.format(body)) == framed:
            break
        body = _clean(body)
    else:
        return None, False
    pictures = body.count("<img")
    if not pictures and not re.sub(r"<[^<>]*>", "", body).strip():
        return None, False
    whole = not _ACTIVE.search(source) and pictures == body.count(' src="data:image/')
    own = f"T_{hashlib.sha256(source.encode()).hexdigest()[:16]}_"  # so that its rules meet no table but its own
    rules = _rules(rules for rules, _, _ in parts).replace("#T_", f"#{own}")
    return rules + markup.with_formulas(framed.replace(' id="T_', f' id="{own}')), whole


def _bounded(source: str) -> bool:
    """Whether a parser of HTML has little more to do than to read this.

    Elements left open are what it looks through at each tag, or opens again in each block: a square of work, and of
    output. So HTML is small, or nested in a way that leaves nothing to mend. And what html5ever writes escaped costs
    it a search through the text: that is a square as well.
    """
    tags = source.count("<")
    if tags <= MAX_LOOSE_TAGS and len(source) <= MAX_LOOSE_HTML:
        return True
    if tags > MAX_TAGS or sum(len(part) * len(_ESCAPED.findall(part)) for part in source.split("<")) > MAX_SQUARE:
        return False
    inside: list[str] = []
    for tag in _TAG.finditer(source):
        tags -= 1
        name, parent = tag["name"].lower(), inside[-1] if inside else "div"
        if tag["end"]:
            if not inside or inside.pop() != name:
                return False
        elif name not in _ELEMENTS or (parent in _INLINE and name not in _INLINE | _VOID) or len(inside) == MAX_DEPTH:
            return False
        elif name not in _VOID:
            inside.append(name)
    return not tags


def _clean(source: str) -> str:
    import nh3

    return nh3.clean(
        source,
        tags=_ELEMENTS,
        clean_content_tags=_GONE,
        attributes=_ATTRIBUTES,
        attribute_filter=_attribute,
        url_schemes={"http", "https", "mailto", "data"},
        set_tag_attribute_values={"a": {"target": "_blank"}},
    )


def _attribute(element: str, name: str, value: str) -> str | None:
    if name == "class" and value != markup.FORMULA:
        return " ".join(filter(_CLASS.fullmatch, value.split(maxsplit=9)[:9])) or None
    if name == "style":
        return _style(value[:500]) or None
    if name == "href":
        return value if leads_out(value) else None
    return value if _VALUES.get(name, _NUMBER).fullmatch(value) else None


def _rules(sheets: Iterable[str]) -> str:
    """The rules for what is in the tables of pandas' Styler, written anew of what needs no parser to be understood."""
    kept = []
    for rule in (rule for sheet in sheets for rule in sheet.split("}")):
        heads, _, declarations = rule.partition("{")
        selectors = [head.split() or [""] for head in heads.split(",")]
        fit = (_SUBJECT.fullmatch(first) and all(map(_WITHIN.fullmatch, rest)) for first, *rest in selectors)
        if all(fit) and (style := _style(declarations[:500])):
            kept.append(f"{', '.join(map(' '.join, selectors))} {{{style}}}\n")
    return f"<style>{''.join(kept)}</style>" if kept else ""


@lru_cache(MAX_LOOSE_TAGS)
def _style(declarations: str) -> str:
    """What colours, spaces and aligns. Nothing that loads, or moves something over what is not its own."""
    kept = []
    for declaration in declarations.split(";"):
        name, _, value = (" ".join(part.split()) for part in declaration.partition(":"))
        if _PROPERTY.fullmatch(name) and _PLAIN.fullmatch(_FUNCTION.sub("0", _FUNCTION.sub("0", value))):
            kept.append(f"{name}: {value}")
    return "; ".join(kept)

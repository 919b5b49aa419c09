"""Settings of libraries that many sessions use. Runs in the kernel.

Each table is read and written only while its library is loaded.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

from kernelrepl.guest.settings.options_table import Options, detached, remembered

_OF_THE_KERNEL = ("backend", "interactive", "figure.hooks", "webagg.", "toolbar")
"""Settings of matplotlib that belong to the process which draws."""


def _library(name: str) -> Any:
    return sys.modules[name]


_defaults: dict[str, Any] = {}
"""Those of matplotlib: lists in its own are those of the settings, too."""


def _matplotlib() -> dict[str, Any]:
    library = _library("matplotlib")
    if not _defaults:
        _defaults.update(detached(library.rcParamsDefault))
    defaults, now = _defaults, library.rcParams
    return {
        name: value
        for name, value in dict.items(now)
        if dict.get(defaults, name) != value and not name.startswith(_OF_THE_KERNEL)
    }


def _rc_params() -> dict[Any, Any]:
    now: dict[Any, Any] = _library("matplotlib").rcParams
    return now


def _given_matplotlib() -> dict[str, Any]:
    _matplotlib()
    return {}


def _set_matplotlib(key: str, value: Any) -> None:
    matplotlib = _library("matplotlib")
    matplotlib.rcParams[key] = value


def _drawing() -> dict[str, Any]:
    """Whether figures are shown by themselves (`plt.ioff()`), once something has been drawn."""
    return {"interactive": _library("matplotlib").is_interactive()}


def _set_drawing(key: str, value: bool) -> None:
    matplotlib = _library("matplotlib")
    matplotlib.interactive(value)


def _open_figures() -> dict[int, Any]:
    """What waits to be shown where nothing is shown by itself; pyplot may be all that leads to it."""
    managers = _library("matplotlib._pylab_helpers").Gcf.figs
    matplotlib = _library("matplotlib")
    if not managers or matplotlib.is_interactive() or "inline" not in matplotlib.get_backend():
        return {}
    return {number: manager.canvas.figure for number, manager in managers.items()}


def _keep_open(number: int, figure: Any) -> None:
    """Loading has opened it, under the next number, and to be shown by the next cell."""
    managers = _library("matplotlib._pylab_helpers").Gcf.figs
    manager = figure.canvas.manager
    if manager is not None and managers.get(manager.num) is manager and number not in managers:
        del managers[manager.num]
        manager.num = number
        managers[number] = manager
    inline = sys.modules.get("matplotlib_inline.backend_inline")
    if inline is not None and figure in inline.show._to_draw:
        inline.show._to_draw.remove(figure)
        inline.show._draw_called = bool(inline.show._to_draw)


def _pandas() -> dict[str, Any]:
    config = _library("pandas._config.config")
    found = {}
    for name, option in config._registered_options.items():
        value: Any = config._global_config
        for part in name.split("."):
            value = value[part]
        if value is not option.defval and value != option.defval:
            found[name] = value
    return found


def _set_pandas(key: str, value: Any) -> None:
    pandas = _library("pandas")
    pandas.set_option(key, value)


def _numpy() -> dict[str, Any]:
    numpy = _library("numpy")
    return {
        **numpy.get_printoptions(),
        "err": numpy.geterr(),
        "errcall": numpy.geterrcall(),
        "bufsize": numpy.getbufsize(),
    }


def _set_numpy(key: str, value: Any) -> None:
    numpy = _library("numpy")
    if key == "err":
        numpy.seterr(**value)
    elif key == "errcall":
        numpy.seterrcall(value)
    elif key == "bufsize":
        numpy.setbufsize(value)
    else:
        numpy.set_printoptions(**{key: value})


def _given_numpy() -> dict[str, Any]:
    return {
        "edgeitems": 3, "threshold": 1000, "floatmode": "maxprec", "precision": 8, "suppress": False, "linewidth": 75,
        "nanstr": "nan", "infstr": "inf", "sign": "-", "formatter": None, "legacy": False, "override_repr": None,
        "err": {"divide": "warn", "over": "warn", "under": "ignore", "invalid": "warn"},
        "errcall": None, "bufsize": 8192,
    }  # fmt: skip


def _sklearn() -> dict[str, Any]:
    found: dict[str, Any] = _library("sklearn").get_config()
    return found


def _set_sklearn(key: str, value: Any) -> None:
    sklearn = _library("sklearn")
    sklearn.set_config(**{key: value})


def _given_sklearn() -> dict[str, Any]:
    return dict(_library("sklearn._config")._global_config)


def _plotly() -> dict[str, Any]:
    library = _library("plotly.io")
    found = {"templates.default": library.templates.default, "renderers.default": library.renderers.default}
    defaults = getattr(sys.modules.get("plotly.express"), "defaults", None)
    for name in getattr(defaults, "__slots__", ()):
        found[f"express.{name}"] = getattr(defaults, name)
    return found


def _set_plotly(key: str, value: Any) -> None:
    where, _, name = key.partition(".")
    library = importlib.import_module("plotly.express" if where == "express" else "plotly.io")
    setattr(library.defaults if where == "express" else getattr(library, where), name, value)


def _xarray() -> dict[str, Any]:
    return dict(_library("xarray.core.options").OPTIONS)


def _set_xarray(key: str, value: Any) -> None:
    xarray = _library("xarray")
    xarray.set_options(**{key: value})


def _networkx() -> dict[str, Any]:
    found: dict[str, Any] = _plain_config(_library("networkx").config)
    return found


def _plain_config(config: Any) -> Any:
    """What a configuration of networkx says: it holds others, and lists that may be changed in place."""
    if not isinstance(config, _library("networkx").utils.configs.Config):
        return detached(config)
    return {key: _plain_config(value) for key, value in config.items()}


def _set_networkx(key: str, value: Any) -> None:
    _set_config(_library("networkx").config, key, value)


def _set_config(config: Any, key: str, value: Any) -> None:
    there = config[key]
    if isinstance(value, dict) and not isinstance(there, dict):
        for name, one in value.items():
            _set_config(there, name, one)
    else:
        config[key] = value


def _polars() -> dict[str, Any]:
    return {"Config": _library("polars").Config.save()}


def _set_polars(key: str, value: Any) -> None:
    polars = _library("polars")
    polars.Config.load(value)


def _sympy() -> dict[str, Any]:
    printing = _library("sympy.printing.printer").Printer._global_settings
    return {**printing, "unicode": bool(_library("sympy.printing.pretty.pretty_symbology")._use_unicode)}


def _set_sympy(key: str, value: Any) -> None:
    sympy = _library("sympy")
    if key == "unicode":
        sympy.pprint_use_unicode(value)
    else:
        sympy.printing.printer.Printer.set_global_settings(**{key: value})


def _tqdm() -> dict[str, Any]:
    return {"pandas": "progress_apply" in vars(_library("pandas").DataFrame)}


def _set_tqdm(key: str, value: Any) -> None:
    _library("tqdm.std").tqdm.pandas()


LIBRARIES = (
    Options("matplotlib", "matplotlib", remembered(_rc_params, _matplotlib), _set_matplotlib, _given_matplotlib),
    Options("figures", "matplotlib_inline.backend_inline", _drawing, _set_drawing, dict),
    Options("open figure", "matplotlib._pylab_helpers", _open_figures, _keep_open, dict),
    Options(
        "pandas",
        "pandas._config.config",
        remembered(lambda: _library("pandas._config.config")._global_config, _pandas),
        _set_pandas,
        dict,
    ),
    Options("numpy", "numpy", _numpy, _set_numpy, _given_numpy),
    Options("sklearn", "sklearn._config", _sklearn, _set_sklearn, _given_sklearn),
    Options("plotly", "plotly.io", _plotly, _set_plotly),
    Options("xarray", "xarray.core.options", _xarray, _set_xarray),
    Options("networkx", "networkx", _networkx, _set_networkx),
    Options("polars", "polars", _polars, _set_polars),
    Options("sympy", "sympy.printing.pretty.pretty_symbology", _sympy, _set_sympy),
    Options("tqdm", "tqdm.std", _tqdm, _set_tqdm, lambda: {"pandas": False}),
)

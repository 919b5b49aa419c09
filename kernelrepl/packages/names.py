"""This module guesses which package somebody means whose name an index does not have."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

from packaging.utils import canonicalize_name

_MOST = 3
_ALIKE = 0.8
_NOT_FOUND = re.compile(r"(?:^|\W)([A-Za-z0-9][A-Za-z0-9._-]*) was not found in the ")
_NO_WHEEL = re.compile(r"wheel|distribution|pre-built", re.IGNORECASE)
_OF_MODULES = {
    "attr": "attrs", "bs4": "beautifulsoup4", "crypto": "pycryptodome", "cv2": "opencv-python-headless",
    "dateutil": "python-dateutil", "docx": "python-docx", "dotenv": "python-dotenv", "faiss": "faiss-cpu",
    "fitz": "pymupdf", "git": "gitpython", "igraph": "python-igraph", "jose": "python-jose", "jwt": "pyjwt",
    "kafka": "kafka-python", "magic": "python-magic", "mpl-toolkits": "matplotlib", "multipart": "python-multipart",
    "mysqldb": "mysqlclient", "nacl": "pynacl", "opencv": "opencv-python-headless", "openssl": "pyopenssl",
    "osgeo": "gdal", "pil": "pillow", "pkg-resources": "setuptools", "pptx": "python-pptx",
    "psycopg2": "psycopg2-binary", "pywt": "pywavelets", "serial": "pyserial", "skimage": "scikit-image",
    "sklearn": "scikit-learn", "slugify": "python-slugify", "snappy": "python-snappy", "umap": "umap-learn",
    "usb": "pyusb", "websocket": "websocket-client", "yaml": "pyyaml", "zmq": "pyzmq",
}  # fmt: skip
"""Modules, as their names would be written for an index, that a package of another name brings."""
_WELL_KNOWN = """
aiofiles aiohttp altair anthropic anyio arrow astropy attrs autograd babel beautifulsoup4 biopython bokeh boto3
bottleneck cartopy catboost category-encoders celery chardet charset-normalizer click cloudpickle contourpy
cryptography cvxpy cython dash dask datasets datashader deap distributed dill django docutils duckdb ebooklib einops
emoji fastapi fastparquet fiona filelock flask folium fonttools fsspec fuzzywuzzy gensim geopandas geopy gitpython
graphviz gradio gymnasium h5py holoviews httpx huggingface-hub hvplot hypothesis imageio imbalanced-learn ipywidgets
jax jinja2 joblib jsonschema kaleido keras kiwisolver librosa lifelines lightgbm lightning llvmlite lxml markdown
matplotlib mlflow mpmath msgpack networkx nltk numba numexpr numpy openai opencv-python-headless openpyxl optuna
orjson osmnx packaging pandas pandera patsy pdfplumber peewee pillow pint plotly plotnine polars prophet protobuf
psutil psycopg2-binary pyarrow pydantic pydot pygments pymc pymongo pymupdf pynacl pypdf pyproj pyserial
python-dateutil python-docx python-dotenv python-pptx pytest pytz pywavelets pyyaml pyzmq rapidfuzz rasterio redis
regex requests rich ruptures safetensors scapy scikit-image scikit-learn scipy scrapy seaborn selenium
sentence-transformers sentencepiece shap shapely simpy spacy sqlalchemy sqlmodel statsmodels streamlit sympy tables
tabulate tenacity tensorboard tensorflow textblob threadpoolctl tiktoken tokenizers toolz torch torchaudio torchvision
tornado tqdm transformers typer ujson umap-learn uvicorn vega-datasets wordcloud xarray xgboost xlrd xlsxwriter
xmltodict yfinance zarr
"""


def suggestion(said: str, asked: Iterable[str]) -> str:
    """Return what to add to the reason of an installer: names that may be meant; empty if nothing is like them.

    said: the reason. asked: the names of the packages that were asked for.
    """
    unknown = _NOT_FOUND.findall(said)
    if not unknown and _NO_WHEEL.search(said):  # somebody has put a package without wheels there, to say the same
        unknown = [name for name in asked if canonicalize_name(name) in _OF_MODULES]
    meant = list(dict.fromkeys(close for name in unknown for close in _close(name)))[:_MOST]
    return f"; did you mean {' or '.join(meant)}?" if meant else ""


def _close(name: str) -> list[str]:
    name = canonicalize_name(name)
    if (brought := _OF_MODULES.get(name, name)) != name:
        return [brought]
    others = [other for other in _WELL_KNOWN.split() if other != name]
    return difflib.get_close_matches(name, others, n=_MOST, cutoff=_ALIKE)

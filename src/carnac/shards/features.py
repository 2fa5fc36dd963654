"""What makes Hugging Face `datasets` open our Parquet with pictures as pictures: an entry in the footer."""

from __future__ import annotations

import json

import pyarrow as pa

from carnac.core.schema import SAMPLES

_STRING = {"dtype": "string", "_type": "Value"}

FEATURES = {
    "id": _STRING,
    "source": _STRING,
    "texts": {"feature": _STRING, "_type": "List"},
    "images": {"feature": {"_type": "Image"}, "_type": "List"},
    "roles": {"feature": _STRING, "_type": "List"},
    "metadata": _STRING,
}


def samples_schema() -> pa.Schema:
    """Return `SAMPLES` with the `huggingface` metadata: no `cast_column` is needed to get `PIL.Image` objects."""
    assert list(FEATURES) == SAMPLES.names
    return SAMPLES.with_metadata({"huggingface": json.dumps({"info": {"features": FEATURES}})})

"""sentence-transformers behind the plainest FastAPI route, to compare a server with.

MODEL=FOLDER uvicorn plain_route:app
"""

# FastAPI reads the annotations when the route is made: no `from __future__ import annotations`.

import os
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel
from sentence_transformers import CrossEncoder

app = FastAPI()
model = CrossEncoder(os.environ["MODEL"], device="cpu")


class Body(BaseModel):
    """A query and its documents."""

    query: str
    documents: list[str]


@app.post("/rerank")
def rerank(body: Body) -> dict[str, Any]:
    """The documents' scores, best first."""
    scores = model.predict([(body.query, document) for document in body.documents]).tolist()
    order = sorted(range(len(scores)), key=lambda index: -scores[index])
    return {"results": [{"index": index, "relevance_score": scores[index]} for index in order]}

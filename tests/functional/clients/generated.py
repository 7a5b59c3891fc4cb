"""
Call tools by a client that was generated from an OpenAPI document.

Reads a JSON object from stdin: ``directory`` that holds the package ``time_client``, ``url`` and
``key``.  Prints what the client got.
"""

from __future__ import annotations

import importlib
import json
import sys
from typing import Any


def main() -> None:
    """Call one tool well and one badly."""
    told = json.load(sys.stdin)
    sys.path.insert(0, told["directory"])
    part: Any = importlib.import_module
    client = part("time_client").AuthenticatedClient(base_url=told["url"], token=told["key"])
    convert = part("time_client.api.default.convert_time")
    models = part("time_client.models")
    good = convert.sync(
        client=client,
        body=models.ConvertTimeInput(
            source_timezone="UTC", time="12:00", target_timezone="Asia/Tokyo"
        ),
    )
    bad = convert.sync_detailed(
        client=client,
        body=models.ConvertTimeInput(
            source_timezone="Nowhere", time="12:00", target_timezone="Asia/Tokyo"
        ),
    )
    json.dump(
        {
            "good": good.to_dict(),
            "kind": type(good).__name__,
            "bad": [int(bad.status_code), json.loads(bad.content)["error"]["reason"]],
        },
        sys.stdout,
    )


if __name__ == "__main__":
    main()

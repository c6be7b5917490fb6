"""Ask a server whether it is well: `answers.py http://127.0.0.1:5000/health`. The health check of the containers."""

from __future__ import annotations

import sys
import urllib.request

if len(sys.argv) != 2 or not sys.argv[1].startswith("http://127.0.0.1:"):
    sys.exit("usage: answers.py http://127.0.0.1:PORT/PATH")
with urllib.request.urlopen(sys.argv[1], timeout=5) as answer:
    sys.exit(answer.status != 200)

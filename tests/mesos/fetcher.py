#!/usr/bin/env python3
"""mesos-fetcher, which no package has: brings what agents ask for into a sandbox.

The agent says what in MESOS_FETCHER_INFO. Files of this machine (a path or file://) and http://; archives are unpacked unless
the task says otherwise; nothing is kept for the next task.
"""

import json
import os
import shutil
import urllib.parse
import urllib.request

ARCHIVES = (".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".zip")

info = json.loads(os.environ["MESOS_FETCHER_INFO"])
sandbox = info["sandbox_directory"]
for item in info["items"]:
    uri = item["uri"]
    source = uri["value"]
    parts = urllib.parse.urlparse(source)
    target = os.path.join(sandbox, uri.get("output_file") or os.path.basename(parts.path))
    os.makedirs(os.path.dirname(target), exist_ok=True)
    if parts.scheme in ("http", "https"):
        with urllib.request.urlopen(source, timeout=60) as answer, open(target, "wb") as file:
            shutil.copyfileobj(answer, file)
    else:
        shutil.copyfile(parts.path, target)
    if uri.get("executable"):
        os.chmod(target, 0o755)
    elif uri.get("extract", True) and target.endswith(ARCHIVES):
        shutil.unpack_archive(target, sandbox)

"""A small executor over the v1 API, for tests: its tasks are running until they are killed, and do nothing.

It outlives its agent when it is checkpointed, and resubscribes with what was not acknowledged.
"""

import base64
import http.client
import json
import os
import time
import uuid

HOST, PORT = os.environ["MESOS_AGENT_ENDPOINT"].split(":")
IDS = {"framework_id": {"value": os.environ["MESOS_FRAMEWORK_ID"]}, "executor_id": {"value": os.environ["MESOS_EXECUTOR_ID"]}}
tasks, updates = {}, {}


def post(call):
    connection = http.client.HTTPConnection(HOST, int(PORT))
    body = json.dumps({**IDS, **call})
    connection.request("POST", "/api/v1/executor", body, {"Content-Type": "application/json", "Accept": "application/json"})
    return connection.getresponse()


def update(task_id, state):
    uid = base64.b64encode(uuid.uuid4().bytes).decode()
    status = {"task_id": task_id, "executor_id": IDS["executor_id"], "state": state, "source": "SOURCE_EXECUTOR"}
    updates[uid] = {"status": {**status, "uuid": uid, "timestamp": time.time()}}
    post({"type": "UPDATE", "update": updates[uid]})


def records(answer):
    while True:
        length = b""
        while not length.endswith(b"\n"):
            byte = answer.read(1)
            if not byte:
                return
            length += byte
        yield json.loads(answer.read(int(length)))


def handle(event):
    kind = event["type"]
    if kind == "LAUNCH":
        task = event["launch"]["task"]
        tasks[task["task_id"]["value"]] = task
        update(task["task_id"], "TASK_RUNNING")
    elif kind == "KILL":
        update(event["kill"]["task_id"], "TASK_KILLED")
    elif kind == "ACKNOWLEDGED":
        updates.pop(event["acknowledged"]["uuid"], None)
        tasks.pop(event["acknowledged"]["task_id"]["value"], None)
    elif kind == "MESSAGE":
        post({"type": "MESSAGE", "message": {"data": event["message"]["data"]}})
    elif kind in ("SHUTDOWN", "ERROR"):
        raise SystemExit


for _ in range(600):
    try:
        subscribe = {"unacknowledged_tasks": list(tasks.values()), "unacknowledged_updates": list(updates.values())}
        answer = post({"type": "SUBSCRIBE", "subscribe": subscribe})
        if answer.status == 200:
            for event in records(answer):
                handle(event)
    except (OSError, http.client.HTTPException):
        pass
    if os.environ.get("MESOS_CHECKPOINT") != "1":
        break
    time.sleep(0.1)

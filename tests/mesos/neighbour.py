"""A framework of somebody else's, on pymesos, for tests: its scheduler keeps one task on every agent, its executor makes
each of them work at a known share of a core with a known piece of memory.

    python neighbour.py MASTER      runs the scheduler until it is ended; what happens to its tasks is printed
    python neighbour.py executor    is what agents start
"""

import os
import shlex
import sys
import threading
import time

import pymesos

# What each of its tasks uses.
SHARE, MIB = 0.25, 48


class Tasks(pymesos.Executor):
    """One piece of work a task, until the task is killed."""

    def __init__(self):
        self.over = threading.Event()

    def launchTask(self, driver, task):
        threading.Thread(target=self.work, args=(driver, task["task_id"]), daemon=True).start()

    def work(self, driver, task_id):
        memory = bytearray(os.urandom(1 << 20) * MIB)
        driver.sendStatusUpdate({"task_id": task_id, "state": "TASK_RUNNING"})
        while not self.over.is_set():
            began = time.thread_time()
            while time.thread_time() < began + SHARE * 0.1:
                memory[0] ^= 1
            self.over.wait((1 - SHARE) * 0.1)
        driver.sendStatusUpdate({"task_id": task_id, "state": "TASK_KILLED"})
        time.sleep(1)
        driver.stop()

    def killTask(self, driver, task_id):
        self.over.set()

    def shutdown(self, driver):
        self.over.set()


class OneOnEach(pymesos.Scheduler):
    """Takes from each agent what one task needs, once, and declines the rest for a moment."""

    def __init__(self):
        self.on = set()

    def resourceOffers(self, driver, offers):
        for offer in offers:
            agent = offer["agent_id"]["value"]
            if agent in self.on:
                driver.declineOffer(offer["id"], {"refuse_seconds": 0.2})
                continue
            self.on.add(agent)
            driver.launchTasks(offer["id"], [self.task(offer)], {"refuse_seconds": 0.2})

    def task(self, offer):
        name = f"neighbour-{len(self.on)}"
        command = f"exec {shlex.quote(sys.executable)} {shlex.quote(os.path.abspath(__file__))} executor"
        scalar = lambda name, value: {"name": name, "type": "SCALAR", "scalar": {"value": value}}
        return {
            "name": name,
            "task_id": {"value": name},
            "agent_id": offer["agent_id"],
            "resources": [scalar("cpus", 0.2), scalar("mem", 64)],
            "executor": {
                "executor_id": {"value": f"of-{name}"},
                "command": {"value": command},
                "resources": [scalar("cpus", 0.1), scalar("mem", 32)],
            },
        }

    def statusUpdate(self, driver, update):
        print(update["task_id"]["value"], update["state"], flush=True)


if sys.argv[1] == "executor":
    pymesos.MesosExecutorDriver(Tasks()).run()
else:
    framework = {"user": "root", "name": "neighbour", "hostname": "neighbour.test"}
    pymesos.MesosSchedulerDriver(OneOnEach(), framework, sys.argv[1]).run()

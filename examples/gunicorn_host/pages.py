"""The site: a WSGI application as plain as can be, served by three gunicorn workers.

========================  ======================================================================
``/``                     who answers, and which edition of the code that is
``/register?name=ada``    hashes a password, and waits for the hash
``/reports/new``          begins the yearly report and waits for nothing; gives the task's id
``/reports?id=...``       how the report stands, whichever worker was asked to begin it
========================  ======================================================================
"""

import json
import os
from urllib.parse import parse_qsl

from jobs import EDITION, register, yearly_report

import gtaskman


def app(environ, start_response):
    page = PAGES.get(environ["PATH_INFO"])
    given = dict(parse_qsl(environ["QUERY_STRING"]))
    status = "200 OK" if page else "404 Not Found"
    answer = {"worker": os.getpid(), "edition": EDITION, **(page(**given) if page else {})}
    start_response(status, [("Content-Type", "application/json")])
    return [json.dumps(answer).encode()]


def who():
    return {"manager": gtaskman.stats()["pool"]}


def hashed(name):
    return {"hash": register.submit(name, "correct horse").get(timeout=30)}


def begin(seconds="2"):
    return {"id": yearly_report.submit(float(seconds)).id}


def standing(id):
    report = gtaskman.report(id)
    if report is None:
        return {"status": "unknown"}
    return {"status": report.status.name, "completed": report.completed, "result": report.result}


PAGES = {"/": who, "/register": hashed, "/reports/new": begin, "/reports": standing}

"""`celeriac demo`: one Django shop, run three times over the same requests, and what came out.

`project/` is the shop, an ordinary Django and Celery project that can be read as an example. The
rest is the stand around it, in the order in which it works:

- `options` what the user may choose; `stacks` the ways to run the shop that are compared
- `trace`, `plan` the requests, drawn once and sent in each phase
- `services`, `launch`, `watchdog`, `interrupts` real processes, and that none of them stays
- `phase` one stack from start to stop; `run` all of them
- `load` the driver that sends the requests, a process of its own
- `ledger`, `usage` what is counted and how
- `report` the table, the JSON file and the page
"""

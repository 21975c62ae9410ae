"""The load driver: a process of its own that sends the plan's requests and measures the answers.

One thread, one epoll, a fixed number of connections, each with one request under way: light enough
to leave the machine to what is measured. `python -m celeriac.demo.load` runs it.
"""
